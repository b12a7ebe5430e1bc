"""`EntailmentTrainer`: the steps of an entailment training: AdamW over the encoder's upper layers and the head.

Source of the optimizer: Loshchilov and Hutter 2019, arXiv:1711.05101. Embeddings and lower layers are frozen; of the
upper ones the weights themselves are trained, or low-rank changes of their matrices.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from pydantic import JsonValue

from ....core.errors import DataError, UserError
from ....verify.entailment.embedded_network import (
    LABELS,
    EncoderConfig,
    PairTokenizer,
    TokenRow,
    compute_logits,
    make_batch,
)
from ....verify.types import Pair, Support, support
from ..run_directory import Checkpoint, save_checkpoint
from .data import EpochSource, make_batches, sample_epoch

if TYPE_CHECKING:
    from .training import EntailmentPlan

_HEAD: Final = ("marks", "hidden.", "labels.", "features.")
_JUDGED_AT_ONCE: Final = 64
_LABEL_INDEX: Final = {label: i for i, label in enumerate(LABELS)}

CurvePoint = dict[str, JsonValue]
"""A point of the learning curve: step, epoch, seconds, loss and validation scores."""


class EntailmentTrainer:
    """The training of an entailment model, batch by batch; a `Trainer` of the training loop.

    Args:
        source: What epochs are sampled from.
        tokens: Tokenizes pairs.
        weights: Encoder, low-rank changes and head before the training; not changed.
        encoder: The encoder's configuration.
        checkpoint_path: Where the checkpoint is saved.
        validation_scores: Scores the current weights on validation claims, for a point of the learning curve.
        on_point: Called with each new point.
        checkpoint: Where to resume; None starts.
    """

    def __init__(
        self,
        plan: EntailmentPlan,
        source: EpochSource,
        tokens: PairTokenizer,
        weights: Mapping[str, torch.Tensor],
        encoder: EncoderConfig,
        *,
        checkpoint_path: Path,
        validation_scores: Callable[[EntailmentTrainer], CurvePoint],
        on_point: Callable[[CurvePoint], None],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.plan, self._source, self._tokens, self._encoder = plan, source, tokens, encoder
        self._path, self._validation_scores, self._on_point = checkpoint_path, validation_scores, on_point
        learned = {name for name in weights if is_learned(name, encoder, lora=plan.lora_rank > 0)}
        # layers compute in the number format of the first one, which is never trained
        layer_format = torch.bfloat16 if plan.bf16 else torch.float32
        self._fixed = {
            name: tensor.to(layer_format) if name[0].isdigit() else tensor
            for name, tensor in weights.items()
            if name not in learned
        }
        self._learned = {n: t.detach().clone().requires_grad_() for n, t in weights.items() if n in learned}
        self._optimizer = torch.optim.AdamW(self._parameter_groups(), fused=True)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self.epoch, self.batch, self.steps = 0, 0, 0
        self.curve: list[CurvePoint] = []
        self._seconds, self._began = 0.0, time.monotonic()
        self._losses: list[float] = []
        self._rows: list[TokenRow] = []
        self._labels: list[int] = []
        self._batches: list[list[int]] = []
        self._in_step = False
        if checkpoint is not None:
            self._resume(checkpoint)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The current weights."""
        return {**self._fixed, **{name: tensor.detach() for name, tensor in self._learned.items()}}

    @property
    def seconds(self) -> float:
        """Seconds of training, over all its processes."""
        return self._seconds + time.monotonic() - self._began

    @property
    def num_finished(self) -> int:
        return self.steps

    @property
    def is_done(self) -> bool:
        return self.epoch >= self.plan.epochs

    async def restore(self) -> None:
        if not self.is_done:
            self._begin_epoch()

    def is_validation_due(self, every: int) -> bool:
        last = self.curve[-1]["step"] if self.curve else 0
        return self.steps != last and self.steps % every == 0

    async def validate(self) -> None:
        if not self._losses:
            return
        progress = self.epoch + (self.batch / len(self._batches) if self._batches and not self.is_done else 0)
        point: CurvePoint = {
            "step": self.steps,
            "epoch": round(progress, 3),
            "seconds": round(self.seconds, 1),
            "loss": round(sum(self._losses) / len(self._losses), 4),
            **self._validation_scores(self),
        }
        self._losses.clear()
        self.curve.append(point)
        self._on_point(point)

    async def step(self) -> None:
        self._in_step = True
        batch = self._batches[self.batch]
        progress = (self.epoch + self.batch / len(self._batches)) / self.plan.epochs
        self._losses.append(self._update([self._rows[i] for i in batch], [self._labels[i] for i in batch], progress))
        self.batch += 1
        self.steps += 1
        if self.batch == len(self._batches):
            self.epoch, self.batch = self.epoch + 1, 0
            if not self.is_done:
                self._begin_epoch()
        self._in_step = False

    def snapshot(self) -> Callable[[], None]:
        """The live state, too large to copy at each step: after a step that failed there is nothing to save."""

        def save() -> None:
            if not self._in_step:
                save_checkpoint(self._checkpoint(), self._path)

        return save

    async def close(self) -> None:
        pass

    def judge(self, pairs: Sequence[Pair]) -> list[Support]:
        """The verdicts of the current weights."""
        return judge_with(self._tokens, self.weights, self._encoder, pairs)

    def _begin_epoch(self) -> None:
        pairs = sample_epoch(self._source, self.plan.seed, self.epoch)
        self._rows = self._tokens.rows([one.pair for one in pairs])
        self._labels = [_LABEL_INDEX[one.label] for one in pairs]
        order = random.Random(f"{self.plan.seed}/order/{self.epoch}")  # noqa: S311 - no secret
        self._batches = make_batches(self._rows, [one.group for one in pairs], self.plan.batch_size, order)

    def _update(self, rows: Sequence[TokenRow], labels: Sequence[int], progress: float) -> float:
        """One optimizer step; its loss."""
        from torch.nn import functional as f

        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.plan.lr_factor(progress)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.plan.seed * 1_000_003 + self.steps)
            weights = {**self._fixed, **self._learned}
            logits = compute_logits(weights, self._encoder, make_batch(rows), dropout=self.plan.dropout)
        loss = f.cross_entropy(logits, torch.tensor(labels), label_smoothing=self.plan.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(list(self._learned.values()), self.plan.max_grad_norm)
        self._optimizer.step()
        value = float(loss.detach())
        if value != value:
            raise UserError("the training diverged: the loss is NaN", hint="lower --lr")
        return value

    def _parameter_groups(self) -> list[dict[str, object]]:
        groups: dict[tuple[float, float], list[torch.Tensor]] = {}
        for name, tensor in self._learned.items():
            rate = self.plan.head_lr if name.startswith(_HEAD) else self.plan.lr
            decay = self.plan.weight_decay if name.endswith(".weight") and tensor.ndim == 2 else 0.0
            groups.setdefault((rate, decay), []).append(tensor)
        return [{"params": tensors, "lr": r, "weight_decay": d} for (r, d), tensors in groups.items()]

    def _checkpoint(self) -> Checkpoint:
        """Weights ("w:"), and the optimizer's first ("m:") and second ("v:") moments, by name."""
        state = {name: self._optimizer.state[tensor] for name, tensor in self._learned.items()}
        arrays = {f"w:{name}": tensor.detach().numpy() for name, tensor in self._learned.items()}
        arrays |= {f"m:{name}": s["exp_avg"].numpy() for name, s in state.items() if s}
        arrays |= {f"v:{name}": s["exp_avg_sq"].numpy() for name, s in state.items() if s}
        values: dict[str, JsonValue] = {
            "epoch": self.epoch,
            "batch": self.batch,
            "steps": self.steps,
            "seconds": self.seconds,
            "curve": [dict(point) for point in self.curve],
        }
        return Checkpoint(self.plan.digest, values, arrays)

    def _resume(self, checkpoint: Checkpoint) -> None:
        if checkpoint.plan != self.plan.digest:
            raise UserError("the checkpoint is of a training with other data or settings", hint="use another --run-dir")
        values: Mapping[str, Any] = checkpoint.state
        try:
            for name, tensor in self._learned.items():
                with torch.no_grad():
                    tensor.copy_(torch.from_numpy(checkpoint.arrays[f"w:{name}"]))
                if f"m:{name}" in checkpoint.arrays:
                    self._optimizer.state[tensor] = {
                        "step": torch.tensor(float(values["steps"])),
                        "exp_avg": torch.from_numpy(checkpoint.arrays[f"m:{name}"].copy()),
                        "exp_avg_sq": torch.from_numpy(checkpoint.arrays[f"v:{name}"].copy()),
                    }
            self.epoch, self.batch, self.steps = int(values["epoch"]), int(values["batch"]), int(values["steps"])
            self._seconds, self.curve = float(values["seconds"]), [dict(point) for point in values["curve"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as e:
            raise DataError(f"the checkpoint does not fit the network: {e}", hint="train again") from e


def is_learned(name: str, encoder: EncoderConfig, *, lora: bool) -> bool:
    """Whether a weight is trained: head, marks, and of the layers from `encoder.entry` on all, or `a` and `b`."""
    layer, _, _ = name.partition(".")
    if not layer.isdigit():
        return name.startswith(_HEAD)
    return name.endswith((".a", ".b")) if lora else int(layer) >= encoder.entry


def judge_with(
    tokens: PairTokenizer,
    weights: Mapping[str, torch.Tensor],
    encoder: EncoderConfig,
    pairs: Sequence[Pair],
    *,
    temperature: float = 1.0,
) -> list[Support]:
    """The verdicts of a network on pairs."""
    rows = tokens.rows(pairs)
    results: list[Support | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    with torch.inference_mode():
        for start in range(0, len(order), _JUDGED_AT_ONCE):
            part = order[start : start + _JUDGED_AT_ONCE]
            logits = compute_logits(weights, encoder, make_batch([rows[i] for i in part])).double() / temperature
            for i, row in zip(part, logits.softmax(1).tolist(), strict=True):
                results[i] = support(row)
    return [one for one in results if one is not None]
