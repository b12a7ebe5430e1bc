"""The network of the embedded judges: an encoder over text and claim, and a head of three labels; its tokenizer.

Source of the encoders: Devlin et al. 2019, arXiv:1810.04805 (post-norm transformer, with token types for the two
texts), with the weights of MiniLM (Wang et al. 2020, arXiv:2002.10957); Song et al. 2020, "MPNet", arXiv:2004.09297 (no
token types; attention scores have a learned bias by distance, as in Raffel et al. 2020, arXiv:1910.10683, section 2.1).
Ours are the marks, which are added at a third of the depth (`embedded_features`), and the head. Its inputs are the
first token, mean and maximum over the claim's tokens, since one word can refute a claim, the mean over the text, and
the features, which also feed the labels directly.

Matrices can have a trained change of low rank, W + b a (Hu et al. 2021, "LoRA", arXiv:2106.09685).

Weights are tensors by name and not modules, so that training and inference share one function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ...core.errors import DataError
from ..types import Pair
from .embedded_features import FEATURES, MARKS, MAX_CHARS, MarkedSpan, pair_features

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_CLAIM_TOKENS: Final = 56
"""Maximum tokens of a claim."""
MAX_TITLE_TOKENS: Final = 16
"""Maximum tokens of a title."""

_COLON: Final = ":"


@dataclass(frozen=True)
class EncoderConfig:
    """Configuration of an encoder, as far as the weights do not determine it.

    Attributes:
        family: "bert" or "mpnet".
        layers: Number of layers.
        heads: Attention heads of a layer.
        size: Hidden size.
        eps: Added to the variance in layer normalization.
        buckets: Number of distances that the attention bias distinguishes; 0 without one.
    """

    family: Literal["bert", "mpnet"]
    layers: int
    heads: int
    size: int
    eps: float
    buckets: int = 0

    @property
    def entry(self) -> int:
        """The first trained layer, at a third of the depth; marks are added before it. Earlier layers are frozen."""
        return self.layers // 3

    @property
    def max_tokens(self) -> int:
        """Maximum tokens of a pair; the end of the evidence is cut."""
        return 128 if self.family == "bert" else 256

    @property
    def special_tokens(self) -> tuple[str, str]:
        """The first token of a pair, and the one after each text."""
        return ("[CLS]", "[SEP]") if self.family == "bert" else ("<s>", "</s>")


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
        config: The encoder's configuration.

    Raises:
        DataError: The file cannot be read, or has no separator tokens.
    """

    def __init__(self, directory: Path, config: EncoderConfig) -> None:
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        try:
            tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as e:
            raise DataError(f"cannot read the tokenizer {path}: {e}") from e
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = (*config.special_tokens, _COLON)
        ids = [tokenizer.token_to_id(token) for token in special]
        if None in ids:
            raise DataError(f"the tokenizer {path} lacks one of the tokens {', '.join(special)}")
        self._cls, self._sep, self._colon = ids
        self._tokenizer, self._max_tokens = tokenizer, config.max_tokens

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
        max_evidence = self._max_tokens - len(head) - len(claim) - 2
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


class _TensorNames(NamedTuple):
    """Names of a layer's tensors in a checkpoint, and the position of the first token."""

    qkv: tuple[str, str, str]
    out: str
    norm: str
    first_position: int


_TENSOR_NAMES: Final = {
    "bert": _TensorNames(
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output.dense",
        "attention.output.LayerNorm",
        0,
    ),
    "mpnet": _TensorNames(
        ("attention.attn.q", "attention.attn.k", "attention.attn.v"), "attention.attn.o", "attention.LayerNorm", 2
    ),
}
_MAX_DISTANCE: Final = 128
"""Distance of tokens from which the attention bias is the same."""
_MATRICES: Final = ("qkv", "out", "up", "down")


def read_encoder(directory: Path) -> tuple[dict[str, torch.Tensor], EncoderConfig]:
    """An encoder's weights in fp32 under short names, and its configuration.

    Query, key and value of a layer are one matrix, `0.qkv.weight`; the others are `0.out`, `0.up`, `0.down`, and
    `0.norm1` and `0.norm2`; embeddings are `words`, `positions` and `norm`, of BERT also `types`; MPNet's attention
    bias is `distances`.

    Raises:
        DataError: The directory has neither a BERT nor an MPNet encoder.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        names = _TENSOR_NAMES[values["model_type"]]
        config = EncoderConfig(
            family=values["model_type"],
            layers=int(values["num_hidden_layers"]),
            heads=int(values["num_attention_heads"]),
            size=int(values["hidden_size"]),
            eps=float(values["layer_norm_eps"]),
            buckets=int(values.get("relative_attention_num_buckets", 0)),
        )
        raw = {
            n: t.to(torch.float32)
            for n, t in load_file(str(directory / "model.safetensors")).items()
            if t.is_floating_point() and not n.startswith("pooler.")
        }
        weights = {
            "words": raw["embeddings.word_embeddings.weight"],
            "positions": raw["embeddings.position_embeddings.weight"][names.first_position :],
        }
        if config.family == "bert":
            weights["types"] = raw["embeddings.token_type_embeddings.weight"]
        else:
            weights["distances"] = raw["encoder.relative_attention_bias.weight"]
        weights |= _renamed_tensors(raw, "embeddings.LayerNorm", "norm")
        for i in range(config.layers):
            source = f"encoder.layer.{i}"
            for kind in ("weight", "bias"):
                weights[f"{i}.qkv.{kind}"] = torch.cat([raw[f"{source}.{name}.{kind}"] for name in names.qkv])
            weights |= _renamed_tensors(raw, f"{source}.{names.out}", f"{i}.out")
            weights |= _renamed_tensors(raw, f"{source}.{names.norm}", f"{i}.norm1")
            weights |= _renamed_tensors(raw, f"{source}.intermediate.dense", f"{i}.up")
            weights |= _renamed_tensors(raw, f"{source}.output.dense", f"{i}.down")
            weights |= _renamed_tensors(raw, f"{source}.output.LayerNorm", f"{i}.norm2")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise DataError(f"{directory} has no BERT or MPNet encoder: {e}", hint="download the model again") from e
    return weights, config


def init_head(config: EncoderConfig, seed: int) -> dict[str, torch.Tensor]:
    """Marks and head before any training: the marks and the labels' matrices are 0, the hidden layer is random."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    width = 4 * config.size + len(FEATURES)
    return {
        "marks": torch.zeros(len(MARKS), config.size),
        "hidden.weight": torch.randn(HIDDEN, width, generator=generator) * width**-0.5,
        "hidden.bias": torch.zeros(HIDDEN),
        "labels.weight": torch.zeros(len(LABELS), HIDDEN),
        "labels.bias": torch.zeros(len(LABELS)),
        "features.weight": torch.zeros(len(LABELS), len(FEATURES)),
    }


def init_lora(weights: Weights, config: EncoderConfig, rank: int, seed: int) -> dict[str, torch.Tensor]:
    """Low-rank changes of the trained layers' matrices before any training: `a` is random and `b` is 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, torch.Tensor] = {}
    for i in range(config.entry, config.layers):
        for name in _MATRICES:
            rows, columns = weights[f"{i}.{name}.weight"].shape
            changes[f"{i}.{name}.a"] = torch.randn(rank, columns, generator=generator) * columns**-0.5
            changes[f"{i}.{name}.b"] = torch.zeros(rows, rank)
    return changes


def merge_lora(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight by name, low-rank changes added to matrices; one at a time, so that few copies exist at once."""
    for name in list(weights):
        stem, _, kind = name.rpartition(".")
        if kind in ("a", "b"):
            continue
        tensor = weights[name]
        if kind == "weight" and f"{stem}.a" in weights:
            tensor = tensor + weights[f"{stem}.b"] @ weights[f"{stem}.a"]
        yield name, tensor


def compute_logits(weights: Weights, config: EncoderConfig, batch: TokenBatch, *, dropout: float = 0.0) -> torch.Tensor:
    """The network's outputs before the softmax.

    Args:
        weights: Weights of encoder and head. The layers compute in the data type of the first one.
        config: The encoder's configuration.
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
        weight, bias = (weights[f"{name}.{kind}"].to(x.dtype) for kind in ("weight", "bias"))
        return f.layer_norm(x, (config.size,), weight, bias, config.eps)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        y = f.linear(x, weights[f"{name}.weight"].to(x.dtype), weights[f"{name}.bias"].to(x.dtype))
        if f"{name}.a" in weights:
            a, b = weights[f"{name}.a"].to(x.dtype), weights[f"{name}.b"].to(x.dtype)
            y = y + f.linear(f.linear(x, a), b)
        return y

    rows, tokens = batch.ids.shape
    x = f.embedding(to_device(batch.ids), weights["words"]) + weights["positions"][:tokens]
    if "types" in weights:
        x = x + f.embedding(to_device(batch.types), weights["types"])
    x = normalize(x.to(dtype), "norm")
    bias = torch.zeros(rows, 1, 1, tokens, device=device).masked_fill(~to_device(batch.real)[:, None, None, :], -1e4)
    if config.buckets:
        bias = bias + weights["distances"][_distance_buckets(tokens, config.buckets).to(device)].permute(2, 0, 1)
    bias = bias.to(dtype)
    by_head = (rows, tokens, config.heads, config.size // config.heads)
    for i in range(config.layers):
        if i == config.entry:
            x = x + f.embedding(to_device(batch.marks), weights["marks"]).to(x.dtype)
        q, k, v = (part.view(by_head).transpose(1, 2) for part in linear(x, f"{i}.qkv").chunk(3, -1))
        # not fused: the backward pass of torch's fused attention is four times slower for such texts on a CPU
        scores = (q * by_head[-1] ** -0.5) @ k.transpose(-1, -2) + bias
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, tokens, config.size)
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


def _distance_buckets(tokens: int, buckets: int) -> torch.Tensor:
    """int64 `[tokens, tokens]`: the bucket of each pair of positions; half of them are for later keys.

    Half of a side's buckets are for single distances, the others grow with the logarithm up to `_MAX_DISTANCE`.
    """
    import torch

    position = torch.arange(tokens)
    offset = position[None, :] - position[:, None]
    side, distance = buckets // 2, offset.abs()
    exact = side // 2
    growth = (distance.clamp(min=1) / exact).log() / math.log(_MAX_DISTANCE / exact)
    far = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
    return torch.where(distance < exact, distance, far) + (offset > 0) * side


def _mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count = mask.sum(1).clamp(min=1)
    return (x * mask).sum(1) / count


def _renamed_tensors(raw: Mapping[str, torch.Tensor], source: str, target: str) -> dict[str, torch.Tensor]:
    return {f"{target}.{kind}": raw[f"{source}.{kind}"] for kind in ("weight", "bias")}
