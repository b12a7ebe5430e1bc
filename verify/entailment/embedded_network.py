"""The network of the embedded judge: a BERT encoder over text and claim, and a head of three labels; its tokenizer.

Source of the encoder: Devlin et al. 2019, arXiv:1810.04805 (post-norm transformer, with token types for the two texts);
its weights are MiniLM's (Wang et al. 2020, arXiv:2002.10957). Ours are the marks, which are added before the third
layer (`embedded_features`), and the head. Its inputs are the first token, mean and maximum over the claim's tokens,
since one word can refute a claim, the mean over the text, and the features, which also feed the labels directly.

Weights are tensors by name and not modules, so that training and inference share one function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...core.errors import DataError
from .embedded_features import FEATURES, MARKS, MAX_CHARS, MarkedSpan, pair_features
from .protocol import Pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_TOKENS: Final = 128
"""Maximum tokens of a pair; the end of the evidence is cut."""
MAX_CLAIM_TOKENS: Final = 56
"""Maximum tokens of a claim."""
MAX_TITLE_TOKENS: Final = 16
"""Maximum tokens of a title."""

_SPECIAL = ("[CLS]", "[SEP]", ":")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A tokenized pair: `[CLS] title : evidence [SEP] claim [SEP]`.

    Attributes:
        ids: Tokens.
        marks: Mark of each token, an index into `MARKS`.
        claim: Position of the claim's first token.
        features: A number for each of `FEATURES`.
    """

    ids: tuple[int, ...]
    marks: tuple[int, ...]
    claim: int
    features: tuple[float, ...]


@dataclass(frozen=True)
class TokenBatch:
    """Rows of equal length, padded.

    Attributes:
        ids: int64 `[rows, tokens]`; padding is 0.
        types: int64 `[rows, tokens]`: 1 from the claim on.
        marks: int64 `[rows, tokens]`.
        real: bool `[rows, tokens]`: all but padding.
        claim: bool `[rows, tokens]`: the claim's tokens.
        evidence: bool `[rows, tokens]`: title and evidence.
        features: fp32 `[rows, features]`.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    marks: NDArray[np.int64]
    real: NDArray[np.bool_]
    claim: NDArray[np.bool_]
    evidence: NDArray[np.bool_]
    features: NDArray[np.float32]


class PairTokenizer:
    """Tokenizer of pairs.

    Args:
        directory: The model's directory, with `tokenizer.json`.

    Raises:
        DataError: The file cannot be read, or has no separator tokens.
    """

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        try:
            tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as e:
            raise DataError(f"cannot read the tokenizer {path}: {e}") from e
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = [tokenizer.token_to_id(token) for token in _SPECIAL]
        if None in special:
            raise DataError(f"the tokenizer {path} lacks one of the tokens {', '.join(_SPECIAL)}")
        self._cls, self._sep, self._colon = special
        self._tokenizer = tokenizer

    def rows(self, pairs: Sequence[Pair]) -> list[TokenRow]:
        """The rows of pairs, in order."""
        texts = [part[:MAX_CHARS] for pair in pairs for part in (pair.title, pair.evidence, pair.claim)]
        encoded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [self._row(pair, encoded[3 * i : 3 * i + 3]) for i, pair in enumerate(pairs)]

    def _row(self, pair: Pair, encoded: Sequence[Any]) -> TokenRow:
        pair_marks = pair_features(pair)
        title, evidence, claim = (
            _mark_tokens(encoding, marks)
            for encoding, marks in zip(encoded, (pair_marks.title, pair_marks.evidence, pair_marks.claim), strict=True)
        )
        title, claim = title[:MAX_TITLE_TOKENS], claim[:MAX_CLAIM_TOKENS]
        head = [(self._cls, 0), *title, *([(self._colon, 0)] if title else [])]
        max_evidence = MAX_TOKENS - len(head) - len(claim) - 2
        first = [*head, *evidence[:max_evidence], (self._sep, 0)]
        tokens = [*first, *claim, (self._sep, 0)]
        return TokenRow(
            ids=tuple(token for token, _ in tokens),
            marks=tuple(mark for _, mark in tokens),
            claim=len(first),
            features=pair_marks.features,
        )


def make_batch(rows: Sequence[TokenRow]) -> TokenBatch:
    """Pad rows to a batch."""
    import numpy as np

    width = max(len(row.ids) for row in rows)
    shape = (len(rows), width)
    ids, marks = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    position = np.arange(width)[None, :]
    length = np.array([len(row.ids) for row in rows])[:, None]
    begin = np.array([row.claim for row in rows])[:, None]
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = row.ids
        marks[i, : len(row.ids)] = row.marks
    claim = (position >= begin) & (position < length - 1)
    return TokenBatch(
        ids=ids,
        types=((position >= begin) & (position < length)).astype(np.int64),
        marks=marks,
        real=position < length,
        claim=claim | ((length - 1 == begin) & (position == begin)),  # an empty claim is its closing token
        evidence=(position > 0) & (position < begin),
        features=np.array([row.features for row in rows], dtype=np.float32),
    )


def _mark_tokens(encoded: Any, marks: Sequence[MarkedSpan]) -> list[tuple[int, int]]:
    """Tokens with the mark of the word that they start in, in the order of the text."""
    marked, at = [], 0
    for token, (start, _) in zip(encoded.ids, encoded.offsets, strict=True):
        while at < len(marks) and marks[at].end <= start:
            at += 1
        is_marked = at < len(marks) and marks[at].start <= start
        marked.append((token, marks[at].mark if is_marked else 0))
    return marked


if TYPE_CHECKING:
    import torch

    Weights = Mapping[str, torch.Tensor]

LABELS: Final = ("supports", "refutes", "neutral")
HIDDEN: Final = 128
"""Size of the head's hidden layer."""

_EMBEDDINGS: Final = ("word_embeddings", "position_embeddings", "token_type_embeddings")


@dataclass(frozen=True)
class EncoderShape:
    """Shape of an encoder, as far as the weights do not determine it.

    Attributes:
        layers: Number of layers.
        heads: Attention heads of a layer.
        size: Hidden size.
        eps: Added to the variance in layer normalization.
    """

    layers: int
    heads: int
    size: int
    eps: float

    @property
    def entry(self) -> int:
        """The first trained layer, at a third of the depth; marks are added before it. Earlier layers are frozen."""
        return self.layers // 3


def read_encoder(directory: Path) -> tuple[dict[str, torch.Tensor], EncoderShape]:
    """An encoder's weights in fp32 under short names, and its shape.

    Query, key and value of a layer are one matrix, `0.qkv.weight`; the others are `0.out`, `0.up`, `0.down`, and
    `0.norm1` and `0.norm2`; embeddings are `words`, `positions`, `types` and `norm`.

    Raises:
        DataError: The directory has no BERT encoder.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        shape = EncoderShape(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            size=int(config["hidden_size"]),
            eps=float(config["layer_norm_eps"]),
        )
        raw = {
            n: t.to(torch.float32)
            for n, t in load_file(str(directory / "model.safetensors")).items()
            if t.is_floating_point()
        }
        words, positions, types = (raw[f"embeddings.{name}.weight"] for name in _EMBEDDINGS)
        weights = {"words": words, "positions": positions, "types": types}
        weights |= _renamed_tensors(raw, "embeddings.LayerNorm", "norm")
        for i in range(shape.layers):
            source = f"encoder.layer.{i}"
            for kind in ("weight", "bias"):
                parts = [raw[f"{source}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
                weights[f"{i}.qkv.{kind}"] = torch.cat(parts)
            weights |= _renamed_tensors(raw, f"{source}.attention.output.dense", f"{i}.out")
            weights |= _renamed_tensors(raw, f"{source}.attention.output.LayerNorm", f"{i}.norm1")
            weights |= _renamed_tensors(raw, f"{source}.intermediate.dense", f"{i}.up")
            weights |= _renamed_tensors(raw, f"{source}.output.dense", f"{i}.down")
            weights |= _renamed_tensors(raw, f"{source}.output.LayerNorm", f"{i}.norm2")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise DataError(f"{directory} has no BERT encoder: {e}", hint="download the model again") from e
    return weights, shape


def init_head(shape: EncoderShape, seed: int) -> dict[str, torch.Tensor]:
    """Marks and head before any training: the marks and the labels' matrices are 0, the hidden layer is random."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    width = 4 * shape.size + len(FEATURES)
    return {
        "marks": torch.zeros(len(MARKS), shape.size),
        "hidden.weight": torch.randn(HIDDEN, width, generator=generator) * width**-0.5,
        "hidden.bias": torch.zeros(HIDDEN),
        "labels.weight": torch.zeros(len(LABELS), HIDDEN),
        "labels.bias": torch.zeros(len(LABELS)),
        "features.weight": torch.zeros(len(LABELS), len(FEATURES)),
    }


def compute_logits(weights: Weights, shape: EncoderShape, batch: TokenBatch, *, dropout: float = 0.0) -> torch.Tensor:
    """The network's outputs before the softmax.

    Args:
        weights: Weights of encoder and head.
        shape: Shape of the encoder.
        batch: The rows.
        dropout: Dropout probability in the head during training, from torch's global generator.

    Returns:
        fp32 `[rows, 3]`, in the order of `LABELS`.
    """
    import torch
    from torch.nn import functional as f

    device, dtype = weights["0.qkv.weight"].device, weights["0.qkv.weight"].dtype

    def to_device(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    def apply_dropout(x: torch.Tensor) -> torch.Tensor:
        return f.dropout(x, dropout) if dropout else x

    def normalize(x: torch.Tensor, name: str) -> torch.Tensor:
        return f.layer_norm(x, (shape.size,), weights[f"{name}.weight"], weights[f"{name}.bias"], shape.eps)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return f.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    rows, tokens = batch.ids.shape
    x = f.embedding(to_device(batch.ids), weights["words"]) + weights["positions"][:tokens]
    x = normalize((x + f.embedding(to_device(batch.types), weights["types"])).to(dtype), "norm")
    padding_mask = torch.zeros(rows, 1, 1, tokens, device=device).masked_fill(
        ~to_device(batch.real)[:, None, None, :], -1e4
    )
    by_head = (rows, tokens, shape.heads, shape.size // shape.heads)
    for i in range(shape.layers):
        if i == shape.entry:
            x = x + f.embedding(to_device(batch.marks), weights["marks"]).to(x.dtype)
        parts = zip(weights[f"{i}.qkv.weight"].chunk(3), weights[f"{i}.qkv.bias"].chunk(3), strict=True)
        q, k, v = (f.linear(x, matrix, bias).view(by_head).transpose(1, 2) for matrix, bias in parts)
        # not fused: the backward pass of torch's fused attention is four times slower for such texts on a CPU
        scores = (q * by_head[-1] ** -0.5) @ k.transpose(-1, -2) + padding_mask.to(q.dtype)
        attended = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(rows, tokens, shape.size)
        x = normalize(x + linear(attended, f"{i}.out"), f"{i}.norm1")
        x = normalize(x + linear(f.gelu(linear(x, f"{i}.up")), f"{i}.down"), f"{i}.norm2")
    x = x.float()
    claim, evidence = to_device(batch.claim)[:, :, None], to_device(batch.evidence)[:, :, None]
    features = to_device(batch.features)
    pooled = [
        x[:, 0],
        _mean(x, claim),
        x.masked_fill(~claim, -torch.inf).amax(1),
        _mean(x, evidence),
        features,
    ]
    hidden = f.gelu(f.linear(apply_dropout(torch.cat(pooled, 1)), weights["hidden.weight"], weights["hidden.bias"]))
    logits = f.linear(apply_dropout(hidden), weights["labels.weight"], weights["labels.bias"])
    return logits + f.linear(features, weights["features.weight"])


def _mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count = mask.sum(1).clamp(min=1)
    return (x * mask).sum(1) / count


def _renamed_tensors(raw: Mapping[str, torch.Tensor], source: str, target: str) -> dict[str, torch.Tensor]:
    return {f"{target}.{kind}": raw[f"{source}.{kind}"] for kind in ("weight", "bias")}
