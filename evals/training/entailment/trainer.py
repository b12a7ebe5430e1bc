"""`NavigatorTrainer`: the steps of a training of the embedded judge: AdamW over the encoder's layers and the head.

Source of the optimiser: Loshchilov and Hutter 2019, arXiv:1711.05101. Embeddings and lower layers stay as they are.

`EntailmentPlan`: everything that decides what a training of the embedded judge gives.

Checkpoints of an entailment training: one safetensors file, replaced completely or not at all.

`Rhythm`: what a training of the embedded judge does besides learning.

The card of an entailment training, in Markdown: what it was made of, how it was scored, what it cannot do.

One training of the embedded judge from files to a file: read, split, train, fit the temperature, score, write.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, JsonValue

from ....core.errors import Cancelled, DataError, UserError
from ....core.files import write_file
from ....core.messages import Frozen
from ....core.settings import Settings
from ....core.version import __version__
from ....serving.model_files.conversion import missing_extra
from ....serving.model_files.downloads import Progress
from ....verify.entailment.embedded_features import FEATURES
from ....verify.entailment.embedded_network import LABELS, MOST_TOKENS, PairTokens, Row, Shape, batch_of, logits_of
from ....verify.entailment.embedded_weights import Delta, applied, delta_of, pack
from ....verify.entailment.protocol import Pair
from ....verify.types import Support, support
from ...run_directory import LockedDirectory
from ..run_directory import check_writable
from .data import (
    LICENCES,
    TRAINABLE,
    VALIDATION_SHARE,
    ClaimCase,
    Corpus,
    EpochSource,
    LabelledPair,
    SamplingMix,
    Splits,
    as_pair,
    hash_of,
    make_batches,
    read_cases,
    read_corpus,
    sample_epoch,
    split_cases,
)
from .scoring import (
    EntailmentScore,
    PairJudge,
    best_gate,
    judge_claims,
    oracle_two,
    retrieval,
    score,
    score_all,
    single,
)

if TYPE_CHECKING:
    import torch


class DataFile(Frozen):
    """A file that is used.

    Attributes:
        name: The dataset, or "corpus".
        sha256: Of its bytes.
        licence: What it may be used under.
        claims: Cases read from it; sentences of a corpus.
    """

    name: str
    sha256: str
    licence: str
    claims: int


class EntailmentPlan(Frozen):
    """One training. Equal plans on the same machine give the same weights, however they were interrupted.

    Attributes:
        data: What is trained on, and what is set apart.
        base: Fingerprint of the encoder.
        held: Share of the claims that is kept back.
        epochs: How often each claim is seen.
        seed: Seed of head, drawing, order and dropout.
        batch: Pairs of a step.
        rate: Largest learning rate of the encoder.
        head_rate: Likewise of head and marks.
        warm_up: Share of the training in which the rates rise; they fall to 0 in the rest, linearly.
        decay: Weight decay of matrices.
        dropout: Chance that a number is dropped.
        smoothing: Share of a label's probability that is spread over all.
        clip: Longest gradient.
        bits: Bits of a number of the file.
        mixed: Whether matrices are multiplied in bf16.
        mix: How often each kind of pair is sampled.
    """

    data: tuple[DataFile, ...]
    base: str
    held: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    epochs: Annotated[int, Field(ge=1)] = 3
    seed: Annotated[int, Field(ge=0)] = 0
    batch: Annotated[int, Field(ge=2)] = 32
    rate: Annotated[float, Field(gt=0)] = 2e-4
    head_rate: Annotated[float, Field(gt=0)] = 1e-3
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.06
    decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    clip: Annotated[float, Field(gt=0)] = 1.0
    bits: Annotated[int, Field(ge=2, le=8)] = 6
    mixed: bool = False
    mix: SamplingMix = SamplingMix()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def share_of_rate(self, progress: float) -> float:
        """What the rates are multiplied by when a share `progress` of the training is done."""
        if progress < self.warm_up:
            return progress / self.warm_up
        return max(0.0, (1 - progress) / (1 - self.warm_up))


FORMAT: Final = 1
_ENTRY = "reason.entailment.checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A training between two steps.

    Attributes:
        plan: Digest of the plan.
        epoch: The epoch in flight, from 0.
        batch: Batches of it that are done.
        steps: Steps in all.
        seconds: Seconds spent so far.
        curve: The learning curve so far.
        tensors: Weights ("w:"), and the optimiser's first ("m:") and second ("v:") moments, by name.
    """

    plan: str
    epoch: int
    batch: int
    steps: int
    seconds: float
    curve: tuple[dict[str, JsonValue], ...]
    tensors: Mapping[str, torch.Tensor]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    from safetensors.torch import save

    values = {name: getattr(checkpoint, name) for name in ("plan", "epoch", "batch", "steps", "seconds", "curve")}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    write_file(path, save(tensors, metadata={_ENTRY: json.dumps({"format": FORMAT, **values})}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        DataError: There is none, or it is damaged or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        raw = path.read_bytes()
        tensors = load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        values = json.loads(header["__metadata__"][_ENTRY])
        if values.pop("format") != FORMAT:
            raise DataError(
                f"{path} is a checkpoint of another version of reason", hint="train again in another directory"
            )
        return Checkpoint(**{**values, "curve": tuple(values["curve"])}, tensors=tensors)
    except FileNotFoundError as e:
        raise DataError(f"there is no checkpoint {path}", hint="train without --resume") from e
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise DataError(f"the checkpoint {path} is damaged", hint="train again in another directory") from e


@dataclass(frozen=True)
class Rhythm:
    """When a training notes and saves; it changes no weight.

    Attributes:
        note_every: Steps between two points of the learning curve.
        save_every: Steps between two checkpoints.
        most_seconds: It pauses, resumable, when it has worked so long; None is no limit.
    """

    note_every: int = 100
    save_every: int = 200
    most_seconds: float | None = None


_HEAD: Final = ("marks", "hidden.", "labels.", "features.")
_JUDGED: Final = 64
_LABEL_PLACES: Final = {label: i for i, label in enumerate(LABELS)}

CurvePoint = dict[str, JsonValue]


class EntailmentTrainer:
    """A training in flight.

    Args:
        checkpoint: Where it continues from; None begins.
    """

    def __init__(
        self,
        plan: EntailmentPlan,
        stock: EpochSource,
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
        scores: Callable[[EntailmentTrainer], CurvePoint],
    ) -> bool:
        """Train until the last epoch ends.

        Args:
            cancel: Set by another thread to stop; the training is saved.

        Returns:
            Whether it is done; False where `most_seconds` are over.

        Raises:
            Cancelled: Cancelled.
            StoreError: A checkpoint cannot be written.
        """
        losses: list[float] = []
        since = time.monotonic()
        while self.epoch < self.plan.epochs:
            sampled = sample_epoch(self._stock, self.plan.seed, self.epoch)
            rows = self._tokens.rows([one.pair for one in sampled])
            positions = [_LABEL_PLACES[one.label] for one in sampled]
            order = random.Random(f"{self.plan.seed}/order/{self.epoch}")  # noqa: S311 - no secret
            cut = make_batches(rows, [one.group for one in sampled], self.plan.batch, order)
            while self.batch < len(cut):
                over = rhythm.most_seconds is not None and self._spent(since) > rhythm.most_seconds
                if cancel.is_set() or over:
                    self._save(checkpoint, since)
                    if not over:
                        raise Cancelled(f"the training was cancelled after {self.steps} steps", partial=None)
                    return False
                chosen = cut[self.batch]
                progress = (self.epoch + self.batch / len(cut)) / self.plan.epochs
                losses.append(self._step([rows[i] for i in chosen], [positions[i] for i in chosen], progress))
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
        return judge_with(self._tokens, self.weights, self.shape, pairs, mixed=self.plan.mixed)

    def _step(self, rows: Sequence[Row], positions: Sequence[int], progress: float) -> float:
        import torch
        from torch.nn import functional as f

        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.plan.share_of_rate(progress)
        with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.plan.mixed):
            torch.manual_seed(self.plan.seed * 1_000_003 + self.steps)
            logits = logits_of({**self._fixed, **self._learned}, self.shape, batch_of(rows), dropout=self.plan.dropout)
        loss = f.cross_entropy(logits.float(), torch.tensor(positions), label_smoothing=self.plan.smoothing)
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
            raise DataError(f"the checkpoint does not fit the network: {e}", hint="train again") from e
        self.epoch, self.batch, self.steps = checkpoint.epoch, checkpoint.batch, checkpoint.steps
        self.seconds, self.curve = checkpoint.seconds, list(checkpoint.curve)


def is_learned(name: str, shape: Shape) -> bool:
    """Whether a training changes a weight: those of the head, the marks, and the layers from the entry on."""
    layer, _, _ = name.partition(".")
    return name.startswith(_HEAD) or (layer.isdigit() and int(layer) >= shape.entry)


def judge_with(
    tokens: PairTokens,
    weights: Mapping[str, torch.Tensor],
    shape: Shape,
    pairs: Sequence[Pair],
    *,
    temperature: float = 1.0,
    mixed: bool = False,
) -> list[Support]:
    """What a network states about pairs."""
    import torch

    rows = tokens.rows(pairs)
    results: list[Support | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        for start in range(0, len(order), _JUDGED):
            part = order[start : start + _JUDGED]
            logits = logits_of(weights, shape, batch_of([rows[i] for i in part])).double() / temperature
            for i, row in zip(part, logits.softmax(1).tolist(), strict=True):
                results[i] = support(row)
    return [one for one in results if one is not None]


_POINTS: Final = 16
"""Points of the learning curve that are shown."""

LIMITS: Final = """\
- English alone; sentences of encyclopedias and claims of crowd workers. Other texts are another matter: CLIMATE-FEVER
  shows how much another one.
- At most {tokens} tokens of title, text and claim together; longer texts have to be cut into windows.
- No arithmetic, no chains over several documents, no knowledge that is not in the text. Numbers are compared by rule.
- The held-back claims are of the same datasets as those trained on. Claims of one page are on both sides, and so are
  sentences of evidence; no claim and no contrast group is.
- Claims of FEVER without enough information carry label noise: some are contradicted by a sentence that the annotators
  did not see.
- A text can still mislead it by what it says. That texts which only tell the judge what to say do not is trained and
  tested, not proven.
- All benchmarks are public. The encoder was trained on a billion pairs of sentences by its authors, among them pairs of
  SNLI, MultiNLI and Wikipedia; which of them these claims resemble is not known."""


def model_card(
    plan: EntailmentPlan,
    sides: Splits,
    scores: Sequence[EntailmentScore],
    unrounded: Sequence[EntailmentScore],
    curve: Sequence[Mapping[str, JsonValue]],
    delta: Delta,
    size: int,
    seconds: float,
) -> str:
    """The card; the same for the same run.

    Args:
        size: Bytes of the file.
        seconds: Seconds that the steps took.
    """
    before = {one.name: one for one in unrounded}
    weights = f"{size / 1e6:.2f} MB, {plan.bits} bits a weight and a scale a row"
    files = [(use.name, f"{use.claims:,}", use.licence, f"`{use.sha256[:16]}…`") for use in plan.data]
    parts = [
        "# The embedded judge of entailment",
        "This card was written by `reason train entailment` from its run; `benchmarks/entailment_table.py` scores the "
        "file again.",
        "## What it is",
        f"all-MiniLM-L6-v2 (fingerprint `{plan.base[:16]}`) as a cross-encoder, with a trained change of its layers "
        f"(digest `{delta.digest}`, {weights}), a mark for each word that says whether the other text has it, and a "
        f"head over {len(FEATURES)} features and the pooled tokens. Logits are divided by {delta.temperature:g}, "
        "fitted to the watched claims.",
        "## Data",
        table(("file", "claims", "licence", "SHA-256"), files),
        f"Split by SHA-256 of the claim's text: {plan.held:.0%} of the claims are kept back, {VALIDATION_SHARE:.0%} are watched "
        "(learning curve, temperature and gate are by these), the rest is trained on. Claims with the same text, and "
        "all claims of a contrast group, are on one side. Claims of FEVER Symmetric are left out of the training: many "
        "of its pairs are FEVER's own.",
        table(("side", "supports", "refutes", "neutral"), _counts(sides)),
        "Each epoch draws a text for each claim again, and makes contrasts by rule (`evals/training/entailment/data.py`, "
        "`drawing.py`): exchanged numbers, dates, names and things in claim, text or both; negations; silent sentences "
        "that were retrieved; sentences that tell the judge what to say.",
        "## Settings",
        table(("setting", "value"), _settings(plan, seconds)),
        "## Scores on what was kept back",
        "Two labels: which of supports and refutes is more likely. Several texts: the verdict of the one that is surest "
        "of something. Intervals of 95 %: Wilson, or Student's t over groups of claims that belong together. *before*: "
        "the accuracy before the change was rounded.",
        score_table(scores, before),
        "FEVER Symmetric and CLIMATE-FEVER were never trained on. *The claim alone*: with an empty text; what is right "
        "there is right by the claims' wording. *gated*: a decisive verdict needs a confidence that "
        "was chosen by the watched claims.",
        "## Learning curve",
        "By the watched claims: accuracy (two labels) on FEVER's deciding texts, macro F1 on five retrieved ones, "
        "accuracy on VitaminC. The loss is of the training pairs, contrasts included.",
        curve_table(curve),
        "## Limits",
        LIMITS.format(tokens=MOST_TOKENS),
        f"Made by reason {__version__}, plan `{plan.digest}`.",
    ]
    return "\n\n".join(parts) + "\n"


def score_table(scores: Sequence[EntailmentScore], before: Mapping[str, EntailmentScore] | None = None) -> str:
    """Scores as a Markdown table."""
    head = ["set", "labels", "claims", "accuracy [95 %]", "macro F1", "ECE", "always the most common"]
    rows = []
    for one in scores:
        name = one.name + (f" at {one.gate:g}" if one.gate else "")
        between = f"{one.accuracy:.3f} [{one.low:.3f}, {one.high:.3f}]"
        row = [
            name,
            str(one.labels),
            f"{one.claims:,}",
            between,
            f"{one.macro_f1:.3f}",
            f"{one.ece:.3f}",
            f"{one.always:.3f}",
        ]
        if before is not None:
            row.append(f"{before[one.name].accuracy:.3f}" if one.name in before else "")
        rows.append(row)
    return table([*head, "before"] if before is not None else head, rows)


def curve_table(curve: Sequence[Mapping[str, JsonValue]]) -> str:
    """The learning curve as a Markdown table of some of its points, the last one among them."""
    if not curve:
        return "The training was too short for a point."
    step = max(1, -(-len(curve) // _POINTS))
    shown = list(curve[::-1][::step][::-1])
    names = list(dict.fromkeys(name for point in curve for name in point))
    return table(names, [[str(point.get(name, "")) for name in names] for point in shown])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _counts(sides: Splits) -> list[list[str]]:
    rows = []
    for name, cases in (
        ("trained on", sides.training),
        ("watched", sides.watched),
        ("kept back", sides.held),
        ("left out for FEVER Symmetric", sides.apart),
    ):
        counts = Counter(case.label for case in cases)
        rows.append([name, *(f"{counts[label]:,}" for label in ("supports", "refutes", "neutral"))])
    return rows


def _settings(plan: EntailmentPlan, seconds: float) -> list[tuple[str, str]]:
    left_out = {"data", "base", "mix"}
    results = [(name, f"`{value}`") for name, value in plan.model_dump(mode="json").items() if name not in left_out]
    results += [(f"mix: {name}", f"`{value}`") for name, value in plan.mix.model_dump(mode="json").items()]
    return [*results, ("seconds of training", f"{seconds:,.0f}")]


CHECKPOINT: Final = "checkpoint.safetensors"
CURVE: Final = "curve.json"
PLAN: Final = "plan.json"
_TEMPERATURES: Final = (0.25, 4.0)
_WATCHED_QUESTIONS: Final = 40
"""Claims of FEVER by retrieval that a point of the learning curve is made of; each has five pairs."""


class WorkFolder(LockedDirectory):
    """The directory of one training, held by this process."""

    option = "--work"


@dataclass(frozen=True)
class TrainingData:
    """What was read.

    Attributes:
        sides: The cases by what is done with them.
        corpus: Sentences by id.
        stress: Cases of FEVER Symmetric and CLIMATE-FEVER.
        uses: The files.
    """

    sides: Splits
    corpus: Corpus
    stress: tuple[ClaimCase, ...]
    uses: tuple[DataFile, ...]


@dataclass(frozen=True)
class TrainedEntailment:
    """What a training gave.

    Attributes:
        delta: What is in the file.
        scores: On the held-back claims, by the weights as they are in the file.
        unrounded: Some of them by the weights before they were put in few bits.
        curve: The learning curve.
        card: Its card, Markdown.
        size: Bytes of the file.
        seconds: Seconds that the steps took.
    """

    delta: Delta
    scores: tuple[EntailmentScore, ...]
    unrounded: tuple[EntailmentScore, ...]
    curve: tuple[CurvePoint, ...]
    card: str
    size: int
    seconds: float


def load_training_data(
    data: Mapping[str, Path], corpus: Path, *, stress: Mapping[str, Path], held: float
) -> TrainingData:
    """Read and split everything.

    Args:
        stress: Tests that are never trained on, by name: "fever_symmetric", "climate_fever".
        held: Share of the claims to keep back.

    Raises:
        UserError: Something may not be trained on, or too little is left.
        DataError: A file is not what it should be.
    """
    wrong = next((name for name in data if name not in TRAINABLE), None)
    if wrong is not None:
        raise UserError(
            f"{wrong!r} is not trained on", hint=f"--data takes {', '.join(TRAINABLE)}; --stress tests others"
        )
    if not data:
        raise UserError("no dataset to train on is named", hint="for example --data fever=PATH")
    sentences = read_corpus(corpus)
    read = {name: read_cases(name, path, sentences) for name, path in data.items()}
    tested = {name: read_cases(name, path) for name, path in stress.items()}
    apart = [case.claim for case in tested.get("fever_symmetric", [])]
    sides = split_cases([case for cases in read.values() for case in cases], held=held, apart=apart)
    if not sides.training or not sides.watched or not sides.held:
        raise UserError("too few claims to train on some and keep others back", hint="give more data")
    counts = {name: len(cases) for name, cases in (read | tested).items()} | {"corpus": len(sentences)}
    paths = {**data, **stress, "corpus": corpus}
    uses = [
        DataFile(name=name, sha256=hash_of(name, path), licence=LICENCES[name], claims=counts[name])
        for name, path in paths.items()
    ]
    return TrainingData(sides, sentences, tuple(c for cases in tested.values() for c in cases), tuple(uses))


def train_entailment(
    gathered: TrainingData,
    settings: Settings,
    out: Path,
    work: Path,
    *,
    rhythm: Rhythm,
    choices: Mapping[str, Any],
    resume: bool = False,
    card: Path | None = None,
    cancel: threading.Event | None = None,
    watch: Callable[[CurvePoint], None] = lambda point: None,
    progress: Progress | None = None,
) -> TrainedEntailment | None:
    """Train the judge. Blocks.

    Args:
        cancel: Set by another thread to stop; the training can continue then.

    Returns:
        None where the time is over: it can continue.

    Raises:
        UserError: The directory holds another training, or one that is not to be resumed.
        DataError: The encoder or the checkpoint is damaged.
        BackendUnavailable: The encoder cannot be had.
        Cancelled: Cancelled.
        StoreError: Something cannot be written.
    """
    try:
        from ....serving.encoders.files import find_encoder
        from ....verify.entailment.embedded import BASE
        from ....verify.entailment.embedded_network import PairTokens, new_head, read_encoder

    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    check_writable(out)
    stop = cancel or threading.Event()
    files = find_encoder(BASE, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=stop)
    plan = EntailmentPlan.model_validate({**choices, "data": gathered.uses, "base": files.fingerprint})
    with WorkFolder(work) as directory:
        path = directory.path / CHECKPOINT
        if not resume and path.exists():
            raise UserError(f"{work} holds a training already", hint="--resume resumes it; or choose another --work")
        write_file(directory.path / PLAN, plan.model_dump_json(indent=2).encode())
        tokens = PairTokens(files.folder)
        encoder, shape = read_encoder(files.folder)
        stock = EpochSource.of(gathered.sides.training, gathered.corpus, plan.mix)
        start = load_checkpoint(path) if resume else None
        trainer = EntailmentTrainer(plan, stock, tokens, {**encoder, **new_head(shape, plan.seed)}, shape, start)

        def noted(point: CurvePoint) -> None:
            write_file(directory.path / CURVE, json.dumps(trainer.curve, indent=1).encode())
            watch(point)

        watched = gathered.sides.watched
        if not trainer.run(
            rhythm, checkpoint=path, cancel=stop, watch=noted, scores=lambda t: validation_scores(t.judge, watched)
        ):
            return None
        full = trainer.weights
        temperature = fit_logit_temperature(lambda pairs: judge_with(tokens, full, shape, pairs), watched)
        before = {name: tensor.numpy() for name, tensor in encoder.items()}
        after = {name: tensor.numpy() for name, tensor in full.items() if is_learned(name, shape)}
        values: dict[str, JsonValue] = {
            "plan": json.loads(plan.model_dump_json()),
            "plan_digest": plan.digest,
            "version": __version__,
            "steps": trainer.steps,
        }
        delta = delta_of(before, after, base=files.fingerprint, bits=plan.bits, temperature=temperature, card=values)

        def by(weights: Mapping[str, torch.Tensor]) -> PairJudge:
            return lambda pairs: judge_with(tokens, weights, shape, pairs, temperature=temperature)

        stored = by(_tensors(applied(delta, before)))
        near = retrieval(watched)
        gate = best_gate(near, judge_claims(stored, near)[0]) if near else 0.0
        scores = score_all(stored, gathered.sides, gate=gate, stress=gathered.stress)
        unrounded = score_all(by(full), gathered.sides, stress=gathered.stress, quick=True)
        raw = pack(delta)
        text = model_card(plan, gathered.sides, scores, unrounded, trainer.curve, delta, len(raw), trainer.seconds)
        write_file(out, raw)
        if card is not None:
            write_file(card, text.encode())
        return TrainedEntailment(
            delta, tuple(scores), tuple(unrounded), tuple(trainer.curve), text, len(raw), trainer.seconds
        )


def validation_scores(judge: PairJudge, watched: Sequence[ClaimCase]) -> CurvePoint:
    """The watched claims' scores for a point of the learning curve."""
    result: CurvePoint = {}
    for name, questions, labels in (
        ("fever_two", oracle_two(watched), 2),
        ("fever_retrieved_f1", retrieval(watched)[:_WATCHED_QUESTIONS], 3),
        ("vitaminc", single(watched, "vitaminc"), 3),
    ):
        if questions:
            one = score(name, judge, questions, labels=labels)
            result[name] = round(one.macro_f1 if name.endswith("f1") else one.accuracy, 4)
    return result


def fit_logit_temperature(judge: PairJudge, watched: Sequence[ClaimCase]) -> float:
    """What logits are divided by, so that the watched pairs are most likely: golden section on the log of it.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    pairs = labelled_pairs(watched)
    values = [s for s in judge([one.pair for one in pairs]) if s is not None]
    if len(values) != len(pairs) or not pairs:
        raise DataError("the watched claims cannot be judged")

    def loss(log_t: float) -> float:
        return math.fsum(_nll(s, one.label, math.exp(log_t)) for s, one in zip(values, pairs, strict=True))

    low, high = (math.log(t) for t in _TEMPERATURES)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return round(math.exp((low + high) / 2), 4)


def labelled_pairs(cases: Sequence[ClaimCase]) -> list[LabelledPair]:
    """One pair of each case: the first deciding text; of a neutral claim of FEVER the first that was retrieved."""
    results = []
    for case in cases:
        texts = case.texts or case.silent
        if texts:
            results.append(LabelledPair(as_pair(texts[0], case.claim), case.label, case.source, case.name))
    return results


def _nll(values: Support, label: str, temperature: float) -> float:
    logs = {name: math.log(max(p, 1e-12)) / temperature for name, p in values._asdict().items()}
    top = max(logs.values())
    return top + math.log(math.fsum(math.exp(x - top) for x in logs.values())) - logs[label]


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
