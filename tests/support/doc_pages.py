"""The pages whose blocks are run, and how one is worked through."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.doc_blocks import blocks_of, pages
from support.doc_fixtures import open_page
from support.doc_session import Mother

RUN = {"bash", "console", "python"}
RUNNABLE = [page for page in pages() if any(b.language in RUN and not b.not_run for b in blocks_of(page))]


def work_through(page: str, mother: Mother, folder: Path) -> None:
    """Run every block of a page that a reader can run, word for word, in the order of the page."""
    blocks = [b for b in blocks_of(page) if not b.not_run]
    for program in ("curl", "jq"):
        if any(f"{program} " in b.code for b in blocks) and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with open_page(page, mother, folder / "reader") as session:
        for block in blocks:
            session.run(block)
