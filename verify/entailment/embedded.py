"""Entailment by our own cross-encoders, in this process: a small one and a base-size one.

They are sentence encoders, which `serving` downloads and checks, with trained changes of their weights and a head of
three labels. They read title, text and claim together. `training/judge/train.py` trains another one. Training data and
accuracy: docs/results/verification.md.

Source of the encoders: Devlin et al. 2019, arXiv:1810.04805 (post-norm transformer, with token types for the two
texts), with the weights of MiniLM (Wang et al. 2020, arXiv:2002.10957); Song et al. 2020, "MPNet", arXiv:2004.09297 (no
token types; attention scores have a learned bias by distance, as in Raffel et al. 2020, arXiv:1910.10683, section 2.1).
Ours are the marks, which are added at a third of the depth (`embedded_features`), and the head. Its inputs are the
first token, mean and maximum over the claim's tokens, since one word can refute a claim, the mean over the text, and
the features, which also feed the labels directly.

Matrices can have a trained change of low rank, W + b a (Hu et al. 2021, "LoRA", arXiv:2106.09685). Weights are tensors
by name and not modules, so that training and inference share one function.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pydantic import JsonValue

from ...core.errors import BackendError, DataError, UserError
from ...core.files import Progress
from ...core.settings import EncoderSettings, Settings
from ...serving.model_files.conversion import missing_extra
from ...serving.model_files.downloads import run_pull
from ...serving.model_thread import ModelThread, length_batches
from ..types import Pair, Support, support
from .embedded_features import MAX_CHARS, MarkedSpan, pair_features

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]
    Weights = Mapping[str, torch.Tensor]

SETTINGS: Final = "judge"
"""Name of both judges' settings in [encoders]."""

_PAIRS_PER_TASK = 512
"""Pairs that are tokenized in one task of the model's thread."""

Size = Literal["small", "base"]


class EmbeddedModel(NamedTuple):
    """The encoder that was fine-tuned, and the maximum words of evidence next to a title and a claim."""

    encoder: str
    max_words: int


MODELS: Final[Mapping[Size, EmbeddedModel]] = {
    "small": EmbeddedModel("local/all-minilm-l6-v2", 60),
    "base": EmbeddedModel("local/all-mpnet-base-v2", 140),
}
"""A word has about 1.4 tokens."""


class EmbeddedEntailment:
    """An embedded judge (see `Entailment`).

    Args:
        name: Its name in the configuration.
        tokens: The tokenizer of pairs.
        weights: The network's weights.
        config: The encoder's configuration.
        identity: Encoder and trained weights. It is the same for bf16 and fp32, whose probabilities differ by less than
            a calibration can resolve.
        max_words: Maximum words of evidence.
        temperature: Divisor of the logits.
        batch: Maximum pairs computed together.
    """

    def __init__(
        self,
        name: str,
        tokens: PairTokenizer,
        weights: dict[str, torch.Tensor],
        config: EncoderConfig,
        *,
        identity: str,
        max_words: int,
        temperature: float = 1.0,
        batch: int = 32,
    ) -> None:
        self.name, self.identity = name, identity
        self.max_words: int | None = max_words
        self._tokens, self._weights, self._config = tokens, weights, config
        self._temperature, self._batch = temperature, batch
        self._thread = ModelThread(name)

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """The support of each pair, computed in batches of similar length; never None (see `Entailment.judge`).

        Cancellation takes effect between two batches.

        Raises:
            BackendError: The computation failed.
        """
        rows: list[TokenRow] = []
        for start in range(0, len(pairs), _PAIRS_PER_TASK):
            part = pairs[start : start + _PAIRS_PER_TASK]
            rows.extend(await self._thread.run(partial(self._tokens.rows, part)))
        supports: list[Support | None] = [None] * len(rows)
        for batch in length_batches([len(row.ids) for row in rows], self._batch):
            computed = await self._thread.run(partial(self._compute, [rows[i] for i in batch]))
            for i, one in zip(batch, computed, strict=True):
                supports[i] = one
        return supports

    async def aclose(self) -> None:
        """Wait for the current batch and free the weights; idempotent."""
        await self._thread.aclose()
        self._weights = {}

    def _compute(self, rows: list[TokenRow]) -> list[Support]:
        import torch

        try:
            with torch.inference_mode():
                logits = compute_logits(self._weights, self._config, make_batch(rows)).double() / self._temperature
                probabilities = logits.softmax(1).cpu().tolist()
        except RuntimeError as e:  # includes torch's out-of-memory error
            raise BackendError(
                f"{self.name} failed on {len(rows)} pairs: {e}",
                hint=f'lower batch_texts of "{SETTINGS}" in [encoders]',
            ) from e
        return [support(row) for row in probabilities]


async def load_embedded(
    settings: Settings, progress: Progress | None = None, *, size: Size = "small", file: Path | None = None
) -> EmbeddedEntailment:
    """Load an embedded judge, off the event loop.

    Args:
        settings: The cache directory, and `batch_texts`, `device` and `dtype` of the encoder "judge".
        progress: Called during the download of the encoder, from another thread.
        size: Which one.
        file: Other trained weights for its encoder; None is the packaged ones.

    Raises:
        UserError: The [local] extra is missing, or a setting does not apply.
        DataError: The weights or the encoder are damaged, or do not match.
        BackendUnavailable: The encoder cannot be downloaded, or the requested GPU does not exist.
    """
    return await run_pull(lambda cancel: _load(settings, progress, cancel, size, file), lambda judge: judge.aclose())


def load_delta(size: Size = "small", file: Path | None = None) -> WeightDelta:
    """Read the packaged trained weights, or those of a file.

    Raises:
        DataError: The file is missing or damaged.
    """
    path = Path(__file__).with_name(f"{size}.safetensors") if file is None else file.expanduser()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is too large for entailment weights")
        raw = path.read_bytes()
    except FileNotFoundError as e:
        hint = "install the package again" if file is None else "train them with training/judge/train.py"
        raise DataError(f"entailment weights {path} do not exist", hint=hint) from e
    except OSError as e:
        raise DataError(f"cannot read the entailment weights {path}: {e.strerror}") from e
    return parse_delta(raw, str(path))


def _load(
    settings: Settings, progress: Progress | None, cancel: threading.Event, size: Size, file: Path | None
) -> EmbeddedEntailment:
    chosen = settings.encoders.get(SETTINGS, EncoderSettings())
    if chosen.query_prompt or chosen.document_prompt or chosen.max_tokens is not None:
        raise UserError(
            f'the encoder settings of "{SETTINGS}" have a prompt or max_tokens, which do not apply to it',
            hint="set only batch_texts, device and dtype",
        )
    model = MODELS[size]
    delta = load_delta(size, file)
    try:
        import torch

        from ...serving.devices import choose_device
        from ...serving.encoders.files import find_encoder
        from ...serving.local.hardware import native_format

        files = find_encoder(
            model.encoder, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=cancel
        )
        before, config = read_encoder(files.directory)
        tokens = PairTokenizer(files.directory, config)
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    if delta.base != files.fingerprint:
        raise DataError(
            f"the entailment weights are for the encoder {delta.base[:12]}, but {model.encoder} is "
            f"{files.fingerprint[:12]}",
            hint="train them again with training/judge/train.py",
        )
    changed = apply_delta(delta, {name: tensor.numpy() for name, tensor in before.items()})
    del before  # the encoder is half a gigabyte: no more copies at once than needed
    device = choose_device(chosen.device)
    if chosen.dtype != "auto":
        dtype = getattr(torch, chosen.dtype)
    else:
        on_cpu = device.type == "cpu" and native_format() == "bf16"
        is_native = on_cpu or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
        dtype = torch.bfloat16 if is_native else torch.float32
    tensors = {name: torch.from_numpy(changed.pop(name)) for name in list(changed)}
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in merge_lora(tensors):
        weights[name] = tensor.to(device, dtype if name[0].isdigit() else torch.float32)
        del tensors[name]
    return EmbeddedEntailment(
        size if file is None else f"{size}:{file}",
        tokens,
        weights,
        config,
        identity=f"embedded-2:{files.fingerprint[:16]}+{delta.digest}",
        max_words=model.max_words,
        temperature=delta.temperature,
        batch=chosen.batch_texts,
    )


# -- the network

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


# -- the file of trained weights

FORMAT: Final = 1
"""Of the file of trained weights."""
MAX_BYTES: Final = 64 * 2**20
"""Maximum bytes of a file."""

ENTRY: Final = "reason.entailment"
"""The metadata of the file."""
INTEGERS, SCALE, CHANGE, NEW = "q:", "s:", "d:", "w:"
"""Prefixes of the arrays' names."""
_HINT = "install the package again"


@dataclass(frozen=True)
class WeightDelta:
    """Trained weights as a change of an encoder.

    Attributes:
        base: Fingerprint of the encoder.
        bits: Bits of an integer of a changed matrix.
        arrays: The arrays of the file, by name.
        temperature: Divisor of the logits.
        card: Their training data and accuracy.
    """

    base: str
    bits: int
    arrays: Arrays
    temperature: float = 1.0
    card: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def header(self) -> dict[str, JsonValue]:
        """What the file states beside the arrays, without the card."""
        return {"format": FORMAT, "base": self.base, "bits": self.bits, "temperature": self.temperature}

    @property
    def sha256(self) -> str:
        """Checksum of header and arrays: of everything that affects a verdict."""
        hashed = hashlib.sha256(json.dumps(self.header, sort_keys=True).encode())
        for name in sorted(self.arrays):
            array = self.arrays[name]
            hashed.update(f"{name} {array.dtype} {array.shape}\n".encode())
            hashed.update(array.tobytes())
        return hashed.hexdigest()

    @property
    def digest(self) -> str:
        """The first sixteen hexadecimal digits of the checksum."""
        return self.sha256[:16]


def apply_delta(delta: WeightDelta, before: Arrays) -> dict[str, NDArray[np.float32]]:
    """The encoder's weights with the change, and the head; unchanged ones are shared, not copied.

    Args:
        delta: The change.
        before: The encoder's weights.

    Raises:
        DataError: The change is for an encoder with other shapes.
    """
    import numpy as np

    weights: dict[str, NDArray[np.float32]] = {n: np.asarray(array, dtype=np.float32) for n, array in before.items()}
    for key, array in delta.arrays.items():
        kind, name = key[:2], key[2:]
        if kind == SCALE:
            continue
        if kind == NEW:
            weights[name] = array.astype(np.float32)
            continue
        old = weights.get(name)
        if old is None:
            raise DataError(f"the change of {name} has no weight in the encoder", hint=_HINT)
        change = array.astype(np.float32)
        if kind == INTEGERS:
            scales = delta.arrays[SCALE + name].astype(np.float32)
            if scales.shape != old.shape[:1] or len(array) != _packed_bytes(old.size, delta.bits):
                raise DataError(f"the change of {name} differs in shape from the encoder's weight", hint=_HINT)
            change = _unpacked(array, old.size, delta.bits).reshape(old.shape) * scales[:, None]
        if change.ndim == 2 and change.shape[0] < old.shape[0] and change.shape[1:] == old.shape[1:]:
            weights[name] = old.copy()
            weights[name][: len(change)] += change  # only the first positions
        elif change.shape == old.shape:
            weights[name] = old + change
        else:
            raise DataError(f"the change of {name} differs in shape from the encoder's weight", hint=_HINT)
    return weights


def parse_delta(raw: bytes, file: str) -> WeightDelta:
    """Read a file's content.

    Args:
        raw: The content.
        file: Its name in errors.

    Raises:
        DataError: It is damaged, of another version, or another kind of file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        entry = json.loads(header["__metadata__"][ENTRY])
        delta = WeightDelta(
            base=str(entry["base"]),
            bits=int(entry["bits"]),
            arrays=arrays,
            temperature=float(entry["temperature"]),
            card=dict(entry["card"]),
        )
        version, sha256 = entry["format"], entry["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{file} is damaged, or not a file of entailment weights", hint=_HINT) from e
    if version != FORMAT:
        raise DataError(f"{file} has format {version}, expected {FORMAT}", hint=_HINT)
    if not 2 <= delta.bits <= 8 or not delta.temperature > 0 or delta.sha256 != sha256:
        raise DataError(f"{file} is damaged: its checksum differs", hint=_HINT)
    return delta


def _unpacked(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.float32]:
    import numpy as np

    planes = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.float32)
    integers: NDArray[np.float32] = planes.astype(np.float32) @ weights - np.float32(2 ** (bits - 1))
    return integers


def _packed_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)
