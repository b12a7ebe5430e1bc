"""The backend contract on the embedded engine: on a tiny model that writes ASCII, and nightly on SmolLM2."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from reason.core.messages import Prompt
from reason.serving.local.engine import LocalModel
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.model_files.find import ModelFiles
from safetensors.torch import load_file, save_file
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe


@pytest.fixture(scope="module")
def ascii_files(tiny_directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A tiny model whose greedy texts are printable bytes and an end: they have one tokenization, as real texts do."""
    directory = tmp_path_factory.mktemp("ascii") / "model"
    shutil.copytree(tiny_directory("llama3"), directory)
    weights = load_file(directory / "model.safetensors")
    printable = torch.tensor(Tokenizer(directory, "ascii").encode("".join(map(chr, range(32, 127)))))
    head = torch.zeros_like(weights["lm_head.weight"])
    head[printable] = weights["lm_head.weight"][printable]
    head[2] = 1.3 * weights["lm_head.weight"][2]
    save_file(weights | {"lm_head.weight": head}, directory / "model.safetensors", metadata={"format": "pt"})
    return ModelFiles("local/ascii", directory, "tiny-ascii", "")


@pytest.fixture(
    scope="module",
    params=["ascii_files", pytest.param("smollm2_files", marks=[pytest.mark.real, pytest.mark.nightly])],
)
def backend(request: pytest.FixtureRequest) -> Iterator[LocalModel]:
    files: ModelFiles = request.getfixturevalue(request.param)
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=256 << 20)
    yield model
    asyncio.run(model.aclose())


@pytest.fixture
def probe(backend: LocalModel) -> Probe:
    context = backend.capabilities.context_tokens
    assert context is not None
    return Probe(
        prompt=Prompt.user("Name a colour."),
        others=(Prompt.user("Name a city in France."), Prompt.user("What is 2 + 3?")),
        too_long=Prompt.user("word " * (context + 1)),
        under_way=lambda: backend.num_running,
        tolerance=1e-3,
    )
