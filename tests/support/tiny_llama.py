"""A real, tiny Llama of random weights, for tests that need an engine and no knowledge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LINES = ("What is the capital of France? Paris.", "Let us think step by step. The answer is 42.", "one two three four")


def write_tiny_llama(folder: Path) -> None:
    """Write a model folder: 2 layers of width 64, a byte-level tokenizer."""
    numpy = pytest.importorskip("numpy")
    safetensors = pytest.importorskip("safetensors.numpy")
    folder.mkdir()
    vocabulary = write_tokenizer(folder)
    hidden, inner, heads, kv_heads, layers = 64, 128, 4, 2, 2
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": 65_536,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = numpy.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.1).astype(numpy.float32)

    tensors = {"model.embed_tokens.weight": weight(vocabulary, hidden), "model.norm.weight": weight(hidden) + 1}
    for i in range(layers):
        layer = f"model.layers.{i}"
        tensors |= {
            f"{layer}.input_layernorm.weight": weight(hidden) + 1,
            f"{layer}.post_attention_layernorm.weight": weight(hidden) + 1,
            f"{layer}.self_attn.q_proj.weight": weight(hidden, hidden),
            f"{layer}.self_attn.k_proj.weight": weight(kv_heads * hidden // heads, hidden),
            f"{layer}.self_attn.v_proj.weight": weight(kv_heads * hidden // heads, hidden),
            f"{layer}.self_attn.o_proj.weight": weight(hidden, hidden),
            f"{layer}.mlp.gate_proj.weight": weight(inner, hidden),
            f"{layer}.mlp.up_proj.weight": weight(inner, hidden),
            f"{layer}.mlp.down_proj.weight": weight(hidden, inner),
        }
    safetensors.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_tokenizer(folder: Path) -> int:
    """Train a byte-level tokenizer on a few lines; returns the size of its vocabulary."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    specials = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": 65_536,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return int(tokenizer.get_vocab_size())
