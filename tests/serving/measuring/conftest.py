"""The tiny engine of the embedded engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.script_modules import load_script


@pytest.fixture(scope="session")
def measured_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer and a long context."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    local = load_script(Path(__file__).parents[1] / "local" / "conftest.py")
    folder = tmp_path_factory.mktemp("measured")
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(**(local.SIZES | local.VARIANTS["llama"]))
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    local.write_tokenizer(folder)
    return folder


@pytest.fixture
async def tiny(measured_folder: Path) -> AsyncIterator[Any]:
    """An engine on it, fp32, one thread."""
    from reason.serving.local.engine import LocalModel
    from reason.serving.model_files.find import ModelFiles

    files = ModelFiles("local/tiny", measured_folder, "tiny", "")
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    yield model
    await model.aclose()
