"""Datasets: `Item`, its `Gold`, the `Dataset` that `loading` makes of them, and the `Score` that `scoring` gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ...core.messages import Frozen, ToolCall, canonical_calls
from ...core.types import MAX_TESTS, CodeTest, Probability, Question
from ..plan import DatasetInfo


class MathGold(Frozen):
    """A number or a formula, compared as mathematics.

    Attributes:
        answer: The right answer as the source writes it.
        equivalents: Other accepted forms that are not equivalent as mathematics.
        kind: "number" or "math": what the two sides are compared as.
    """

    type: Literal["math"] = "math"
    answer: Annotated[str, Field(min_length=1)]
    equivalents: tuple[str, ...] = ()
    kind: Literal["number", "math"] = "math"


class ChoiceGold(Frozen):
    """The right ones among the question's choices.

    Attributes:
        correct: Positions of the right choices as shown, that is after shuffling; ascending.
        rule: "one" is right or wrong (TruthfulQA's MC1 where there is one right choice). "mass" is the share of
            probability that the right choices have among all (TruthfulQA's MC2); it needs a log-probability for each
            choice, and without them the answer counts as right if it is any of the right ones.
        mc1: With "mass": positions of the choices that MC1 asks about, if they are among these; empty otherwise.
        mc1_correct: With "mass": position of MC1's right choice.
    """

    type: Literal["choice"] = "choice"
    correct: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    rule: Literal["one", "mass"] = "one"
    mc1: tuple[int, ...] = ()
    mc1_correct: int | None = None


class EvidenceSets(Frozen):
    """The texts that a verdict may rest on, by name.

    Attributes:
        names: Names of all right texts (`Document.name`).
        sets: Sufficient sets; empty if they are not known.
    """

    names: tuple[str, ...] = ()
    sets: tuple[tuple[str, ...], ...] = ()


class LabelGold(Frozen):
    """One of a fixed set of labels.

    Attributes:
        label: The right one.
        labels: All of them, in an order of their own. Macro-averages are over these.
        shown: Label of each of the question's choices, in the order shown; empty if the question has no choices.
        evidence: The right evidence; None if the source has none.
    """

    type: Literal["label"] = "label"
    label: str
    labels: tuple[str, ...]
    shown: tuple[str, ...] = ()
    evidence: EvidenceSets | None = None

    @model_validator(mode="after")
    def _label_is_one(self) -> Self:
        if self.label not in self.labels or not set(self.shown) <= set(self.labels):
            raise ValueError(f"{self.label!r} or one of {self.shown} is not among the labels {self.labels}")
        return self


class TextGold(Frozen):
    """A short text, compared after SQuAD's normalisation.

    Attributes:
        answers: The right answer and its aliases.
    """

    type: Literal["text"] = "text"
    answers: Annotated[tuple[str, ...], Field(min_length=1)]


class CodeGold(Frozen):
    """Tests that the answer's Python code is to pass, which the question does not show."""

    type: Literal["code"] = "code"
    tests: Annotated[tuple[CodeTest, ...], Field(min_length=1, max_length=MAX_TESTS)]


class CallsGold(Frozen):
    """Tool calls that a source counts as right.

    Attributes:
        right: Their normal forms (`normalized_calls`); "" is the right answer without a call.
    """

    type: Literal["calls"] = "calls"
    right: tuple[str, ...]


class RunsGold(Frozen):
    """Runs of an agent that a source counts as right.

    Attributes:
        right: Digests of their calls (`run_digest`).
    """

    type: Literal["runs"] = "runs"
    right: tuple[str, ...]


def run_digest(turns: Iterable[Sequence[ToolCall]]) -> str:
    """A digest of the calls of a run, turn by turn; turns without calls do not count."""
    forms = [canonical_calls(calls) for calls in turns if calls]
    return hashlib.sha256("\n".join(forms).encode("utf-8", "surrogatepass")).hexdigest()[:32]


Gold = Annotated[
    MathGold | ChoiceGold | LabelGold | TextGold | CodeGold | CallsGold | RunsGold, Field(discriminator="type")
]
"""What is right, by `type`."""


class Item(Frozen):
    """One question of a dataset.

    Attributes:
        id: Its name, unique in the dataset.
        question: What is posed: text, choices in the order shown, documents, kind.
        gold: What is right.
        subject: What breakdowns group by; empty if nothing.
        level: How hard the source states it is; breakdowns group by it as well; empty if it does not state.
        group: What belongs to one source and is no independent evidence (paraphrases, contrast pairs); empty if the
            item is only. Standard errors are clustered by it.
        tools: Tools that the run executes, as strings; their calls need no approval.
    """

    id: Annotated[str, Field(min_length=1)]
    question: Question
    gold: Gold
    subject: str = ""
    level: str = ""
    group: str = ""
    tools: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()

    @property
    def gold_positions(self) -> tuple[int, ...]:
        """Positions of the right choices as shown; empty if the question has no choices."""
        gold = self.gold
        if isinstance(gold, ChoiceGold):
            return gold.correct
        if isinstance(gold, LabelGold):
            return tuple(i for i, label in enumerate(gold.shown) if label == gold.label)
        return ()


class Dataset(DatasetInfo):
    """A loaded dataset: its items in the source's order."""

    items: tuple[Item, ...]

    @property
    def by_id(self) -> dict[str, Item]:
        """The items by id."""
        return {item.id: item for item in self.items}

    @property
    def info(self) -> DatasetInfo:
        """What a plan records of the dataset."""
        return DatasetInfo(**{name: getattr(self, name) for name in DatasetInfo.model_fields})


class Score(Frozen):
    """What an answer is worth.

    Attributes:
        value: The main score, in [0, 1].
        correct: Whether it is right; None where the score is a share and nothing is right or wrong.
        parsed: Whether there was an answer that the scorer could read.
        label: The right answer in short: a letter, a label, a number.
        prediction: The given answer in short; None if none could be parsed.
        confidence: The answer's stated probability of being right; None if it states none.
        metrics: Scores by name; each is averaged over the items that have it.
        notes: What a reader may want to know: how it was compared, which evidence was named.
    """

    value: Probability
    correct: bool | None = None
    parsed: bool
    label: str | None = None
    prediction: str | None = None
    confidence: Probability | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    notes: dict[str, JsonValue] = Field(default_factory=dict)


def fingerprint(items: tuple[Item, ...]) -> str:
    """SHA-256 over items in order, golds included; their levels change neither what is posed nor what is right."""
    digest = hashlib.sha256()
    for item in items:
        plain = item.model_dump(mode="json", exclude={"level"})
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def is_held_out(digest: str, share: float) -> bool:
    """Whether a question is held out, in any dataset and order; a larger share only adds questions.

    Args:
        digest: Digest of its text: hexadecimal, uniformly distributed.
        share: Share of all questions to hold out, in [0, 1).
    """
    return int(digest[:13], 16) < share * 16**13  # 52 bits: exact in a float
