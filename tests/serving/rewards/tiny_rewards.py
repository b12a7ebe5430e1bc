"""Tiny reward models with random weights, written as folders; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<extra_0>", "ки", "<|endoftext|>"]


def tokenizer(folder: Path, *, chat: bool = True) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of single bytes and a few special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    plain = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=512
    )
    made.add_special_tokens({"additional_special_tokens": SPECIAL[:-1]})
    if chat:
        made.chat_template = CHATML
    made.save_pretrained(folder)
    return made


def qwen_config(**more: Any) -> transformers.Qwen2Config:
    return transformers.Qwen2Config(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=256,
        **more,
    )


def process_model(folder: Path, *, labels: int = 2, seed: int = 0) -> Path:
    """What Qwen2.5-Math-PRM's folder looks like: a Qwen2 body, a head of two layers, code that must not be run."""
    torch.manual_seed(seed)
    tokenizer(folder)
    config = qwen_config()
    body = transformers.Qwen2Model(config)
    width = config.hidden_size
    weights = {f"model.{name}": value.contiguous() for name, value in body.state_dict().items()}
    weights |= {
        "score.0.weight": torch.randn(width, width) / 4,
        "score.0.bias": torch.randn(width) / 4,
        "score.2.weight": torch.randn(labels, width) / 2,
        "score.2.bias": torch.randn(labels) / 4,
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    name = "Qwen2ForProcessRewardModel" if labels == 2 else "Qwen2ForRewardModel"
    told = config.to_dict() | {
        "architectures": [name],
        "auto_map": {"AutoModel": f"modeling_evil.{name}"},
        "torch_dtype": "float32",
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "modeling_evil.py").write_text("raise SystemExit('foreign code was run')\n")
    return folder


def speaking_model(folder: Path) -> Path:
    """A plain Llama."""
    torch.manual_seed(1)
    tokenizer(folder, chat=False)
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def decoder_classifier(folder: Path, labels: int = 1) -> Path:
    torch.manual_seed(2)
    tokenizer(folder)
    transformers.Qwen2ForSequenceClassification(qwen_config(num_labels=labels, pad_token_id=256)).save_pretrained(
        folder
    )
    return folder


def encoder_classifier(folder: Path) -> Path:
    torch.manual_seed(3)
    tokenizer(folder, chat=False)
    config = transformers.BertConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        num_labels=2,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder
