"""What importing the sources loads, and what they say where an optional package is missing."""

import re
import subprocess
import sys

import pytest
from reason.core.errors import UserError
from reason.core.extras import install_command
from reason.reasoning.retrieval.bm25 import BM25Index
from reason.reasoning.retrieval.sources.mcp import McpSource
from reason.reasoning.retrieval.vector_index import load_faiss


def test_importing_all_of_it_loads_nothing_heavy():
    heavy = {
        "torch",
        "faiss",
        "bm25s",
        "mcp",
        "mcp_types",
        "aiohttp",
        "numpy",
        "scipy",
        "litellm",
        "langgraph",
        "pypdf",
    }
    names = [
        "sources.client",
        "sources.mcp",
        "sources.factory",
        "retriever",
        "index.builder",
        "index.saved_index",
    ]
    script = (
        "import sys\n"
        + "".join(f"import reason.reasoning.retrieval.{n}\n" for n in names)
        + "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert heavy & set(done.stdout.split()) == set()


async def test_missing_packages_name_the_extra(monkeypatch):
    for package in ("bm25s", "faiss", "mcp"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"bm25s.*{re.escape(install_command('local'))}"):
        BM25Index.of([["a"]])
    with pytest.raises(UserError, match=rf"faiss.*{re.escape(install_command('local'))}"):
        load_faiss()
    with pytest.raises(UserError, match=rf"mcp.*{re.escape(install_command('mcp'))}"):
        await McpSource.connect(["x"])
