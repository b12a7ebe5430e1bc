"""`Trainer`: the steps of a training of the embedded judge: AdamW over the encoder's layers and the head.

Source of the optimiser: Loshchilov and Hutter 2019, arXiv:1711.05101. Embeddings and lower layers stay as they are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from ...core.errors import Cancelled, DataError, UserError
from ...verify.entailment.embedded_network import LABELS, Shape, logits_of
from ...verify.entailment.embedded_tokens import PairTokens, Row, batch_of
from ...verify.entailment.protocol import Pair
from ...verify.support import Support, support
from .batching import batches
from .checkpoints import Checkpoint, save_checkpoint
from .drawing import Stock, draw_epoch
from .plan import EntailmentPlan
from .rhythm import Rhythm

if TYPE_CHECKING:
    import threading

    import torch

_HEAD: Final = ("marks", "hidden.", "labels.", "features.")
_JUDGED: Final = 64
_LABEL_PLACES: Final = {label: i for i, label in enumerate(LABELS)}

CurvePoint = dict[str, JsonValue]


class Trainer:
    """A training under way.

    Args:
        plan: What was decided.
        stock: What epochs are drawn from.
        tokens: Reads pairs.
        weights: Encoder and head before the training; not changed.
        shape: The encoder's.
        checkpoint: Where it goes on from; None begins.
    """

    def __init__(
        self,
        plan: EntailmentPlan,
        stock: Stock,
        tokens: PairTokens,
        weights: Mapping[str, torch.Tensor],
        shape: Shape,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        import torch

        self.plan, self._stock, self._tokens, self.shape = plan, stock, tokens, shape
        learned = {name for name in weights if is_learned(name, shape)}
        self._fixed = {name: tensor for name, tensor in weights.items() if name not in learned}
        self._learned = {n: t.detach().clone().requires_grad_() for n, t in weights.items() if n in learned}
        self._optimiser = torch.optim.AdamW(self._parameter_groups(), fused=True)
        self._rates = [group["lr"] for group in self._optimiser.param_groups]
        self.epoch, self.batch, self.steps, self.seconds = 0, 0, 0, 0.0
        self.curve: list[CurvePoint] = []
        if checkpoint is not None:
            self._go_on(checkpoint)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The weights as they are now."""
        return {**self._fixed, **{name: tensor.detach() for name, tensor in self._learned.items()}}

    def run(
        self,
        rhythm: Rhythm,
        *,
        checkpoint: Path,
        cancel: threading.Event,
        watch: Callable[[CurvePoint], None],
        scores: Callable[[Trainer], CurvePoint],
    ) -> bool:
        """Train until the last epoch ends.

        Args:
            rhythm: When to note and save.
            checkpoint: Where to save.
            cancel: Set by another thread to stop; the training is saved.
            watch: Told of each point of the curve.
            scores: Scores of the watched claims for a point of the curve.

        Returns:
            Whether it is done; False where `most_seconds` are over.

        Raises:
            Cancelled: Cancelled.
            StoreError: A checkpoint cannot be written.
        """
        losses: list[float] = []
        since = time.monotonic()
        while self.epoch < self.plan.epochs:
            drawn = draw_epoch(self._stock, self.plan.seed, self.epoch)
            rows = self._tokens.rows([one.pair for one in drawn])
            places = [_LABEL_PLACES[one.label] for one in drawn]
            order = random.Random(f"{self.plan.seed}/order/{self.epoch}")  # noqa: S311 - no secret
            cut = batches(rows, [one.group for one in drawn], self.plan.batch, order)
            while self.batch < len(cut):
                over = rhythm.most_seconds is not None and self._spent(since) > rhythm.most_seconds
                if cancel.is_set() or over:
                    self._save(checkpoint, since)
                    if not over:
                        raise Cancelled(f"the training was cancelled after {self.steps} steps", partial=None)
                    return False
                chosen = cut[self.batch]
                progress = (self.epoch + self.batch / len(cut)) / self.plan.epochs
                losses.append(self._step([rows[i] for i in chosen], [places[i] for i in chosen], progress))
                self.batch += 1
                self.steps += 1
                if self.steps % rhythm.note_every == 0:
                    point: CurvePoint = {
                        "step": self.steps,
                        "epoch": round(self.epoch + self.batch / len(cut), 3),
                        "seconds": round(self._spent(since), 1),
                        "loss": round(sum(losses) / len(losses), 4),
                        **scores(self),
                    }
                    losses.clear()
                    self.curve.append(point)
                    watch(point)
                if self.steps % rhythm.save_every == 0:
                    self._save(checkpoint, since)
            self.epoch, self.batch = self.epoch + 1, 0
        self._save(checkpoint, since)
        self.seconds = self._spent(since)
        return True

    def judge(self, pairs: Sequence[Pair]) -> list[Support]:
        """What the weights say of pairs as they are now."""
        return judged_by(self._tokens, self.weights, self.shape, pairs, mixed=self.plan.mixed)

    def _step(self, rows: Sequence[Row], places: Sequence[int], progress: float) -> float:
        import torch
        from torch.nn import functional as f

        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.plan.share_of_rate(progress)
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.plan.mixed):
            torch.manual_seed(self.plan.seed * 1_000_003 + self.steps)
            logits = logits_of({**self._fixed, **self._learned}, self.shape, batch_of(rows), dropout=self.plan.dropout)
        loss = f.cross_entropy(logits.float(), torch.tensor(places), label_smoothing=self.plan.smoothing)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(list(self._learned.values()), self.plan.clip)
        self._optimiser.step()
        value = float(loss.detach())
        if value != value:
            raise UserError("the training diverged: the loss is no number", hint="lower --rate")
        return value

    def _parameter_groups(self) -> list[dict[str, object]]:
        groups: dict[tuple[float, float], list[torch.Tensor]] = {}
        for name, tensor in self._learned.items():
            rate = self.plan.head_rate if name.startswith(_HEAD) else self.plan.rate
            decay = self.plan.decay if name.endswith(".weight") and tensor.ndim == 2 else 0.0
            groups.setdefault((rate, decay), []).append(tensor)
        return [{"params": tensors, "lr": r, "weight_decay": d} for (r, d), tensors in groups.items()]

    def _spent(self, since: float) -> float:
        return self.seconds + time.monotonic() - since

    def _save(self, path: Path, since: float) -> None:
        state = {name: self._optimiser.state[tensor] for name, tensor in self._learned.items()}
        tensors = {f"w:{name}": tensor.detach() for name, tensor in self._learned.items()}
        tensors |= {f"m:{name}": s["exp_avg"] for name, s in state.items() if s}
        tensors |= {f"v:{name}": s["exp_avg_sq"] for name, s in state.items() if s}
        point = (self.plan.digest, self.epoch, self.batch, self.steps, self._spent(since), tuple(self.curve))
        save_checkpoint(Checkpoint(*point, tensors), path)

    def _go_on(self, checkpoint: Checkpoint) -> None:
        import torch

        if checkpoint.plan != self.plan.digest:
            raise UserError("the checkpoint is of a training with other data or settings", hint="choose another --work")
        try:
            for name, tensor in self._learned.items():
                with torch.no_grad():
                    tensor.copy_(checkpoint.tensors[f"w:{name}"])
                if f"m:{name}" in checkpoint.tensors:
                    self._optimiser.state[tensor] = {
                        "step": torch.tensor(float(checkpoint.steps)),
                        "exp_avg": checkpoint.tensors[f"m:{name}"].clone(),
                        "exp_avg_sq": checkpoint.tensors[f"v:{name}"].clone(),
                    }
        except (KeyError, RuntimeError) as e:
            raise DataError(f"the checkpoint does not fit the network: {e}", hint="train anew") from e
        self.epoch, self.batch, self.steps = checkpoint.epoch, checkpoint.batch, checkpoint.steps
        self.seconds, self.curve = checkpoint.seconds, list(checkpoint.curve)


def is_learned(name: str, shape: Shape) -> bool:
    """Whether a training changes a weight: those of the head, the marks, and the layers from the entry on."""
    layer, _, _ = name.partition(".")
    return name.startswith(_HEAD) or (layer.isdigit() and int(layer) >= shape.entry)


def judged_by(
    tokens: PairTokens,
    weights: Mapping[str, torch.Tensor],
    shape: Shape,
    pairs: Sequence[Pair],
    *,
    temperature: float = 1.0,
    mixed: bool = False,
) -> list[Support]:
    """What a network says of pairs."""
    import torch

    rows = tokens.rows(pairs)
    found: list[Support | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        for start in range(0, len(order), _JUDGED):
            part = order[start : start + _JUDGED]
            logits = logits_of(weights, shape, batch_of([rows[i] for i in part])).double() / temperature
            for i, row in zip(part, logits.softmax(1).tolist(), strict=True):
                found[i] = support(row)
    return [one for one in found if one is not None]
