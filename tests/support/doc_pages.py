"""The pages whose blocks are run, and how a page is run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.doc_blocks import blocks_of, pages
from support.doc_fixtures import open_page
from support.doc_session import CommandForkServer

RUN_LANGUAGES = {"bash", "console", "python"}
RUNNABLE_PAGES = [
    page for page in pages() if any(b.language in RUN_LANGUAGES and not b.not_run for b in blocks_of(page))
]


def run_page(page: str, server: CommandForkServer, directory: Path) -> None:
    """Run every block of a page that can be run here, verbatim and in order."""
    blocks = [b for b in blocks_of(page) if not b.not_run]
    for program in ("curl", "jq"):
        if any(f"{program} " in b.code for b in blocks) and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with open_page(page, server, directory / "session") as session:
        for block in blocks:
            session.run(block)
