"""What importing the sources loads, and what they say where an optional package is missing."""

import re
import sys

import pytest
from reason.core.errors import UserError
from reason.core.extras import install_command
from reason.reasoning.retrieval.bm25 import BM25Index
from reason.reasoning.retrieval.sources.mcp import McpSource
from reason.reasoning.retrieval.vector_index import load_faiss


async def test_missing_packages_name_the_extra(monkeypatch):
    for package in ("bm25s", "faiss", "mcp"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"bm25s.*{re.escape(install_command('local'))}"):
        BM25Index.of([["a"]])
    with pytest.raises(UserError, match=rf"faiss.*{re.escape(install_command('local'))}"):
        load_faiss()
    with pytest.raises(UserError, match=rf"mcp.*{re.escape(install_command('mcp'))}"):
        await McpSource.connect(["x"])
