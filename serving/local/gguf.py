"""Converting a GGUF file to a model directory in Hugging Face's layout, weights in bf16.

Every tensor is dequantised, its rows put into the order that Hugging Face's models expect, and rounded to bf16. Files
of at most `SHARD_BYTES` are written one after the other, so the memory needed is that of one of them. The tokenizer
must be byte-level BPE: the file has its tokens, its merges and the name of its pre-tokenizer, whose regular expression
is defined here; or SentencePiece's BPE without a space before the text: the file has its tokens and their scores, which
order the merges.

Source: the GGUF specification; for the order of query and key rows the models' definitions: rotary embeddings rotate
neighbouring rows (2i, 2i+1) in GGUF's llama files and rows (i, i + d/2) of a head in Hugging Face's. Files of Gemma 3
leave out what all its sizes have in common, and add one to the weights of norms.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ...core.errors import DataError
from ..model_files.downloads import PullTask

_FAMILIES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}
"""Model type and class of each architecture, by its name in GGUF."""
SHARD_BYTES = 1 << 28
"""Maximum bytes of a file of several tensors."""
_GEMMA3_PATTERN, _GEMMA3_LOCAL_BASE = 6, 10_000.0
"""One in so many layers of Gemma 3 attends to all positions; the rotary base of the others."""
_GEMMA3_27B_LAYERS = 62
"""Layers of the one size of Gemma 3 that scales scores by another number than the width of its heads."""


class Metadata:
    """The file's key-value pairs, with errors that name the file and the key."""

    def __init__(self, file: str, fields: Mapping[str, gguf.ReaderField]) -> None:
        self.file = file
        self._fields = fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default if there is no such key."""
        field = self._fields.get(key)
        if field is None:
            return default
        try:
            return field.contents()
        except (UnicodeDecodeError, IndexError, ValueError) as e:
            raise DataError(f"damaged model file {self.file}: {key} is unreadable") from e

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer from 1 to 2**31 - 1; required if there is no default."""
        value = self.require(key) if default is None else self.get(key, default)
        if not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise DataError(f"damaged model file {self.file}: {key} is {str(value)[:40]!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number; required if there is no default."""
        value = self.require(key) if default is None else self.get(key, default)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise DataError(f"damaged model file {self.file}: {key} is {str(value)[:40]!r}")
        return float(value)

    def strings(self, key: str) -> list[str]:
        """A list of strings; empty if there is no such key."""
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"damaged model file {self.file}: {key} is not a list of strings")
        return value

    def require(self, key: str) -> Any:
        """The value of a required key."""
        value = self.get(key)
        if value is None:
            raise DataError(f"damaged model file {self.file}: {key} is missing", hint="use another file of this model")
        return value


def model_config(
    metadata: Metadata,
    *,
    vocab_size: int,
    tied: bool,
    attention_bias: bool,
    rope_factors: Sequence[float] | None,
) -> dict[str, Any]:
    """The model's configuration, without token ids.

    Args:
        tied: Whether embedding and output share their weights.
        rope_factors: Divisors of the rotary frequencies (half a head of them); None if all are 1.

    Raises:
        DataError: The architecture or one of its variants is not supported, or a key is missing.
    """
    family = str(metadata.require("general.architecture"))
    if family not in _FAMILIES:
        raise DataError(
            f"unsupported architecture {family!r} in {metadata.file}",
            hint=f"supported are {', '.join(_FAMILIES)}; for others use the Hugging Face directory: local/<directory>",
        )
    if metadata.get(f"{family}.expert_count", 0):
        raise DataError(
            f"unsupported model {metadata.file}: it is a mixture of experts",
            hint="use the model's Hugging Face directory: local/<directory>",
        )
    hidden = metadata.integer(f"{family}.embedding_length")
    heads = metadata.integer(f"{family}.attention.head_count")
    config: dict[str, Any] = {
        "architectures": [_FAMILIES[family][1]],
        "model_type": _FAMILIES[family][0],
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{family}.feed_forward_length"),
        "num_hidden_layers": metadata.integer(f"{family}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer(f"{family}.attention.head_count_kv", heads),
        "head_dim": metadata.integer(f"{family}.attention.key_length", max(hidden // heads, 1)),
        "hidden_act": "silu",
        "max_position_embeddings": metadata.integer(f"{family}.context_length"),
        "rms_norm_eps": _short(metadata.number(f"{family}.attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(metadata.number(f"{family}.rope.freq_base", 10000.0)),
        "rope_scaling": _rope_scaling(metadata, family, rope_factors),
        "tie_word_embeddings": tied,
        "attention_bias": attention_bias,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }
    if family == "llama":
        config["mlp_bias"] = False
    if family == "gemma3":
        config |= _gemma3_config(metadata, config)
        del config["hidden_act"]
    if config["head_dim"] % 2 or heads % config["num_key_value_heads"]:
        raise DataError(f"damaged model file {metadata.file}: its numbers of attention heads do not divide")
    return config


def _gemma3_config(metadata: Metadata, config: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 3 has beyond other families."""
    layers, pattern = config["num_hidden_layers"], _GEMMA3_PATTERN
    width = config["hidden_size"] // config["num_attention_heads"]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": metadata.integer("gemma3.attention.sliding_window"),
        "layer_types": ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)],
        "rope_local_base_freq": _GEMMA3_LOCAL_BASE,
        "query_pre_attn_scalar": width if layers == _GEMMA3_27B_LAYERS else config["head_dim"],
    }


def _rope_scaling(metadata: Metadata, family: str, factors: Sequence[float] | None) -> dict[str, Any] | None:
    kind = metadata.get(f"{family}.rope.scaling.type", "none")
    if factors is not None:
        return _llama3_scaling(metadata, family, factors)
    if kind == "none":
        return None
    factor = metadata.number(f"{family}.rope.scaling.factor", 1.0)
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = metadata.integer(f"{family}.rope.scaling.original_context_length")
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise DataError(f"unsupported model {metadata.file}: rotary scaling {kind!r}")


def _llama3_scaling(metadata: Metadata, family: str, factors: Sequence[float]) -> dict[str, Any]:
    """Parameters of the Llama 3.1 scaling with these factors; an error if there are none.

    Source: the `rope_scaling` of Llama 3.1 and 3.2: bands at wavelengths 8192/1 and 8192/4 tokens, a ramp between.
    """
    theta = metadata.number(f"{family}.rope.freq_base", 10000.0)
    low, high, original = 1.0, 4.0, 8192
    scaling = {
        "rope_type": "llama3",
        "factor": max(factors),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    for i, actual in enumerate(factors):
        wavelength = 2 * math.pi * theta ** (i / len(factors))
        ramp = min(max((original / wavelength - low) / (high - low), 0.0), 1.0)
        expected = 1 / ((1 - ramp) / max(factors) + ramp)
        if not math.isclose(actual, expected, rel_tol=1e-3):
            raise DataError(
                f"unsupported model {metadata.file}: its rotary factors match no known scaling",
                hint="use the model's Hugging Face directory: local/<directory>",
            )
    return scaling


def _short(value: float) -> float:
    """An fp32 number as its shortest decimal: 1e-05, not 9.999999747378752e-06."""
    return float(f"{float(value):.7g}")


_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""

_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_PATTERN = _LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

_EOS_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>", "</s>", "<end_of_turn>")
"""Control tokens that end a text, whichever of them the file names as its end-of-sequence token."""


def write_tokenizer(metadata: Metadata, directory: Path, max_tokens: int) -> dict[str, Any]:
    """Write the tokenizer's files.

    Returns:
        `bos_token_id`, `eos_token_id` (a list, the file's own first), `pad_token_id`, and `vocab_size`; ids that the
        file does not have are None.

    Raises:
        DataError: The file has no tokenizer, or one that is not supported.
    """
    pieces = metadata.strings("tokenizer.ggml.tokens")
    if not pieces:
        raise DataError(
            f"the model file {metadata.file} has no tokenizer", hint="use a file of this model that has one"
        )
    kind = metadata.require("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama") or (kind == "llama" and metadata.get("tokenizer.ggml.add_space_prefix", True)):
        raise DataError(
            f"unsupported tokenizer {kind!r} in {metadata.file}",
            hint="only byte-level BPE and SentencePiece's BPE without a space before the text are supported; "
            "else use the Hugging Face directory: local/<directory>",
        )
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(pieces))
    if not isinstance(types, list) or len(types) != len(pieces):
        raise DataError(f"damaged model file {metadata.file}: its tokenizer's lists differ in length")
    ids = _special_ids(metadata, pieces, types)
    tokenizer = (
        _byte_level_bpe(metadata, pieces) if kind == "gpt2" else _sentencepiece_bpe(metadata, pieces, types, ids)
    )
    added = [i for i, t in enumerate(types) if t in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(pieces[i], special=types[i] == _CONTROL, normalized=False) for i in added])
    if metadata.get("tokenizer.ggml.add_bos_token", False) and ids["bos_token_id"] is not None:
        first = pieces[ids["bos_token_id"]]
        prepend = processors.TemplateProcessing(
            single=[first, "$A"], pair=[first, "$A", first, "$B"], special_tokens=[(first, ids["bos_token_id"])]
        )
        own = [] if tokenizer.post_processor is None else [tokenizer.post_processor]
        tokenizer.post_processor = processors.Sequence([*own, prepend])
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_tokenizer_config(metadata, directory, pieces, types, ids, max_tokens)
    del ids["unk_token_id"]
    return {**ids, "vocab_size": len(pieces)}


def _byte_level_bpe(metadata: Metadata, pieces: list[str]) -> Tokenizer:
    merges = []
    for line in metadata.strings("tokenizer.ggml.merges"):
        left, _, right = line.partition(" ")
        merges.append((left, right))
    name = str(metadata.get("tokenizer.ggml.pre", "default"))
    vocabulary = _vocabulary(metadata, pieces)
    # Llama 3 uses a token that matches the whole piece, even if no merges produce it.
    ignore_merges = name in ("llama-bpe", "llama3", "llama-v3")
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    except Exception as e:
        raise DataError(f"damaged model file {metadata.file}: its tokenizer is inconsistent: {e}") from e
    tokenizer.pre_tokenizer = _pre_tokenizer(name, metadata.file)
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _sentencepiece_bpe(metadata: Metadata, pieces: list[str], types: list[int], ids: Mapping[str, Any]) -> Tokenizer:
    """BPE over characters, spaces written as a mark, that merges what makes the piece of the highest score first."""
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(pieces):
        raise DataError(f"damaged model file {metadata.file}: its tokenizer's lists differ in length")
    if not all(isinstance(score, float) for score in scores):
        raise DataError(f"damaged model file {metadata.file}: tokenizer.ggml.scores are no numbers")
    if ids["unk_token_id"] is None:
        raise DataError(f"damaged model file {metadata.file}: tokenizer.ggml.unknown_token_id is missing")
    vocabulary = _vocabulary(metadata, pieces)
    normal = [i for i, kind in enumerate(types) if kind == _NORMAL]
    merges = [
        (piece[:cut], piece[cut:])
        for piece in (pieces[i] for i in sorted(normal, key=lambda i: -scores[i]))
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    unknown = pieces[ids["unk_token_id"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _vocabulary(metadata: Metadata, pieces: list[str]) -> dict[str, int]:
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise DataError(f"damaged model file {metadata.file}: its tokenizer lists a token twice")
    return vocabulary


def _pre_tokenizer(name: str, file: str) -> pre_tokenizers.PreTokenizer:
    if name in ("gpt-2", "default"):
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    if name in ("llama-bpe", "llama3", "llama-v3", "qwen2"):
        pattern = Regex(_QWEN2_PATTERN if name == "qwen2" else _LLAMA3_PATTERN)
        split = pre_tokenizers.Split(pattern, behavior="isolated", invert=False)
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raise DataError(
        f"unsupported pre-tokenizer {name!r} in {file}",
        hint="supported are gpt-2, smollm, llama-bpe and qwen2; else use the Hugging Face directory: local/<directory>",
    )


def _special_ids(metadata: Metadata, pieces: list[str], types: list[int]) -> dict[str, Any]:
    def token_id(name: str) -> int | None:
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if value is not None and not (isinstance(value, int) and 0 <= value < len(pieces)):
            raise DataError(f"damaged model file {metadata.file}: its {name} token {value} is not in the vocabulary")
        return None if value is None else value

    eos = [i for i in (token_id("eos"), token_id("eot"), token_id("eom")) if i is not None]
    if not eos:
        raise DataError(f"damaged model file {metadata.file}: tokenizer.ggml.eos_token_id is missing")
    eos += [i for i, (piece, t) in enumerate(zip(pieces, types, strict=True)) if t == _CONTROL and piece in _EOS_TOKENS]
    padding = token_id("padding")
    return {
        "bos_token_id": token_id("bos"),
        "eos_token_id": list(dict.fromkeys(eos)),
        "pad_token_id": eos[0] if padding is None else padding,
        "unk_token_id": token_id("unknown"),
    }


def _write_tokenizer_config(
    metadata: Metadata, directory: Path, pieces: list[str], types: list[int], ids: dict[str, Any], max_tokens: int
) -> None:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "clean_up_tokenization_spaces": False,
        "bos_token": None if ids["bos_token_id"] is None else pieces[ids["bos_token_id"]],
        "eos_token": pieces[ids["eos_token_id"][0]],
        "pad_token": pieces[ids["pad_token_id"]],
        "unk_token": None if ids["unk_token_id"] is None else pieces[ids["unk_token_id"]],
        "additional_special_tokens": [p for p, t in zip(pieces, types, strict=True) if t == _CONTROL],
    }
    template = metadata.get("tokenizer.chat_template")
    if template:
        config["chat_template"] = str(template)
        (directory / "chat_template.jinja").write_text(str(template), encoding="utf-8")
    text = json.dumps({k: v for k, v in config.items() if v is not None}, indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


_LAYER_TENSORS = {
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
_GEMMA3_LAYER_TENSORS = _LAYER_TENSORS | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OTHER_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_TENSOR_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def convert(source: Path, directory: Path, pulling: PullTask) -> None:
    """Write `config.json`, `generation_config.json`, the tokenizer and the weights in safetensors files.

    Args:
        directory: An existing directory; files in it are replaced.
        pulling: Receives the progress; may cancel.

    Raises:
        DataError: The file is damaged, or of an architecture, tokenizer or number format that is not supported.
        Cancelled: Cancelled; `directory` is left incomplete.
        OSError: `directory` cannot be written.
    """
    reader = open_gguf(source)
    metadata = Metadata(source.name, dict(reader.fields))
    tensors = {t.name: t for t in reader.tensors}
    # In Hugging Face's layout, factors of the rotary frequencies are configuration, not a tensor.
    factors = tensors.pop("rope_freqs.weight", None)
    config = model_config(
        metadata,
        vocab_size=_num_rows(tensors, "token_embd.weight", source.name),
        tied="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        rope_factors=None if factors is None else _values(factors, source.name).ravel().astype(float).tolist(),
    )
    names = {name: _hugging_face_name(name, config, source.name) for name in tensors}
    _check_shapes(tensors, config, source.name)
    ids = write_tokenizer(metadata, directory, config["max_position_embeddings"])
    if ids.pop("vocab_size") > config["vocab_size"]:
        raise DataError(f"damaged model file {source.name}: more tokens than rows in the embedding")
    config |= {"bos_token_id": ids["bos_token_id"], "eos_token_id": ids["eos_token_id"][0]}
    config |= {"pad_token_id": ids["pad_token_id"]}
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", {k: v for k, v in ids.items() if v is not None})

    def converted(tensor: gguf.ReaderTensor) -> npt.NDArray[np.float32]:
        values = _values(tensor, source.name)
        if config["model_type"] == "gemma3_text" and tensor.name.endswith("_norm.weight"):
            return values - 1
        heads = _heads_to_reorder(tensor.name, config)
        return values if heads is None else _split_halves(values, heads)

    shards = _shards(list(tensors.values()))
    total, done = sum(_bf16_bytes(tensor) for tensor in tensors.values()), 0
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i:05}-of-{len(shards):05}.safetensors"
        values: dict[str, torch.Tensor] = {}
        for tensor in shard:
            pulling.report("converting", done, total)
            values[names[tensor.name]] = torch.tensor(converted(tensor)).bfloat16()
            done += _bf16_bytes(tensor)
        (directory / file).write_bytes(save(values, {"format": "pt"}))
        weight_map |= dict.fromkeys(values, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(directory / "model.safetensors.index.json", index)
    pulling.report("converting", done, total)


def _bf16_bytes(tensor: gguf.ReaderTensor) -> int:
    return 2 * math.prod(_shape(tensor))


def _shards(tensors: Sequence[gguf.ReaderTensor]) -> list[list[gguf.ReaderTensor]]:
    """The tensors of each file."""
    shards: list[list[gguf.ReaderTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + _bf16_bytes(tensor) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += _bf16_bytes(tensor)
    return shards


def open_gguf(source: Path) -> gguf.GGUFReader:
    """Open a GGUF file and check its structure.

    Raises:
        DataError: The file is missing, truncated, or not a GGUF file.
    """
    try:
        reader = gguf.GGUFReader(source)
    except FileNotFoundError:
        raise DataError(f"no such model file: {source}") from None
    except PermissionError:
        raise DataError(f"no permission to read the model file {source}") from None
    # The reader trusts the lengths in the file: a damaged one raises whatever numpy raises.
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeDecodeError, TypeError) as e:
        raise _damaged(source.name, f"not a readable GGUF file: {str(e) or type(e).__name__}") from e
    if not reader.tensors:
        raise _damaged(source.name, "it has no tensors")
    return reader


def _num_rows(tensors: dict[str, gguf.ReaderTensor], name: str, file: str) -> int:
    if name not in tensors:
        raise _damaged(file, f"the tensor {name} is missing")
    return int(tensors[name].shape[-1])


def _hugging_face_name(name: str, config: Mapping[str, Any], file: str) -> str:
    match = _LAYER_TENSOR_NAME.fullmatch(name)
    layer_tensors = _GEMMA3_LAYER_TENSORS if config["model_type"] == "gemma3_text" else _LAYER_TENSORS
    if match is not None and match[2] in layer_tensors and int(match[1]) < config["num_hidden_layers"]:
        return f"model.layers.{match[1]}.{layer_tensors[match[2]]}.{match[3]}"
    stem, _, kind = name.rpartition(".")
    if stem in _OTHER_TENSORS and kind == "weight":
        return f"{_OTHER_TENSORS[stem]}.weight"
    raise DataError(
        f"unsupported model file {file}: its tensor {name!r} is unknown",
        hint="this variant is not supported; use the model's Hugging Face directory: local/<directory>",
    )


def _check_shapes(tensors: dict[str, gguf.ReaderTensor], config: dict[str, Any], file: str) -> None:
    """Check that no tensor is missing and that each has the shape of the configuration."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    embedding = (config["vocab_size"], hidden)
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
    if config["model_type"] == "gemma3_text":
        block |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        block |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}

    def check(name: str, shape: tuple[int, ...]) -> None:
        if name not in tensors:
            raise _damaged(file, f"the tensor {name} is missing")
        actual = _shape(tensors[name])
        if actual != shape:
            raise _damaged(file, f"the tensor {name} has the shape {actual}, not {shape}")

    check("token_embd.weight", embedding)
    check("output_norm.weight", (hidden,))
    if "output.weight" in tensors:
        check("output.weight", embedding)
    for layer in range(config["num_hidden_layers"]):
        for part, shape in block.items():
            check(f"blk.{layer}.{part}", shape)
        for part, shape in optional.items():
            if f"blk.{layer}.{part}" in tensors:
                check(f"blk.{layer}.{part}", shape)


def _shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    """The shape in Hugging Face's order; GGUF lists the fastest dimension first."""
    return tuple(int(n) for n in reversed(tensor.shape))


def _values(tensor: gguf.ReaderTensor, file: str) -> npt.NDArray[np.float32]:
    try:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as e:
        raise DataError(
            f"unsupported model file {file}: {tensor.name} is stored as {tensor.tensor_type.name}",
            hint="use a file in F16, BF16, Q8_0, Q4_K or another common format",
        ) from e
    shaped: npt.NDArray[np.float32] = values.astype(np.float32, copy=False).reshape(_shape(tensor))
    if not np.isfinite(shaped).all():
        raise _damaged(file, f"{tensor.name} has values that are not finite")
    return shaped


def _heads_to_reorder(name: str, config: dict[str, Any]) -> int | None:
    if config["model_type"] != "llama":
        return None
    if ".attn_q." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".attn_k." in name else None


def _split_halves(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Put rows 0, 2, 4, … of each head before rows 1, 3, 5, …, so that rotary pairs are half a head apart."""
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _damaged(file: str, why: str) -> DataError:
    return DataError(f"damaged model file {file}: {why}", hint="it may be truncated; download it again")
