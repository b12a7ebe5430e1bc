"""What juries noted while they answered, as the run store has it; and each juror as a method of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reason.core.event_fields import EventFields
from reason.core.events import StageStarted
from reason.core.jury_events import ClaimLabelled, JuryStageEnded, OpinionGiven, OpinionsMerged, ReviewGiven
from reason.core.model_roles import jurors_of
from reason.core.sqlite_store import SqliteStore
from reason.evals.comparison import StoredRun
from reason.evals.rows import Row, RowLedger, RowTiming
from reason.evals.solution_notes import Notes, last_notes, store_of
from reason.reasoning.prompts import LETTERS
from reason.verify.edgejury.config import LEAST_JURORS
from reason.verify.edgejury.opinions import ClaimLabel, Opinion, Review, StageCost, Synthesis

JURY = "edgejury"


@dataclass(frozen=True)
class Sitting:
    """One question before one jury.

    Attributes:
        opinions: By juror, failed ones too.
        reviews: By reviewer, likewise; empty if there was none.
        synthesis: The answer that was made of them; None if there was no chair.
        labels: Of the answer's claims.
        stages: What each stage cost.
        notes: What the solution noted.
    """

    opinions: tuple[Opinion, ...]
    reviews: tuple[Review, ...]
    synthesis: Synthesis | None
    labels: tuple[ClaimLabel, ...]
    stages: tuple[StageCost, ...]
    notes: Notes

    @property
    def path(self) -> str:
        """Which way was taken."""
        return str(self.notes.get("path", ""))

    def place(self, juror: int) -> int | None:
        """Where a juror's choice stood among the options as that juror saw them, from 0; None without a choice."""
        told = self.notes.get("jurors")
        one = told[juror] if isinstance(told, list) and juror < len(told) else None
        found = one.get("place") if isinstance(one, dict) else None
        return found if isinstance(found, int) else None


@dataclass(frozen=True)
class Heard:
    """A run with what its juries noted.

    Attributes:
        run: The run.
        sittings: One a row; None where no jury sat, it came to no answer, or the store is gone.
    """

    run: StoredRun
    sittings: tuple[Sitting | None, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return self.run.rows

    @property
    def sat(self) -> Iterator[tuple[Row, Sitting]]:
        """The rows that a jury answered, with what it noted."""
        return ((row, one) for row, one in zip(self.rows, self.sittings, strict=True) if one is not None)


async def hear(runs: Sequence[StoredRun], store: Path | None = None) -> list[Heard]:
    """Runs with what the run store knows of them; a store that is gone leaves it out.

    Args:
        runs: The runs.
        store: The run store, where it is not where the runs say.
    """
    found: list[Heard] = []
    for run in runs:
        place = store_of(run, store)
        if run.manifest.plan.strategy != JURY or not place.exists():
            found.append(Heard(run, (None,) * len(run.rows)))
            continue
        opened = await SqliteStore.open(place)
        try:
            told = [await opened.events(row.run_id) for row in run.rows]
        finally:
            await opened.aclose()
        found.append(Heard(run, tuple(map(sitting_of, told))))
    return found


def sitting_of(events: Sequence[EventFields]) -> Sitting | None:
    """What the events of one run tell of its jury; of a run that was interrupted, those since it went on."""
    notes = last_notes(events)
    if notes is None:
        return None
    began = [i for i, event in enumerate(events) if isinstance(event, StageStarted) and event.stage == "jury: answer"]
    opinions: dict[int, Opinion] = {}
    reviews: dict[int, Review] = {}
    labels: dict[int, ClaimLabel] = {}
    stages: list[StageCost] = []
    synthesis: Synthesis | None = None
    for event in events[began[-1] if began else 0 :]:
        match event:
            case OpinionGiven():
                opinions[event.juror] = Opinion.model_validate(event.report)
            case ReviewGiven():
                reviews[event.reviewer] = Review.model_validate(event.report)
            case OpinionsMerged():
                synthesis = Synthesis.model_validate(event.report)
            case ClaimLabelled():
                labels[event.index] = ClaimLabel.model_validate(event.report)
            case JuryStageEnded():
                stages.append(StageCost.model_validate(event.report))
    return Sitting(
        opinions=tuple(opinions[juror] for juror in sorted(opinions)),
        reviews=tuple(reviews[reviewer] for reviewer in sorted(reviews)),
        synthesis=synthesis,
        labels=tuple(labels[index] for index in sorted(labels)),
        stages=tuple(stages),
        notes=notes,
    )


def right_letter(row: Row) -> str:
    """The letter of the right option."""
    correct = row.gold.get("correct") if isinstance(row.gold, dict) else None
    if not isinstance(correct, list) or not correct or not isinstance(correct[0], int):
        raise SystemExit(f"{row.id} is no question with one right option")
    return LETTERS[correct[0]]


def place_of(row: Row) -> int | None:
    """Where the answer stands among the options in the question's order, from 0; None if it names none of them."""
    letter = (row.prediction or "").strip()
    place = LETTERS.find(letter) if len(letter) == 1 else -1
    return place if 0 <= place < len(row.choices) else None


def jurors_count(run: StoredRun) -> int:
    """How many jurors a jury has."""
    plan = run.manifest.plan
    n = plan.parameters.get("n")
    return n if isinstance(n, int) else max(LEAST_JURORS, len(jurors_of(plan.models)))


def alone(heard: Heard, juror: int) -> StoredRun:
    """One juror of a jury as a method of its own: its opinion is the answer, and costs what the opinion cost.

    Its tokens are those of the opinion, with the answer that was asked for behind it where it stated none; its calls
    and its prompt are not known apart from the others'.
    """
    rows = []
    for row, sitting in heard.sat:
        opinion = next((one for one in sitting.opinions if one.juror == juror), None)
        choice = None if opinion is None else opinion.choice
        right = choice == right_letter(row)
        rows.append(
            row.model_copy(
                update={
                    "answer": choice,
                    "prediction": choice,
                    "parsed": choice is not None,
                    "value": float(right),
                    "correct": right,
                    "confidence": None,
                    "error": None,
                    "ledger": RowLedger(completion_tokens=0 if opinion is None else opinion.tokens),
                    "timing": RowTiming(whole=False),
                }
            )
        )
    return replace(heard.run, rows=rows)
