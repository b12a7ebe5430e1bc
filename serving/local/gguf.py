"""From a GGUF file to a model folder in Hugging Face's layout, weights in bf16.

Every tensor is dequantised, put back into the order that Hugging Face's models expect, rounded to bf16 and written out
before the next is touched, so the memory needed is that of the largest tensor.

Source: the GGUF specification, and for the order of query and key rows the model's definition: rotary embeddings turn
neighbouring rows (2i, 2i+1) in GGUF's llama files and rows (i, i + d/2) of a head in Hugging Face's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from ...core.errors import DataError
from ..pulling import Pulling
from .gguf_metadata import Metadata, model_config
from .gguf_tokenizer import write_tokenizer
from .safetensors_file import Planned, write_bf16

_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def convert(source: Path, folder: Path, pulling: Pulling) -> None:
    """Write `config.json`, `generation_config.json`, the tokenizer and `model.safetensors`.

    Args:
        source: The GGUF file.
        folder: An existing folder; files in it are replaced.
        pulling: Told of the progress; may cancel.

    Raises:
        DataError: The file is damaged, or of an architecture, tokenizer or number format that is not supported.
        Cancelled: Cancelled; `folder` is left incomplete.
        OSError: `folder` cannot be written.
    """
    reader = open_gguf(source)
    metadata = Metadata(source.name, dict(reader.fields))
    tensors = {t.name: t for t in reader.tensors}
    # Factors on the rotary frequencies are configuration in Hugging Face's layout, not a tensor.
    factors = tensors.pop("rope_freqs.weight", None)
    config = model_config(
        metadata,
        vocabulary=_rows(tensors, "token_embd.weight", source.name),
        tied="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        rope_factors=None if factors is None else _numbers(factors, source.name).ravel().astype(float).tolist(),
    )
    places = {name: _hugging_face_name(name, config["num_hidden_layers"], source.name) for name in tensors}
    _check_shapes(tensors, config, source.name)
    ids = write_tokenizer(metadata, folder, config["max_position_embeddings"])
    if ids.pop("vocabulary") > config["vocab_size"]:
        raise DataError(f"damaged model file {source.name}: more tokens than rows in the embedding")
    config |= {"bos_token_id": ids["bos_token_id"], "eos_token_id": ids["eos_token_id"][0]}
    config |= {"pad_token_id": ids["pad_token_id"]}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {k: v for k, v in ids.items() if v is not None})

    def planned(tensor: gguf.ReaderTensor) -> Planned:
        def load() -> npt.NDArray[np.float32]:
            numbers = _numbers(tensor, source.name)
            heads = _heads_to_reorder(tensor.name, config)
            return numbers if heads is None else _split_halves(numbers, heads)

        return Planned(places[tensor.name], _shape(tensor), load)

    write_bf16(folder / "model.safetensors", [planned(t) for t in tensors.values()], pulling)


def open_gguf(source: Path) -> gguf.GGUFReader:
    """A reader over a GGUF file, its structure checked.

    Raises:
        DataError: The file is missing, no GGUF file, or cut short.
    """
    try:
        reader = gguf.GGUFReader(source)
    except FileNotFoundError:
        raise DataError(f"no such model file: {source}") from None
    except PermissionError:
        raise DataError(f"the model file may not be read: {source}") from None
    # The reader trusts lengths found in the file, so a damaged one surfaces as whatever numpy trips over.
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeDecodeError, TypeError) as e:
        raise _damaged(source.name, f"not a readable GGUF file: {str(e) or type(e).__name__}") from e
    if not reader.tensors:
        raise _damaged(source.name, "it holds no tensors")
    return reader


def _rows(tensors: dict[str, gguf.ReaderTensor], name: str, file: str) -> int:
    if name not in tensors:
        raise _damaged(file, f"the tensor {name} is missing")
    return int(tensors[name].shape[-1])


def _hugging_face_name(name: str, layers: int, file: str) -> str:
    block = _BLOCK.fullmatch(name)
    if block is not None and block[2] in _PARTS and int(block[1]) < layers:
        return f"model.layers.{block[1]}.{_PARTS[block[2]]}.{block[3]}"
    stem, _, kind = name.rpartition(".")
    if stem in _WHOLE and kind == "weight":
        return f"{_WHOLE[stem]}.weight"
    raise DataError(
        f"unsupported model file {file}: no place for its tensor {name!r}",
        hint="it is of a variant that is not supported; use the model's Hugging Face folder: local/<folder>",
    )


def _check_shapes(tensors: dict[str, gguf.ReaderTensor], config: dict[str, Any], file: str) -> None:
    """Every tensor that must be there is, and each has the shape that the configuration says.

    Raises:
        DataError: One is missing or of another shape.
    """
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    table = (config["vocab_size"], hidden)
    block: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (hidden,),
        "attn_q.weight": (queries, hidden),
        "attn_k.weight": (keys, hidden),
        "attn_v.weight": (keys, hidden),
        "attn_output.weight": (hidden, queries),
        "ffn_norm.weight": (hidden,),
        "ffn_gate.weight": (inner, hidden),
        "ffn_up.weight": (inner, hidden),
        "ffn_down.weight": (hidden, inner),
    }
    optional = {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
    optional |= {
        "attn_q.bias": (queries,),
        "attn_k.bias": (keys,),
        "attn_v.bias": (keys,),
        "attn_output.bias": (hidden,),
    }

    def check(name: str, shape: tuple[int, ...]) -> None:
        if name not in tensors:
            raise _damaged(file, f"the tensor {name} is missing")
        found = _shape(tensors[name])
        if found != shape:
            raise _damaged(file, f"the tensor {name} has the shape {found}, not {shape}")

    check("token_embd.weight", table)
    check("output_norm.weight", (hidden,))
    if "output.weight" in tensors:
        check("output.weight", table)
    for layer in range(config["num_hidden_layers"]):
        for part, shape in block.items():
            check(f"blk.{layer}.{part}", shape)
        for part, shape in optional.items():
            if f"blk.{layer}.{part}" in tensors:
                check(f"blk.{layer}.{part}", shape)


def _shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    """The shape as Hugging Face counts it; GGUF lists the fastest dimension first."""
    return tuple(int(n) for n in reversed(tensor.shape))


def _numbers(tensor: gguf.ReaderTensor, file: str) -> npt.NDArray[np.float32]:
    try:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as e:
        raise DataError(
            f"unsupported model file {file}: {tensor.name} is stored as {tensor.tensor_type.name}",
            hint="use a file in F16, BF16, Q8_0, Q4_K or another common format",
        ) from e
    shaped: npt.NDArray[np.float32] = numbers.astype(np.float32, copy=False).reshape(_shape(tensor))
    if not np.isfinite(shaped).all():
        raise _damaged(file, f"{tensor.name} holds values that are not finite")
    return shaped


def _heads_to_reorder(name: str, config: dict[str, Any]) -> int | None:
    if config["model_type"] != "llama":
        return None
    if ".attn_q." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".attn_k." in name else None


def _split_halves(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows 0, 2, 4, … of each head first, then rows 1, 3, 5, …: rotary pairs half a head apart. Shape is kept."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _damaged(file: str, why: str) -> DataError:
    return DataError(f"damaged model file {file}: {why}", hint="it may be cut short; fetch it again")
