"""Tiny GGUF files on the real llama.cpp."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from reason.core.settings import LocalSettings, Settings
from reason.serving.factory import load_model
from reason.serving.llama_cpp import LlamaCppModel
from reason.serving.local.engine import LocalModel
from support.tiny_gguf import TinyModel

REASON = "llama-cpp-python is not installed: its installation compiles llama.cpp for some minutes"
Kind = gguf.GGMLQuantizationType


@pytest.fixture(scope="session")
def llama_cpp() -> Any:
    """The module, or a skipped test."""
    return pytest.importorskip("llama_cpp", reason=REASON)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    """Makes the file of the tiny model with matrices of a number format, once for each."""
    made: dict[Kind, Path] = {}

    def make(kind: Kind) -> Path:
        if kind not in made:
            made[kind] = TinyModel().write(tmp_path_factory.mktemp(kind.name) / "tiny.gguf", kind)
        return made[kind]

    return make


@pytest.fixture
def decoder(llama_cpp: Any, tiny_file: Callable[[Kind], Path]) -> Iterator[LlamaCppModel]:
    """The tiny model, single precision, with 2,048 cells."""
    model = LlamaCppModel(tiny_file(Kind.F32), "gguf/tiny", threads=1, kv_cache_bytes=1 << 18, max_num_seqs=4)
    yield model
    model.close()


@pytest.fixture
async def tiny(llama_cpp: Any, tiny_file: Callable[[Kind], Path], tmp_path: Path) -> AsyncIterator[LocalModel]:
    """An engine on the tiny model, single precision, with 2,048 cells."""
    local = LocalSettings(threads=1, max_num_seqs=4, kv_cache_bytes=1 << 20)
    model = await load_model(f"gguf/{tiny_file(Kind.F32)}", Settings(cache_dir=tmp_path, local=local))
    assert isinstance(model, LocalModel)
    yield model
    await model.aclose()
