"""Runs the blocks of the first half of the pages; two files, so that two processes share the work."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.serving.model_files.find import ModelFiles
from support.doc_pages import RUNNABLE_PAGES, run_page
from support.doc_session import CommandForkServer


@pytest.mark.nightly
@pytest.mark.parametrize("page", RUNNABLE_PAGES[0::2])
def test_page_runs_as_documented(page: str, fork_server: CommandForkServer, tmp_path: Path, smollm2_files: ModelFiles):
    run_page(page, fork_server, tmp_path)
