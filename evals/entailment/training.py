"""One training of the embedded judge from files to a file: read, split, train, fit the temperature, score, write."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from ...core.errors import DataError, UserError
from ...core.settings import Settings
from ...core.version import __version__
from ...core.whole_files import write_bytes
from ...serving.converted import missing_extra
from ...serving.pulling import Progress
from ...verify.entailment.embedded_delta import Delta, applied, delta_of, pack
from ...verify.support import Support
from ..held_folder import HeldFolder
from ..navigator.work_folder import refuse_unwritable
from .card import card_text
from .cases import Case, Labelled, paired
from .drawing import Stock
from .plan import DataUse, EntailmentPlan
from .scoring import Judge, Score, best_gate, oracle_two, retrieval, score, score_all, single, verdicts
from .sides import Sides, sides_of
from .sources import LICENCES, TRAINABLE, Corpus, hash_of, read_cases, read_corpus

if TYPE_CHECKING:
    import torch

    from .rhythm import Rhythm
    from .trainer import CurvePoint

CHECKPOINT: Final = "checkpoint.safetensors"
CURVE: Final = "curve.json"
PLAN: Final = "plan.json"
_TEMPERATURES: Final = (0.25, 4.0)
_WATCHED_QUESTIONS: Final = 40
"""Claims of FEVER by retrieval that a point of the learning curve is made of; each has five pairs."""


class WorkFolder(HeldFolder):
    """The folder of one training, held by this process."""

    option = "--work"


@dataclass(frozen=True)
class Gathered:
    """What was read.

    Attributes:
        sides: The cases by what is done with them.
        corpus: Sentences by id.
        stress: Cases of FEVER Symmetric and CLIMATE-FEVER.
        uses: The files.
    """

    sides: Sides
    corpus: Corpus
    stress: tuple[Case, ...]
    uses: tuple[DataUse, ...]


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        delta: What lies in the file.
        scores: On the held-back claims, by the weights as they lie in the file.
        unrounded: Some of them by the weights before they were put in few bits.
        curve: The learning curve.
        card: Its card, Markdown.
        size: Bytes of the file.
        seconds: Seconds that the steps took.
    """

    delta: Delta
    scores: tuple[Score, ...]
    unrounded: tuple[Score, ...]
    curve: tuple[CurvePoint, ...]
    card: str
    size: int
    seconds: float


def gather(data: Mapping[str, Path], corpus: Path, *, stress: Mapping[str, Path], held: float) -> Gathered:
    """Read and split everything.

    Args:
        data: What is trained on, by name.
        corpus: The sentences.
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
    sides = sides_of([case for cases in read.values() for case in cases], held=held, apart=apart)
    if not sides.training or not sides.watched or not sides.held:
        raise UserError("too few claims to train on some and keep others back", hint="give more data")
    counts = {name: len(cases) for name, cases in (read | tested).items()} | {"corpus": len(sentences)}
    paths = {**data, **stress, "corpus": corpus}
    uses = [
        DataUse(name=name, sha256=hash_of(name, path), licence=LICENCES[name], claims=counts[name])
        for name, path in paths.items()
    ]
    return Gathered(sides, sentences, tuple(c for cases in tested.values() for c in cases), tuple(uses))


def train(
    gathered: Gathered,
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
) -> Trained | None:
    """Train the judge. Blocks.

    Args:
        gathered: The data.
        settings: Where model files are kept.
        out: The file to write.
        work: Folder of checkpoint and curve.
        rhythm: When to note and save.
        choices: Fields of the plan that were chosen.
        resume: Whether to go on with what the folder holds.
        card: Where to write the card as well.
        cancel: Set by another thread to stop; the training can go on then.
        watch: Told of each point of the learning curve.
        progress: Told of a fetch of the encoder.

    Returns:
        None where the time is over: it can go on.

    Raises:
        UserError: The folder holds another training, or one that is not to be resumed.
        DataError: The encoder or the checkpoint is damaged.
        BackendUnavailable: The encoder cannot be had.
        Cancelled: Cancelled.
        StoreError: Something cannot be written.
    """
    try:
        from ...serving.encoders.encoder_files import find_encoder
        from ...verify.entailment.embedded import BASE
        from ...verify.entailment.embedded_network import new_head, read_encoder
        from ...verify.entailment.embedded_tokens import PairTokens
        from .checkpoints import load_checkpoint
        from .trainer import Trainer, is_learned, judged_by
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    refuse_unwritable(out)
    stop = cancel or threading.Event()
    files = find_encoder(BASE, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=stop)
    plan = EntailmentPlan.model_validate({**choices, "data": gathered.uses, "base": files.fingerprint})
    with WorkFolder(work) as folder:
        path = folder.path / CHECKPOINT
        if not resume and path.exists():
            raise UserError(
                f"{work} holds a training already", hint="--resume goes on with it; or choose another --work"
            )
        write_bytes(folder.path / PLAN, plan.model_dump_json(indent=2).encode())
        tokens = PairTokens(files.folder)
        encoder, shape = read_encoder(files.folder)
        stock = Stock.of(gathered.sides.training, gathered.corpus, plan.mix)
        start = load_checkpoint(path) if resume else None
        trainer = Trainer(plan, stock, tokens, {**encoder, **new_head(shape, plan.seed)}, shape, start)

        def noted(point: CurvePoint) -> None:
            write_bytes(folder.path / CURVE, json.dumps(trainer.curve, indent=1).encode())
            watch(point)

        watched = gathered.sides.watched
        if not trainer.run(
            rhythm, checkpoint=path, cancel=stop, watch=noted, scores=lambda t: watched_scores(t.judge, watched)
        ):
            return None
        whole = trainer.weights
        temperature = fitted_temperature(lambda pairs: judged_by(tokens, whole, shape, pairs), watched)
        before = {name: tensor.numpy() for name, tensor in encoder.items()}
        after = {name: tensor.numpy() for name, tensor in whole.items() if is_learned(name, shape)}
        told: dict[str, JsonValue] = {
            "plan": json.loads(plan.model_dump_json()),
            "plan_digest": plan.digest,
            "version": __version__,
            "steps": trainer.steps,
        }
        delta = delta_of(before, after, base=files.fingerprint, bits=plan.bits, temperature=temperature, card=told)

        def by(weights: Mapping[str, torch.Tensor]) -> Judge:
            return lambda pairs: judged_by(tokens, weights, shape, pairs, temperature=temperature)

        stored = by(_tensors(applied(delta, before)))
        near = retrieval(watched)
        gate = best_gate(near, verdicts(stored, near)[0]) if near else 0.0
        scores = score_all(stored, gathered.sides, gate=gate, stress=gathered.stress)
        unrounded = score_all(by(whole), gathered.sides, stress=gathered.stress, quick=True)
        raw = pack(delta)
        text = card_text(plan, gathered.sides, scores, unrounded, trainer.curve, delta, len(raw), trainer.seconds)
        write_bytes(out, raw)
        if card is not None:
            write_bytes(card, text.encode())
        return Trained(delta, tuple(scores), tuple(unrounded), tuple(trainer.curve), text, len(raw), trainer.seconds)


def watched_scores(judge: Judge, watched: Sequence[Case]) -> CurvePoint:
    """The watched claims' scores for a point of the learning curve."""
    found: CurvePoint = {}
    for name, questions, labels in (
        ("fever_two", oracle_two(watched), 2),
        ("fever_retrieved_f1", retrieval(watched)[:_WATCHED_QUESTIONS], 3),
        ("vitaminc", single(watched, "vitaminc"), 3),
    ):
        if questions:
            one = score(name, judge, questions, labels=labels)
            found[name] = round(one.macro_f1 if name.endswith("f1") else one.accuracy, 4)
    return found


def fitted_temperature(judge: Judge, watched: Sequence[Case]) -> float:
    """What logits are divided by, so that the watched pairs are likeliest: golden section on the log of it.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    pairs = labelled_pairs(watched)
    told = [s for s in judge([one.pair for one in pairs]) if s is not None]
    if len(told) != len(pairs) or not pairs:
        raise DataError("the watched claims cannot be judged")

    def loss(log_t: float) -> float:
        return math.fsum(_nll(s, one.label, math.exp(log_t)) for s, one in zip(told, pairs, strict=True))

    low, high = (math.log(t) for t in _TEMPERATURES)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return round(math.exp((low + high) / 2), 4)


def labelled_pairs(cases: Sequence[Case]) -> list[Labelled]:
    """One pair of each case: the first deciding text; of a neutral claim of FEVER the first that was retrieved."""
    found = []
    for case in cases:
        texts = case.texts or case.silent
        if texts:
            found.append(Labelled(paired(texts[0], case.claim), case.label, case.source, case.name))
    return found


def _nll(told: Support, label: str, temperature: float) -> float:
    logs = {name: math.log(max(p, 1e-12)) / temperature for name, p in told._asdict().items()}
    top = max(logs.values())
    return top + math.log(math.fsum(math.exp(x - top) for x in logs.values())) - logs[label]


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
