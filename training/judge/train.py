"""Train an embedded judge: whether a text supports or refutes a claim, or neither. See README.md.

The model is a sentence encoder as a cross-encoder. Embeddings and lower layers are frozen; the upper layers are trained
with AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), completely or as low-rank changes. The file holds the change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import (
    LICENCES,
    ClaimCase,
    EpochSource,
    SamplingMix,
    Splits,
    as_pair,
    file_hash,
    make_batches,
    parse_paths,
    read_cases,
    read_corpus,
    sample_epoch,
    split_cases,
)
from pydantic import JsonValue
from reason.core.files import write_file
from reason.core.settings import load_settings
from reason.core.version import __version__
from reason.serving.encoders.files import find_encoder
from reason.verify.entailment.embedded import (
    CHANGE,
    ENTRY,
    HIDDEN,
    INTEGERS,
    LABELS,
    MODELS,
    NEW,
    SCALE,
    EncoderConfig,
    PairTokenizer,
    WeightDelta,
    apply_delta,
    compute_logits,
    load_delta,
    make_batch,
    merge_lora,
    read_encoder,
)
from reason.verify.entailment.embedded_features import FEATURES, MARKS
from reason.verify.types import Pair
from safetensors.numpy import save
from scipy.optimize import minimize_scalar
from torch.nn import functional as f

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
HEAD = ("marks", "hidden.", "labels.", "features.")
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of one training run; equal ones on the same machine give the same file."""

    model: str = "small"
    lora_rank: int = 0
    epochs: int = 3
    seed: int = 0
    batch_size: int = 32
    lr: float = 2e-4
    head_lr: float = 1e-3
    warmup: float = 0.06
    weight_decay: float = 0.01
    dropout: float = 0.1
    label_smoothing: float = 0.05
    max_grad_norm: float = 1.0
    bits: int = 6
    bf16: bool = False

    def lr_factor(self, progress: float) -> float:
        """Linear warm-up, then linear decay to 0."""
        return progress / self.warmup if progress < self.warmup else max(0.0, (1 - progress) / (1 - self.warmup))


def init_head(config: EncoderConfig, seed: int) -> dict[str, torch.Tensor]:
    """Marks and head before any training: the marks and the labels' matrices are 0, the hidden layer is random."""
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
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, torch.Tensor] = {}
    for i in range(config.entry, config.layers):
        for name in ("qkv", "out", "up", "down"):
            rows, columns = weights[f"{i}.{name}.weight"].shape
            changes[f"{i}.{name}.a"] = torch.randn(rank, columns, generator=generator) * columns**-0.5
            changes[f"{i}.{name}.b"] = torch.zeros(rows, rank)
    return changes


def compute_delta(
    before: Arrays,
    after: Arrays,
    *,
    base: str,
    bits: int = 6,
    temperature: float = 1.0,
    card: Mapping[str, JsonValue] | None = None,
) -> WeightDelta:
    """Quantize the difference of two sets of weights.

    Raises:
        ValueError: A weight is not a number, or a change is too large for fp16.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, got {bits}")
    arrays: dict[str, Array] = {}
    for name, array in after.items():
        # only the first positions may have been trained
        change = array - before[name][: len(array)] if name in before else array
        if not np.isfinite(change.astype(np.float16)).all():
            raise ValueError(f"the weight {name} is not a number, or too large")
        if name not in before:
            arrays[NEW + name] = change.astype(np.float16)
        elif change.ndim == 2 and name[0].isdigit():
            arrays[INTEGERS + name], arrays[SCALE + name] = _quantized(change, bits)
        else:
            arrays[CHANGE + name] = change.astype(np.float16)
    return WeightDelta(base, bits, arrays, temperature, dict(card or {}))


def serialize_delta(delta: WeightDelta) -> bytes:
    """The file's content; the same change gives the same bytes."""
    entry = {**delta.header, "sha256": delta.sha256, "card": delta.card}
    arrays = {name: np.ascontiguousarray(delta.arrays[name]) for name in sorted(delta.arrays)}
    return bytes(save(arrays, {ENTRY: json.dumps(entry)}))


def _quantized(change: Array, bits: int) -> tuple[Array, Array]:
    """The packed integers and the scale of each row."""
    top = 2 ** (bits - 1) - 1
    scales = (np.abs(change).max(1) / top).astype(np.float16)
    wide = scales.astype(np.float32)[:, None]
    integers = np.divide(change, wide, out=np.zeros_like(change), where=wide > 0)
    return _packed(np.clip(np.rint(integers), -top, top).astype(np.int8), bits), scales


def _packed(integers: Array, bits: int) -> Array:
    """Numbers from -2^(bits-1) to 2^(bits-1) - 1, `bits` bits each, end to end."""
    shifted = (integers.reshape(-1).astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    planes = np.unpackbits(shifted[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(planes.reshape(-1))


def is_learned(name: str, encoder: EncoderConfig, *, lora: bool) -> bool:
    """Whether a weight is trained: the head, and of the layers from `encoder.entry` on all, or `a` and `b`."""
    layer = name.partition(".")[0]
    if not layer.isdigit():
        return name.startswith(HEAD)
    return name.endswith((".a", ".b")) if lora else int(layer) >= encoder.entry


def train(source: EpochSource, tokens: PairTokenizer, weights: Weights, encoder: EncoderConfig, h: Hyperparameters,
          validation: Sequence[ClaimCase]) -> tuple[Weights, int]:  # fmt: skip
    """Train on every epoch's pairs; returns the weights and the number of steps."""
    learned = {n: t.detach().clone().requires_grad_() for n, t in weights.items()
               if is_learned(n, encoder, lora=h.lora_rank > 0)}  # fmt: skip
    fixed = in_layer_format({n: t for n, t in weights.items() if n not in learned}, h)
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, tensor in learned.items():
        decay = h.weight_decay if name.endswith(".weight") and tensor.ndim == 2 else 0.0
        groups.setdefault((h.head_lr if name.startswith(HEAD) else h.lr, decay), []).append(tensor)
    optimizer = torch.optim.AdamW(
        [{"params": tensors, "lr": lr, "weight_decay": decay} for (lr, decay), tensors in groups.items()], fused=True
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = 0
    for epoch in range(h.epochs):
        pairs = sample_epoch(source, h.seed, epoch)
        rows = tokens.rows([one.pair for one in pairs])
        order = random.Random(f"{h.seed}/order/{epoch}")
        batches = make_batches(rows, [one.group for one in pairs], h.batch_size, order)
        for number, batch in enumerate(batches):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * h.lr_factor((epoch + number / len(batches)) / h.epochs)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(h.seed * 1_000_003 + steps)
                inputs = make_batch([rows[i] for i in batch])
                logits = compute_logits({**fixed, **learned}, encoder, inputs, dropout=h.dropout)
            labels = torch.tensor([LABELS.index(pairs[i].label) for i in batch])
            loss = f.cross_entropy(logits, labels, label_smoothing=h.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward([loss])
            torch.nn.utils.clip_grad_norm_(list(learned.values()), h.max_grad_norm)
            optimizer.step()
            steps += 1
            if steps % 200 == 0 or number + 1 == len(batches):
                right = accuracy(tokens, {**fixed, **learned}, encoder, validation)
                print(f"epoch {epoch} step {steps}: loss {float(loss.detach()):.3f}, validation accuracy {right:.3f}")
    return {**fixed, **{name: tensor.detach() for name, tensor in learned.items()}}, steps


def in_layer_format(weights: Weights, h: Hyperparameters) -> Weights:
    """The weights with those of the layers in the number format of the matrix products."""
    number_format = torch.bfloat16 if h.bf16 else torch.float32
    return {name: tensor.to(number_format) if name[0].isdigit() else tensor for name, tensor in weights.items()}


def logits_of(tokens: PairTokenizer, weights: Weights, encoder: EncoderConfig, pairs: Sequence[Pair]) -> torch.Tensor:
    """The logits of pairs, `[pairs, 3]`."""
    rows = tokens.rows(pairs)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    result = torch.zeros(len(rows), len(LABELS), dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            result[part] = compute_logits(weights, encoder, make_batch([rows[i] for i in part])).double()
    return result


def labelled(cases: Sequence[ClaimCase]) -> tuple[list[Pair], torch.Tensor]:
    """One pair of each case: its first deciding text, or the first one that decides nothing."""
    shown = [(case, case.texts or case.silent) for case in cases]
    pairs = [as_pair(texts[0], case.claim) for case, texts in shown if texts]
    return pairs, torch.tensor([LABELS.index(case.label) for case, texts in shown if texts])


def accuracy(tokens: PairTokenizer, weights: Weights, encoder: EncoderConfig, cases: Sequence[ClaimCase]) -> float:
    """Share of validation pairs whose most probable label is right."""
    pairs, labels = labelled(cases)
    return float((logits_of(tokens, weights, encoder, pairs).argmax(1) == labels).double().mean())


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The divisor of the logits with the least log-loss. Source: Guo et al. 2017, arXiv:1706.04599, section 4.2."""
    fitted = minimize_scalar(
        lambda log_t: float(f.cross_entropy(logits / 2.718281828459045**log_t, labels)), bounds=(-1.386, 1.386)
    )
    return round(float(2.718281828459045**fitted.x), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    dataset = partial(parser.add_argument, nargs="+", default=[], metavar="NAME=PATH")
    dataset("--data", help="datasets of whose claims a fifth is held out", required=True)
    dataset("--train-only", help="datasets for training alone")
    dataset("--test-only", help="datasets that are never trained on")
    parser.add_argument("--rate", nargs="+", default=[], metavar="NAME=SHARE", help="share of a dataset in an epoch")
    parser.add_argument("--corpus", type=Path, required=True, help="sentences that FEVER's lists name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="trained judge that the training continues")
    for name, value in asdict(Hyperparameters()).items():
        kind: dict[str, Any] = {"action": "store_true"} if value is False else {"type": type(value), "default": value}
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)
    options = vars(parser.parse_args())
    h = Hyperparameters(**{name: options[name] for name in asdict(Hyperparameters())})
    mix = SamplingMix(rates={name: float(share) for name, _, share in (r.partition("=") for r in options["rate"])})
    paths = {kind: parse_paths(options[kind]) for kind in ("data", "train_only", "test_only")}
    corpus = read_corpus(options["corpus"])
    files = {name: path for named in paths.values() for name, path in named.items()}
    read = {name: read_cases(name, path, corpus) for name, path in files.items()}
    splits = split_cases(
        [case for cases in read.values() for case in cases],
        train_only=paths["train_only"],
        test_only=paths["test_only"],
    )
    digests = {name: file_hash(name, path) for name, path in {**files, "corpus": options["corpus"]}.items()}
    data = [
        {"name": n, "sha256": d, "licence": LICENCES.get(n, "that of its source"), "claims": len(read.get(n, corpus))}
        for n, d in digests.items()
    ]
    source = EpochSource.of(splits.train, corpus, mix)
    content = train_judge(splits, source, h, {"data": data, "mix": asdict(mix)}, options["start"])
    write_file(options["out"], content)
    print(f"{options['out']}: {len(content) / 1e6:.2f} MB; score it with benchmarks/verification_table.py")


def train_judge(
    splits: Splits, source: EpochSource, h: Hyperparameters, provenance: dict[str, Any], start: Path | None = None
) -> bytes:
    """The content of the file of a trained judge."""
    files = find_encoder(MODELS[h.model].encoder, sentence=True, cache_dir=load_settings().cache_dir)
    before, encoder = read_encoder(files.directory)
    tokens = PairTokenizer(files.directory, encoder)
    weights = {**before, **init_head(encoder, h.seed)}
    if h.lora_rank:
        weights |= init_lora(before, encoder, h.lora_rank, h.seed)
    arrays = {name: tensor.numpy() for name, tensor in before.items()}
    if start is not None:
        started = load_delta(file=start)
        weights |= {name: torch.from_numpy(array) for name, array in apply_delta(started, arrays).items()}
        provenance = {**provenance, "start": started.digest}
    weights, steps = train(source, tokens, weights, encoder, h, splits.validation)
    pairs, labels = labelled(splits.validation)
    temperature = fit_temperature(logits_of(tokens, weights, encoder, pairs), labels)
    after = {n: t.numpy() for n, t in weights.items() if is_learned(n, encoder, lora=h.lora_rank > 0)}
    plan = {**provenance, **asdict(h), "base": files.fingerprint}
    card = {
        "plan": plan,
        "plan_digest": hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12],
        "version": __version__,
        "steps": steps,
    }
    delta = compute_delta(arrays, after, base=files.fingerprint, bits=h.bits, temperature=temperature, card=card)
    changed = {name: torch.from_numpy(array) for name, array in apply_delta(delta, arrays).items()}
    rounded = in_layer_format(dict(merge_lora(changed)), h)
    print(f"validation accuracy of the rounded weights: {accuracy(tokens, rounded, encoder, splits.validation):.3f}")
    return serialize_delta(delta)


if __name__ == "__main__":
    main()
