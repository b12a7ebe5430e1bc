"""Tiny random models in Hugging Face layout, and engines on them and on SmolLM2."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reason.serving.local.engine import LocalModel
from reason.serving.model_files.find import ModelFiles

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<|start|>", "<|end|>"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SIZES: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.25,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama3": {"model_type": "llama", "rope_parameters": LLAMA3, "tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen25": {
        "model_type": "qwen2",
        "hidden_size": 96,
        "num_attention_heads": 6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
    },
    "llama32": {
        "model_type": "llama",
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "rope_parameters": LLAMA3,
        "tie_word_embeddings": True,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "qwen2_sliding": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 24,
        "max_window_layers": 1,
        "head_dim": 16,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 5,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "query_pre_attn_scalar": 20,
        "sliding_window": 24,
        "layer_types": [f"{t}_attention" for t in ("sliding", "sliding", "full", "sliding", "full")],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
        },
    },
    "gpt_neox": {"model_type": "gpt_neox", "max_position_embeddings": 512, "num_key_value_heads": 4},
    "gemma": {"model_type": "gemma", "head_dim": 16},
}


def write_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer: special tokens 0-2, then the 256 bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate([*SPECIAL, *alphabet])}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    fast.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "bos_token": "<|start|>"}))
    (directory / "chat_template.jinja").write_text(TEMPLATE)


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the directory of a tiny random model of a variant, once for each."""
    made: dict[str, Path] = {}

    def make(variant: str) -> Path:
        if variant not in made:
            from transformers import AutoConfig, AutoModelForCausalLM

            directory = tmp_path_factory.mktemp(variant)
            settings = SIZES | VARIANTS[variant]
            torch.manual_seed(7)
            config = AutoConfig.for_model(**settings)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            for name, parameter in model.named_parameters():
                if "norm" in name or name.endswith("bias"):
                    torch.nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 1.0, std=0.2)
            model.save_pretrained(directory)
            write_tokenizer(directory)
            made[variant] = directory
        return made[variant]

    return make


@pytest.fixture(scope="session")
def tiny_files(tiny_directory: Callable[[str], Path]) -> Callable[[str], ModelFiles]:
    """Makes `ModelFiles` of a tiny variant."""

    def make(variant: str) -> ModelFiles:
        return ModelFiles(f"local/{variant}", tiny_directory(variant), f"tiny-{variant}", "")

    return make


@pytest.fixture
async def tiny(tiny_files: Callable[[str], ModelFiles]) -> AsyncIterator[LocalModel]:
    """An engine on the tiny Llama, fp32, one thread."""
    model = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    yield model
    await model.aclose()


@pytest.fixture(scope="session")
def smollm2(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    """An engine on SmolLM2-135M, fp32, one thread."""
    model = LocalModel.load(smollm2_files, weight_format="fp32", threads=1, kv_cache_bytes=256 << 20)
    yield model
    asyncio.run(model.aclose())
