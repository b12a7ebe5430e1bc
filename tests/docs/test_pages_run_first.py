"""Runs the blocks of the first half of the pages; two files, so that two processes share the work."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.serving.model_files.find import ModelFiles
from support.doc_pages import RUNNABLE, work_through
from support.doc_session import Mother


@pytest.mark.parametrize("page", RUNNABLE[0::2])
def test_page_runs_as_documented(page: str, mother: Mother, tmp_path: Path, smollm2_files: ModelFiles):
    work_through(page, mother, tmp_path)
