"""The tokenizer of a GGUF file, as `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.

Byte-level BPE: the file has the pieces and merges, and the name of the rule by which text is cut before merging. The
rules are written down here by the regular expressions their models were trained with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ...core.errors import DataError
from .gguf_metadata import Metadata

_CONTROL, _USER_DEFINED = 3, 4

_LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_CUT = _LLAMA3_CUT.replace(r"\p{N}{1,3}", r"\p{N}")

_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>", "</s>")
"""Control tokens after which no model means to go on, whichever of them the file names as its end of text."""


def write_tokenizer(metadata: Metadata, folder: Path, context: int) -> dict[str, Any]:
    """Write the tokenizer's files.

    Args:
        metadata: The GGUF file's.
        folder: Where to.
        context: Most tokens of the model's context.

    Returns:
        `bos_token_id`, `eos_token_id` (a list, the file's own end of text first), `pad_token_id`, and the size of the
        `vocabulary`; ids the file does not give are None.

    Raises:
        DataError: The file has no tokenizer, or one that is not supported.
    """
    pieces = metadata.strings("tokenizer.ggml.tokens")
    if not pieces:
        raise DataError(
            f"the model file {metadata.file} has no tokenizer", hint="use a file of this model that has one"
        )
    kind = metadata.need("tokenizer.ggml.model")
    if kind != "gpt2":
        raise DataError(
            f"unsupported tokenizer {kind!r} in {metadata.file}",
            hint="GGUF files with byte-level BPE are read; for others use the Hugging Face folder: local/<folder>",
        )
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(pieces))
    if not isinstance(types, list) or len(types) != len(pieces):
        raise DataError(f"damaged model file {metadata.file}: its tokenizer's lists do not fit together")
    ids = _special_ids(metadata, pieces, types)
    tokenizer = _byte_level_bpe(metadata, pieces)
    added = [i for i, t in enumerate(types) if t in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(pieces[i], special=types[i] == _CONTROL, normalized=False) for i in added])
    if metadata.get("tokenizer.ggml.add_bos_token", False) and ids["bos_token_id"] is not None:
        first = pieces[ids["bos_token_id"]]
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single=[first, "$A"], pair=[first, "$A", first, "$B"], special_tokens=[(first, ids["bos_token_id"])]
                ),
            ]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_config(metadata, folder, pieces, types, ids, context)
    del ids["unk_token_id"]
    return {**ids, "vocabulary": len(pieces)}


def _byte_level_bpe(metadata: Metadata, pieces: list[str]) -> Tokenizer:
    merges = []
    for line in metadata.strings("tokenizer.ggml.merges"):
        left, _, right = line.partition(" ")
        merges.append((left, right))
    rule = str(metadata.get("tokenizer.ggml.pre", "default"))
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise DataError(f"damaged model file {metadata.file}: its tokenizer lists a token twice")
    # Llama 3 takes a whole piece where there is one, even if no chain of merges leads to it.
    whole_pieces_first = rule in ("llama-bpe", "llama3", "llama-v3")
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_pieces_first))
    except Exception as e:
        raise DataError(f"damaged model file {metadata.file}: its tokenizer is inconsistent: {e}") from e
    tokenizer.pre_tokenizer = _cut(rule, metadata.file)
    if rule == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _cut(rule: str, file: str) -> pre_tokenizers.PreTokenizer:
    if rule in ("gpt-2", "default"):
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if rule == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    if rule in ("llama-bpe", "llama3", "llama-v3", "qwen2"):
        pattern = Regex(_QWEN2_CUT if rule == "qwen2" else _LLAMA3_CUT)
        split = pre_tokenizers.Split(pattern, behavior="isolated", invert=False)
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    raise DataError(
        f"unsupported tokenizer rule {rule!r} in {file}",
        hint="known are gpt-2, smollm, llama-bpe and qwen2; for others use the Hugging Face folder: local/<folder>",
    )


def _special_ids(metadata: Metadata, pieces: list[str], types: list[int]) -> dict[str, Any]:
    def known(name: str) -> int | None:
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if value is not None and not (isinstance(value, int) and 0 <= value < len(pieces)):
            raise DataError(f"damaged model file {metadata.file}: its {name} token {value} is not in the vocabulary")
        return None if value is None else value

    ends = [i for i in (known("eos"), known("eot"), known("eom")) if i is not None]
    if not ends:
        raise DataError(f"damaged model file {metadata.file}: tokenizer.ggml.eos_token_id is missing")
    ends += [i for i, (piece, t) in enumerate(zip(pieces, types, strict=True)) if t == _CONTROL and piece in _ENDS]
    padding = known("padding")
    return {
        "bos_token_id": known("bos"),
        "eos_token_id": list(dict.fromkeys(ends)),
        "pad_token_id": ends[0] if padding is None else padding,
        "unk_token_id": known("unknown"),
    }


def _write_config(
    metadata: Metadata, folder: Path, pieces: list[str], types: list[int], ids: dict[str, Any], context: int
) -> None:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
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
        (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8")
    text = json.dumps({k: v for k, v in config.items() if v is not None}, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
