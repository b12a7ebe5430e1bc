"""One training run of the embedded entailment model: load, split, train, fit the temperature, score, save.

The model is a sentence encoder as a cross-encoder; its file holds the change of the layers, in few bits or of low rank.
The run directory holds `training.json`, `checkpoint.safetensors` and the learning curve, `curve.json`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, JsonValue

from ....core.errors import DataError, UserError
from ....core.files import Progress, write_file
from ....core.messages import Frozen
from ....core.settings import Settings
from ....core.version import __version__
from ....serving.model_files.conversion import missing_extra
from ....verify.entailment.embedded import MODELS, Size
from ....verify.entailment.embedded_features import FEATURES
from ....verify.entailment.embedded_weights import WeightDelta, apply_delta, compute_delta, serialize_delta
from ....verify.types import Pair, Support
from ...plan import flatten
from ..loop import TrainerConfig, run_training
from ..run_directory import CHECKPOINT, TrainingDirectory, TrainingManifest, check_writable, load_checkpoint
from .data import (
    LICENCES,
    VALIDATION_SHARE,
    ClaimCase,
    Corpus,
    EpochSource,
    SamplingMix,
    Splits,
    as_pair,
    hash_of,
    read_cases,
    read_corpus,
    split_cases,
)
from .pairs import LabelledPair
from .scoring import (
    EntailmentScore,
    PairJudge,
    oracle_two,
    retrieval,
    score,
    score_all,
    single,
)

if TYPE_CHECKING:
    import torch

    from .trainer import CurvePoint

CURVE: Final = "curve.json"
_TEMPERATURES: Final = (0.25, 4.0)
_VALIDATION_CLAIMS: Final = 200
"""Claims of a dataset for a point of the learning curve; a fifth of them by retrieval, where each has five pairs."""


class DataFile(Frozen):
    """A data file.

    Attributes:
        name: The dataset, or "corpus".
        sha256: SHA-256 of its bytes.
        licence: Its licence.
        claims: Number of cases read from it; of a corpus, sentences.
        use: "split", or the only split that its claims may be in.
    """

    name: str
    sha256: str
    licence: str
    claims: int
    use: Literal["split", "train", "test"] = "split"


class EntailmentPlan(Frozen):
    """One training run. Equal plans on the same machine give the same weights, however they were interrupted.

    Attributes:
        data: Training and test files.
        model: "small" or "base", the encoder that is trained.
        start: Digest of the trained weights that the training continues; empty for none.
        base: Fingerprint of the encoder.
        lora_rank: Rank of the change of a matrix; 0 trains the matrices themselves.
        holdout: Share of the claims that is held out for the test.
        epochs: Number of epochs.
        seed: Seed of the head's weights, the sampling of pairs, their order and dropout.
        batch_size: Pairs of a step.
        lr: Maximum learning rate of the encoder.
        head_lr: Maximum learning rate of head and marks.
        warmup: Share of the training in which the rates rise; they fall to 0 in the rest, linearly.
        weight_decay: Weight decay of matrices.
        dropout: Dropout probability.
        label_smoothing: Share of a label's probability that is spread over all labels.
        max_grad_norm: Maximum norm of the gradient.
        bits: Bits per weight of the file.
        bf16: Whether matrix products are in bf16.
        mix: Shares of the kinds of pairs.
    """

    data: tuple[DataFile, ...]
    model: Size = "small"
    base: str
    start: str = ""
    lora_rank: Annotated[int, Field(ge=0)] = 0
    holdout: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    epochs: Annotated[int, Field(ge=1)] = 3
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Annotated[float, Field(gt=0)] = 2e-4
    head_lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.06
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    bits: Annotated[int, Field(ge=2, le=8)] = 6
    bf16: bool = False
    mix: SamplingMix = SamplingMix()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def differences(self, other: EntailmentPlan) -> str:
        """The settings in which two plans differ, in one line; empty if in none."""
        left, right = flatten(self.model_dump(mode="json")), flatten(other.model_dump(mode="json"))
        names = [n for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)]
        return ", ".join(f"{n} {json.dumps(left.get(n))} → {json.dumps(right.get(n))}" for n in names)

    def lr_factor(self, progress: float) -> float:
        """The factor of the learning rates when a share `progress` of the training is done."""
        if progress < self.warmup:
            return progress / self.warmup
        return max(0.0, (1 - progress) / (1 - self.warmup))


class EntailmentManifest(TrainingManifest):
    """What `training.json` holds."""

    plan: EntailmentPlan


@dataclass(frozen=True)
class TrainingData:
    """The data of a training run.

    Attributes:
        splits: The cases by split.
        corpus: Sentences by id.
        files: The files.
    """

    splits: Splits
    corpus: Corpus
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class TrainedEntailment:
    """The result of a training run.

    Attributes:
        delta: The content of the file.
        scores: On the test claims, by the weights of the file.
        curve: The learning curve.
        card: The model card, Markdown.
        size: Bytes of the file.
        seconds: Seconds of training.
    """

    delta: WeightDelta
    scores: tuple[EntailmentScore, ...]
    curve: tuple[CurvePoint, ...]
    card: str
    size: int
    seconds: float


def load_training_data(
    data: Mapping[str, Path],
    corpus: Path,
    *,
    train_only: Mapping[str, Path],
    test_only: Mapping[str, Path],
    holdout: float,
) -> TrainingData:
    """Read and split all data.

    Args:
        data: Datasets by name, a share of each of which is held out.
        train_only: Datasets that are for training alone.
        test_only: Datasets that are never trained on.
        holdout: Share of the claims of `data` for the test, in (0, 1).

    Raises:
        UserError: A dataset is named twice, or a split is empty.
        DataError: A file is invalid.
    """
    paths = {**data, **train_only, **test_only}
    if len(paths) < len(data) + len(train_only) + len(test_only):
        raise UserError("a dataset is named twice", hint="--data, --train-only and --test-only exclude each other")
    if not data:
        raise UserError("no dataset to train on is named", hint="for example --data fever=PATH")
    sentences = read_corpus(corpus)
    read = {name: read_cases(name, path, sentences) for name, path in paths.items()}
    cases = [case for one in read.values() for case in one]
    splits = split_cases(cases, holdout=holdout, train_only=train_only, test_only=test_only)
    if not splits.train or not splits.validation or not splits.test:
        raise UserError("too few claims to train on some and hold out others", hint="use more data")
    counts = {name: len(one) for name, one in read.items()} | {"corpus": len(sentences)}
    files = [
        DataFile(
            name=name,
            sha256=hash_of(name, path),
            licence=LICENCES.get(name, "that of its source"),
            claims=counts[name],
            use="train" if name in train_only else "test" if name in test_only else "split",
        )
        for name, path in {**paths, "corpus": corpus}.items()
    ]
    return TrainingData(splits, sentences, tuple(files))


def train_entailment(
    data: TrainingData,
    settings: Settings,
    out: Path,
    run_dir: Path,
    *,
    config: TrainerConfig | None = None,
    hyperparameters: Mapping[str, Any],
    resume: bool = False,
    start: WeightDelta | None = None,
    card: Path | None = None,
    cancel: threading.Event | None = None,
    on_point: Callable[[CurvePoint], None] = lambda point: None,
    progress: Progress | None = None,
) -> TrainedEntailment | None:
    """Train the embedded entailment model. Blocks.

    Args:
        hyperparameters: Fields of the plan that differ from the defaults.
        start: Trained weights that the training continues, for the same encoder and rank; None starts from the encoder.
        card: Where to write the card as well.
        cancel: Set by another thread to stop; the run can be resumed.
        on_point: Called with each point of the learning curve.

    Returns:
        None if the time is up: the run can be resumed.

    Raises:
        UserError: The directory holds another training, or one that is not to be resumed; or `start` does not fit.
        DataError: The encoder or the checkpoint is damaged.
        BackendUnavailable: The encoder is not available.
        Cancelled: `cancel` was set.
        StoreError: Something cannot be written.
    """
    try:
        import torch

        from ....serving.encoders.files import find_encoder
        from ....verify.entailment.embedded_network import (
            PairTokenizer,
            init_head,
            init_lora,
            merge_lora,
            read_encoder,
        )
        from .trainer import EntailmentTrainer, is_learned, judge_with
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    check_writable(out)
    stop, config, splits = cancel or threading.Event(), config or TrainerConfig(), data.splits
    model: Size = hyperparameters.get("model", "small")
    files = find_encoder(
        MODELS[model].encoder, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=stop
    )
    plan = EntailmentPlan.model_validate(
        {
            **hyperparameters,
            "data": data.files,
            "base": files.fingerprint,
            "start": "" if start is None else start.digest,
        }
    )
    if start is not None and start.base != files.fingerprint:
        raise UserError(
            f"the weights to start from are not for {MODELS[model].encoder}", hint="name others with --start"
        )
    with TrainingDirectory(run_dir) as directory:
        checkpoint = load_checkpoint(run_dir / CHECKPOINT) if resume and directory.has_checkpoint else None
        directory.begin(EntailmentManifest(plan=plan), resume=resume)
        before, encoder = read_encoder(files.directory)
        tokens = PairTokenizer(files.directory, encoder)
        arrays = {name: tensor.numpy() for name, tensor in before.items()}
        weights = {**before, **init_head(encoder, plan.seed)}
        if plan.lora_rank:
            weights |= init_lora(before, encoder, plan.lora_rank, plan.seed)
        if start is not None:
            weights = _started(weights, apply_delta(start, arrays))

        def on_curve_point(point: CurvePoint) -> None:
            write_file(run_dir / CURVE, json.dumps(trainer.curve, indent=1).encode())
            on_point(point)

        trainer = EntailmentTrainer(
            plan,
            EpochSource.of(splits.train, data.corpus, plan.mix),
            tokens,
            weights,
            encoder,
            checkpoint_path=run_dir / CHECKPOINT,
            validation_scores=lambda trainer: validation_scores(trainer.judge, splits.validation),
            on_point=on_curve_point,
            checkpoint=checkpoint,
        )
        if config.max_seconds is not None:  # the limit is over all processes of the run
            config = config.model_copy(update={"max_seconds": max(0.0, config.max_seconds - trainer.seconds)})
        if asyncio.run(run_training(trainer, config, is_cancelled=stop.is_set)) != "done":
            return None
        weights, seconds = trainer.weights, trainer.seconds
        temperature = fit_logit_temperature(trainer.judge, splits.validation)
        after = {n: t.numpy() for n, t in weights.items() if is_learned(n, encoder, lora=plan.lora_rank > 0)}
        provenance: dict[str, JsonValue] = {
            "plan": json.loads(plan.model_dump_json()),
            "plan_digest": plan.digest,
            "version": __version__,
            "steps": trainer.steps,
        }
        delta = compute_delta(
            arrays, after, base=files.fingerprint, bits=plan.bits, temperature=temperature, card=provenance
        )
        layer_format = torch.bfloat16 if plan.bf16 else torch.float32
        stored = {
            name: tensor.to(layer_format) if name[0].isdigit() else tensor
            for name, tensor in merge_lora(
                {name: torch.from_numpy(array) for name, array in apply_delta(delta, arrays).items()}
            )
        }

        def judge_stored(pairs: Sequence[Pair]) -> list[Support]:
            return judge_with(tokens, stored, encoder, pairs, temperature=temperature)

        scores = score_all(judge_stored, splits)
        raw = serialize_delta(delta)
        text = model_card(plan, splits, scores, trainer.curve, delta, len(raw), seconds)
        write_file(out, raw)
        if card is not None:
            write_file(card, text.encode())
        return TrainedEntailment(delta, tuple(scores), tuple(trainer.curve), text, len(raw), seconds)


def _started(weights: Mapping[str, torch.Tensor], trained: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights before the training with the values of an earlier one."""
    import torch

    if {n: t.shape for n, t in weights.items()} != {n: array.shape for n, array in trained.items()}:
        raise UserError(
            "the weights to start from have another rank or head",
            hint="set the same --lora-rank as they were trained with",
        )
    return {name: torch.from_numpy(array) for name, array in trained.items()}


def validation_scores(judge: PairJudge, claims: Sequence[ClaimCase]) -> CurvePoint:
    """Scores of the validation claims for a point of the learning curve."""
    result: CurvePoint = {}
    for name, questions, labels in (
        ("fever_two", oracle_two(claims)[:_VALIDATION_CLAIMS], 2),
        ("fever_retrieved_f1", retrieval(claims)[: _VALIDATION_CLAIMS // 5], 3),
        ("vitaminc", single(claims, "vitaminc")[:_VALIDATION_CLAIMS], 3),
    ):
        if questions:
            one = score(name, judge, questions, labels=labels)
            result[name] = round(one.macro_f1 if name.endswith("f1") else one.accuracy, 4)
    return result


def fit_logit_temperature(judge: PairJudge, claims: Sequence[ClaimCase]) -> float:
    """The divisor of the logits with the least loss on validation pairs: golden section on its logarithm.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    pairs = labelled_pairs(claims)
    values = [s for s in judge([one.pair for one in pairs]) if s is not None]
    if len(values) != len(pairs) or not pairs:
        raise DataError("the validation claims cannot be judged")

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


_POINTS: Final = 16
"""Points of the learning curve that the card shows."""

LIMITS: Final = """\
- English only. Most training texts are sentences of encyclopedias and claims of crowd workers; the documents of
  everyday use are synthetic.
- Title, text and claim have up to {tokens} tokens together; longer texts are split into windows.
- No arithmetic, no knowledge that is not in the text. Numbers are compared by rule.
- Most test claims are of the same datasets as the training claims. Claims of one page, and sentences of evidence, are
  in both splits; no claim and no contrast group is.
- Claims of FEVER without enough information carry label noise: some are contradicted by a sentence that the annotators
  did not see.
- Training makes it ignore sentences that only instruct the judge; this is tested, not proven.
- All benchmarks are public. The encoder was trained on a billion pairs of sentences by its authors, among them pairs of
  SNLI, MultiNLI and Wikipedia; which of them these claims resemble is not known."""


def model_card(
    plan: EntailmentPlan,
    splits: Splits,
    scores: Sequence[EntailmentScore],
    curve: Sequence[Mapping[str, JsonValue]],
    delta: WeightDelta,
    size: int,
    seconds: float,
) -> str:
    """The model card; the same for the same run."""
    encoder = MODELS[plan.model].encoder.removeprefix("local/")
    change = (
        f"a change of rank {plan.lora_rank} of each matrix of its upper layers"
        if plan.lora_rank
        else f"a change of its upper layers, in {plan.bits} bits a weight and a scale a row"
    )
    files = [(file.name, f"{file.claims:,}", file.use, file.licence, f"`{file.sha256[:16]}…`") for file in plan.data]
    parts = [
        f"# The {plan.model} entailment model",
        "This card was written by `reason train entailment` from its run; `benchmarks/verification_table.py` scores "
        "the file again.",
        "## What it is",
        f"{encoder} (fingerprint `{plan.base[:16]}`) as a cross-encoder, with {change} (digest `{delta.digest}`, "
        f"{size / 1e6:.2f} MB), a mark for each word on whether the other text has it, and a head over {len(FEATURES)} "
        f"features and the pooled tokens. Logits are divided by {delta.temperature:g}, fitted to the validation "
        "claims.",
        "## Data",
        table(("file", "claims", "use", "licence", "SHA-256"), files),
        f"*split*: by SHA-256 of the claim's text, {plan.holdout:.0%} of the claims are for the test and "
        f"{VALIDATION_SHARE:.0%} for validation (learning curve and temperature). Claims with the same text, and all "
        "claims of a contrast group, are in one split. *train*: for training alone, without what is connected to a "
        "test claim. *test*: never trained on.",
        table(("split", "supports", "refutes", "neutral"), _counts(splits)),
        "Each epoch samples a text for each claim, and makes contrasts by rule (`evals/training/entailment`): "
        "exchanged numbers, dates, names and things in claim, text or both; negations, comparatives, quantifiers, "
        "roles; texts that decide nothing; sentences that instruct the judge; claims about synthetic documents.",
        "## Settings",
        table(("setting", "value"), _settings(plan, seconds)),
        "## Test scores",
        "Two labels: which of supports and refutes is more likely. Several texts: the most decisive verdict. Intervals "
        "of 95 %: Wilson, or Student's t over groups of claims that belong together. *the claim alone*: with an empty "
        "text, so by the wording of the claims.",
        score_table(scores),
        "## Learning curve",
        "On the validation claims: accuracy (two labels) on FEVER's deciding texts, macro F1 on five retrieved ones, "
        "accuracy on VitaminC. The loss is of the training pairs, contrasts included.",
        curve_table(curve),
        "## Limits",
        LIMITS.format(tokens=256 if plan.model == "base" else 128),
        f"Made by reason {__version__}, plan `{plan.digest}`.",
    ]
    return "\n\n".join(parts) + "\n"


def score_table(scores: Sequence[EntailmentScore]) -> str:
    """Scores as a Markdown table."""
    rows = [
        (
            one.name,
            str(one.labels),
            f"{one.claims:,}",
            f"{one.accuracy:.3f} [{one.low:.3f}, {one.high:.3f}]",
            f"{one.macro_f1:.3f}",
            f"{one.ece:.3f}",
            f"{one.always:.3f}",
        )
        for one in scores
    ]
    return table(("set", "labels", "claims", "accuracy [95 %]", "macro F1", "ECE", "always the most common"), rows)


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


def _counts(splits: Splits) -> list[list[str]]:
    rows = []
    for name, cases in (
        ("train", splits.train),
        ("validation", splits.validation),
        ("test", splits.test),
    ):
        counts = Counter(case.label for case in cases)
        rows.append([name, *(f"{counts[label]:,}" for label in ("supports", "refutes", "neutral"))])
    return rows


def _settings(plan: EntailmentPlan, seconds: float) -> list[tuple[str, str]]:
    left_out = {"data", "base", "mix"}
    results = [(name, f"`{value}`") for name, value in plan.model_dump(mode="json").items() if name not in left_out]
    results += [(f"mix: {name}", f"`{value}`") for name, value in flatten(plan.mix.model_dump(mode="json")).items()]
    return [*results, ("seconds of training", f"{seconds:,.0f}")]
