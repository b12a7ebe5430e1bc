"""`Scorer`: the score of an answer to an item, by the type of its gold.

| gold | score |
| --- | --- |
| math | equivalence as mathematics |
| choice | the letter that the answer names; with log-probabilities of all choices also MC1 and MC2 |
| label | the label; its evidence by precision, recall and F1 |
| text | exact match and word F1 after SQuAD's normalization |
| code | whether the code passes the tests in a sandbox |

Source: Lin, Hilton and Evans, "TruthfulQA" (ACL 2022), section 3: MC1 asks whether the most likely choice is the right
one; MC2 is the share of probability of the right choices, both under the summed log-probability of a choice.
Rajpurkar et al., "SQuAD" (EMNLP 2016), section 6.1, for exact match and F1. Yang et al., "HotpotQA" (EMNLP
2018) and its evaluation script, for F1 of yes and no.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from pydantic import Field

from ..core.errors import UserError
from ..core.messages import Frozen
from ..core.types import Answer, Question
from ..reasoning.answers.calls import normalized_calls
from ..reasoning.answers.equivalence import Comparison, Equivalence
from ..reasoning.answers.extraction import find_code, find_option, option_letter
from ..reasoning.code_tests import question_code
from ..reasoning.execution.sandbox import require_sandbox, run_tests
from ..reasoning.logprob import softmax
from .datasets.items import (
    CallsGold,
    ChoiceGold,
    CodeGold,
    EvidenceSets,
    Item,
    LabelGold,
    MathGold,
    RunsGold,
    Score,
    TextGold,
    run_digest,
)


def score_choice(question: Question, gold: ChoiceGold, answer: Answer) -> Score:
    """Score an answer to a multiple-choice question.

    With log-probabilities of all choices, `metrics` has `right_share`, the right choices' share of probability; for a
    gold of rule "mass" that is MC2 and the score, and `mc1` is there too where the gold knows MC1's choices. Without
    them, such an answer counts as right if it is any of the right choices.
    """
    position = choice_index(question, answer)
    hit = position in gold.correct
    logprobs = choice_logprobs(question, answer)
    metrics: dict[str, float] = {}
    if logprobs is not None:
        shares = softmax(logprobs)
        metrics["right_share"] = min(1.0, sum(shares[i] for i in gold.correct))
    value, correct = float(hit), hit
    label = ", ".join(option_letter(i) for i in gold.correct)
    prediction = None if position is None else option_letter(position)
    if gold.rule == "mass":
        metrics["any_right"] = float(hit)
        if logprobs is not None:
            metrics["mc2"] = value = metrics.pop("right_share")
            if gold.mc1_correct is not None:
                likeliest = max(gold.mc1, key=logprobs.__getitem__)
                metrics["mc1"] = float(likeliest == gold.mc1_correct)
    return Score(
        value=value,
        correct=None if gold.rule == "mass" and logprobs is not None else correct,
        parsed=position is not None,
        label=label,
        prediction=prediction,
        confidence=answer.confidence,
        metrics=metrics,
    )


def choice_index(question: Question, answer: Answer) -> int | None:
    """Position of the choice that an answer names; None if it names none."""
    text = (answer.answer or "").strip()
    if len(text) == 1 and text.isascii() and text.isalpha():
        letter = text.upper()
    else:
        named = find_option(text, question.choices) if text else None
        if named is None:
            return None
        letter = named[0]
    index = ord(letter) - ord("A")
    return index if index < len(question.choices) else None


def choice_logprobs(question: Question, answer: Answer) -> Sequence[float] | None:
    """Summed log-probability of each choice, in nats, in the order shown; None if the candidates are not the choices.

    They are if there is one for each choice, with its letter and its very text, and nothing was generated for it.
    """
    candidates = answer.candidates
    if len(candidates) != len(question.choices):
        return None
    for i, (candidate, choice) in enumerate(zip(candidates, question.choices, strict=True)):
        if candidate.text != choice or candidate.answer != option_letter(i) or candidate.tokens:
            return None
    logprobs = [c.logprob for c in candidates if c.logprob is not None]
    return logprobs if len(logprobs) == len(candidates) else None


_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WHOLE = frozenset({("yes",), ("no",), ("noanswer",)})
"""Answers that share a part with no other one."""


def score_text(gold: TextGold, answer: Answer) -> Score:
    """Exact match with any of the right answers is the score; `f1` is the best `answer_f1` with one."""
    values = answer.answer or ""
    match = max(float(squad_words(values) == squad_words(right)) for right in gold.answers)
    return Score(
        value=match,
        correct=match == 1.0,
        parsed=answer.answer is not None,
        label=gold.answers[0],
        prediction=answer.answer,
        confidence=answer.confidence,
        metrics={"f1": max(answer_f1(values, right) for right in gold.answers)},
    )


def squad_words(text: str) -> tuple[str, ...]:
    """Words in lower case, without ASCII punctuation and articles."""
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def answer_f1(predicted: str, right: str) -> float:
    """F1 of the words of two short answers, in [0, 1].

    As HotpotQA has it, "yes" and "no" (and "noanswer") are right as a completely or not at all: "no, he was not" shares
    a word with "no", and is no answer to it.

    Differs: two answers without a word are the same, and not strangers.
    """
    a, b = squad_words(predicted), squad_words(right)
    return float(a == b) if a in _WHOLE or b in _WHOLE else overlap(a, b)


def overlap(predicted: Sequence[str], right: Sequence[str]) -> float:
    """F1 of two bags of words, in [0, 1]; 1 for two empty ones, 0 if one is empty."""
    if not predicted or not right:
        return float(predicted == right)
    return _f1(sum((Counter(predicted) & Counter(right)).values()), len(predicted), len(right))


def _f1(common: int, predicted: int, right: int) -> float:
    return 2 * common / (predicted + right)


async def score_code(question: Question, gold: CodeGold, answer: Answer) -> Score:
    """Whether the answer's code passes every test; `tests_passed` is the share of them.

    Raises:
        SandboxUnavailable: Code cannot be run in isolation here.
    """
    span = find_code(answer.text, [test.code for test in gold.tests])
    if span is None:
        await require_sandbox()  # no score where code cannot be run, whatever the answer
        return Score(value=0.0, correct=False, parsed=False, confidence=answer.confidence)
    results = await run_tests([question_code(question), answer.text[slice(*span)]], gold.tests)
    passed = sum(result.passed for result in results)
    failed = next((result for result in results if not result.passed), None)
    return Score(
        value=float(failed is None),
        correct=failed is None,
        parsed=True,
        prediction="passed" if failed is None else failed.outcome,
        confidence=answer.confidence,
        metrics={"tests_passed": passed / len(results)},
        notes={} if failed is None else {"test": failed.name, "detail": failed.detail[:1000]},
    )


def cited_evidence(question: Question, answer: Answer) -> tuple[str, ...]:
    """Names of the texts that an answer rests on: those of its verification's evidence, else those it mentions."""
    if answer.verification is not None and answer.verification.claims:
        sources = [e.source for claim in answer.verification.claims for e in claim.evidence]
        return tuple(dict.fromkeys(sources))
    return tuple(d.name for d in question.documents if _mentions(answer.text, d.name))


def attribution(named: Collection[str], right: EvidenceSets) -> dict[str, float]:
    """Precision, recall and F1 of the named texts, and whether they are enough.

    Args:
        right: The right ones; not empty.

    Returns:
        `evidence_precision` (0 if nothing was named), `evidence_recall`, `evidence_f1`, and `evidence_enough`: 1 if one
        of the sufficient sets was named whole, or all of them where no sets are known.
    """
    values, gold = set(named), set(right.names)
    both = len(values & gold)
    sets = right.sets or (right.names,)
    return {
        "evidence_precision": both / len(values) if values else 0.0,
        "evidence_recall": both / len(gold),
        "evidence_f1": 2 * both / (len(values) + len(gold)),
        "evidence_enough": float(any(set(one) <= values for one in sets)),
    }


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


async def compare_with_gold(answer: str | None, gold: MathGold, equivalence: Equivalence) -> list[Comparison]:
    """The comparisons with what is right, up to the first that states "same"; none without an answer.

    Args:
        answer: The answer; None is none.
    """
    compared: list[Comparison] = []
    if answer is not None:
        for right in (gold.answer, *gold.equivalents):
            compared.append(await equivalence.compare(answer, right, gold.kind))
            if is_same(compared):
                break
    return compared


def is_same(compared: Sequence[Comparison]) -> bool:
    """Whether the comparisons ended with "same"; what algebra cannot decide is not."""
    return bool(compared) and compared[-1].verdict == "same"


def score_label(question: Question, gold: LabelGold, answer: Answer) -> Score:
    """Score an answer that is to be one of the gold's labels.

    Where the gold knows the evidence and the answer names some, `metrics` has what `evidence.attribution` gives, and
    `label_and_evidence`: the right label on enough evidence (FEVER's score).
    """
    values = parse_label(question, gold, answer)
    hit = values == gold.label
    metrics: dict[str, float] = {}
    named = cited_evidence(question, answer)
    if gold.evidence is not None and gold.evidence.names and named:
        metrics = attribution(named, gold.evidence)
        metrics["label_and_evidence"] = float(hit and metrics["evidence_enough"] == 1.0)
    return Score(
        value=float(hit),
        correct=hit,
        parsed=values is not None,
        label=gold.label,
        prediction=values,
        confidence=answer.confidence,
        metrics=metrics,
        notes={"evidence": list(named)} if named else {},
    )


def parse_label(question: Question, gold: LabelGold, answer: Answer) -> str | None:
    """The label that an answer names: by its choice, or written out; None if none."""
    if gold.shown:
        position = choice_index(question, answer)
        return None if position is None else gold.shown[position]
    spoken = _plain(answer.answer or "")
    return next((label for label in gold.labels if _plain(label) == spoken), None)


def _plain(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").strip(" .").split())


class LabelMetrics(Frozen):
    """Metrics of one label.

    Attributes:
        precision: Share of the items predicted as this label that have it; None if there are none.
        recall: Share of the items with this label that are predicted as it; None if there are none.
        f1: Their harmonic mean; 0 if nothing is right; None if the label neither occurs nor is predicted.
        support: Items that have it.
        predicted: Number of items predicted as it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


class LabelReport(Frozen):
    """Labels over many items. An item without a readable answer is wrong: it counts against its label's recall only.

    Attributes:
        accuracy: Share of right labels.
        macro_f1: Mean F1 of the labels that occur or are predicted.
        weighted_f1: Mean F1 of the labels, each weighted by its items.
        labels: Metrics by label.
        confusion: Items by gold label and predicted label; "" is an unparsed answer.
    """

    accuracy: float
    macro_f1: float
    weighted_f1: float
    labels: dict[str, LabelMetrics] = Field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = Field(default_factory=dict)


def label_report(pairs: Sequence[tuple[str, str | None]], labels: Sequence[str] = ()) -> LabelReport:
    """Accuracy, macro F1 and the confusion of labels.

    Args:
        labels: All labels in their order; by default those that occur.

    Raises:
        UserError: There are no pairs.
    """
    if not pairs:
        raise UserError("there are no labels to report on", hint="let the run finish an item first")
    seen = [label for pair in pairs for label in pair if label is not None]
    counts = Counter(pairs)
    figures = {label: _figures(label, pairs) for label in dict.fromkeys([*labels, *seen])}
    scored = [f for f in figures.values() if f.f1 is not None]
    rows = [label for label, f in figures.items() if f.support]
    columns: list[str | None] = [*figures, None]
    return LabelReport(
        accuracy=sum(right == values for right, values in pairs) / len(pairs),
        macro_f1=sum(f.f1 or 0.0 for f in scored) / len(scored),
        weighted_f1=sum((f.f1 or 0.0) * f.support for f in scored) / len(pairs),
        labels=figures,
        confusion={r: {c or "": counts[r, c] for c in columns if counts[r, c]} for r in rows},
    )


def _figures(label: str, pairs: Sequence[tuple[str, str | None]]) -> LabelMetrics:
    support = sum(right == label for right, _ in pairs)
    values = sum(label_text == label for _, label_text in pairs)
    both = sum(right == label == label_text for right, label_text in pairs)
    return LabelMetrics(
        precision=both / values if values else None,
        recall=both / support if support else None,
        f1=2 * both / (values + support) if values + support else None,
        support=support,
        predicted=values,
    )


def score_calls(question: Question, gold: CallsGold, answer: Answer) -> Score:
    """Whether an answer's tool calls are among the right ones; a question to the user calls nothing."""
    made = normalized_calls(answer.tool_calls, question.tools) if answer.tool_calls else ""
    hit = made in gold.right and answer.stopped != "abstained"
    return Score(
        value=float(hit),
        correct=hit,
        parsed=bool(made) or answer.answer is not None,
        label=" or ".join(gold.right),
        prediction=made or None,
        confidence=answer.confidence,
    )


def score_runs(gold: RunsGold, answer: Answer) -> Score:
    """Whether the calls of a run are those of a right one; a question to the user is no run."""
    made = run_digest(message.tool_calls for message in answer.messages)
    hit = made in gold.right and answer.stopped != "abstained"
    return Score(
        value=float(hit), correct=hit, parsed=answer.answer is not None, prediction=made, confidence=answer.confidence
    )


class Scorer:
    """Scores answers; an asynchronous context manager.

    Mathematics is compared in a process of its own, started when the first formula needs it and ended with this.

    Args:
        equivalence: Compares mathematics; None makes one.
    """

    def __init__(self, equivalence: Equivalence | None = None) -> None:
        self._equivalence = equivalence or Equivalence()

    async def score(self, item: Item, answer: Answer) -> Score:
        """What an answer is worth.

        An answer without anything to score counts 0 and is not parsed; it is no error.
        """
        match item.gold:
            case MathGold():
                return await self._score_math(item.gold, answer)
            case ChoiceGold():
                return score_choice(item.question, item.gold, answer)
            case LabelGold():
                return score_label(item.question, item.gold, answer)
            case TextGold():
                return score_text(item.gold, answer)
            case CodeGold():
                return await score_code(item.question, item.gold, answer)
            case CallsGold():
                return score_calls(item.question, item.gold, answer)
            case RunsGold():
                return score_runs(item.gold, answer)

    async def _score_math(self, gold: MathGold, answer: Answer) -> Score:
        values = answer.answer
        compared = await compare_with_gold(values, gold, self._equivalence)
        hit = is_same(compared)
        undecided = [c.reason for c in compared if c.verdict == "undecided"]
        return Score(
            value=float(hit),
            correct=hit,
            parsed=values is not None,
            label=gold.answer,
            prediction=values,
            confidence=answer.confidence,
            # what algebra could not decide counts as wrong; a reader may want to look
            notes={"compared_by": compared[-1].reason} | ({"undecided": undecided[0]} if undecided and not hit else {})
            if compared
            else {},
        )

    async def aclose(self) -> None:
        """End the processes; idempotent."""
        await self._equivalence.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def score(item: Item, answer: Answer) -> Score:
    """Score one answer. For many, keep a `CandidateScorer`: its processes start once."""
    async with Scorer() as scorer:
        return await scorer.score(item, answer)
