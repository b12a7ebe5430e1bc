"""Stage 4: the jurors' agreement on each claim of the final answer, computed from their stances.

The claim of a closed question is the answer itself, and an opinion's stance follows from its choice. An open answer is
split into claims; a judge compares each with every opinion. Agreement is not truth: jurors share misconceptions.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 4, where one completion extracts and labels the claims.
Differs: each opinion has a stance on each claim, and label, score and confidence follow from the counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from ...core.concurrency import LONG_CHARS, off_loop
from ...core.errors import BackendError, BudgetExceeded, UserError
from ...core.events import ClaimLabelled
from ...core.run import Run
from ...core.types import AgreementLabel, Question
from ...reasoning.answers.extraction import extract_answer
from ...reasoning.prompts import LETTERS
from ...reasoning.retrieval.words import sentence_scores
from ...reasoning.segmentation import sentence_spans
from ...reasoning.strategy import Models
from ..claims import question_text, split_claims
from ..entailment.judge import JudgeEntailment
from ..entailment.lexical import LexicalEntailment
from ..entailment.windows import WindowedEntailment
from ..types import Claim, Entailment, Label, Pair
from ..verifier import LEXICAL, MODEL
from .answering import closed_kind
from .types import ClaimLabel, Opinion

Stance = Literal["support", "contradict", "silent"]
ClaimStances = dict[int, Stance]
"""Stances by juror on one claim; unreadable ones are missing."""

THETA: Final = 2 / 3
"""Share of the jurors that must support a consistent claim."""
MIN_SUPPORT: Final = 2
MAX_CLAIMS: Final = 8
"""Maximum claims of an answer."""
NO_CLAIMS: Final = 0.5
"""Confidence in an answer without claims."""

_STANCES: dict[Label, Stance] = {"supports": "support", "refutes": "contradict", "neutral": "silent"}
_ROUNDING = 1e-9


def label_of(support: int, contradict: int, silent: int, theta: float = THETA) -> AgreementLabel:
    """The label from the counts of stances.

    With n the sum of the counts: "contradicted" if more contradict than support, or one contradicts and none supports;
    "consistent" if none contradicts and at least max(2, ceil(theta n)) support; else "uncertain".

    Raises:
        UserError: A count is negative, or theta is not in [0, 1].
    """
    if min(support, contradict, silent) < 0 or not 0 <= theta <= 1:
        raise UserError(
            f"counts {support}, {contradict}, {silent} or theta={theta:g} are out of range",
            hint="counts must not be negative, theta must be in [0, 1]",
        )
    quorum = max(MIN_SUPPORT, math.ceil(theta * (support + contradict + silent) - _ROUNDING))
    if contradict > support or (contradict and not support):
        return "contradicted"
    return "consistent" if not contradict and support >= quorum else "uncertain"


def score_of(support: int, contradict: int) -> float:
    """Agreement g = (support + 1) / (support + contradict + 2), the posterior mean under a flat prior."""
    return (support + 1) / (support + contradict + 2)


def label_claim(claim: Claim, stances: Mapping[int, Stance]) -> ClaimLabel:
    """A claim with its supporting and contradicting jurors; jurors with an unreadable stance are missing."""
    support, contradict, silent = (
        tuple(sorted(juror for juror, stance in stances.items() if stance == wanted)) for wanted in _STANCES.values()
    )
    label = label_of(len(support), len(contradict), len(silent))
    if label == "consistent":
        note = ""
    elif contradict:
        note = f"contradicted by {len(contradict)} of {len(support) + len(contradict)} opinions that mention it"
    else:
        note = f"stated by only {len(support)} of the opinions" if support else "stated by no opinion"
    return ClaimLabel(
        claim=claim,
        label=label,
        support=support,
        contradict=contradict,
        silent=silent,
        score=score_of(len(support), len(contradict)),
        note=note,
    )


def confidence_of(claims: Sequence[ClaimLabel]) -> float:
    """The jurors' agreement on an answer: mean g of its claims, times the share of claims that are not contradicted.

    Returns:
        A number in [0, 1]; 0.5 without claims.
    """
    if not claims:
        return NO_CLAIMS
    contradicted = sum(claim.label == "contradicted" for claim in claims)
    return math.fsum(claim.score for claim in claims) / len(claims) * (1 - contradicted / len(claims))


def lexical_premise(claim: str, opinion: str) -> str:
    """The part of an opinion closest to a claim: its most similar sentence, and the one before it for pronouns.

    Sentences are compared by their words; without any common word the complete opinion is returned.
    """
    spans = list(sentence_spans(opinion))
    scores = sentence_scores(claim, [opinion[start:end] for start, end in spans])
    best = max(range(len(spans)), key=scores.__getitem__, default=None)
    if best is None or not scores[best]:
        return opinion
    return opinion[spans[max(0, best - 1)][0] : spans[best][1]]


def choice_stances(choice: str, opinions: Sequence[Opinion]) -> ClaimStances:
    """Stances of opinions on a closed answer, by their choices."""
    return {
        opinion.juror: "silent" if opinion.choice is None else "support" if opinion.choice == choice else "contradict"
        for opinion in opinions
        if opinion.ok
    }


async def collect_stances(
    claims: Sequence[Claim], opinions: Sequence[Opinion], judge: Entailment, run: Run
) -> list[ClaimStances]:
    """The stance of each opinion on each claim; where the judge fails, by a comparison of words."""
    complete = [opinion for opinion in opinions if opinion.ok]
    try:
        return await _judged(claims, complete, judge)
    except BudgetExceeded as e:
        run.record_limit(e)
        reason = e.message
    except BackendError as e:
        reason = e.message
    run.degrade(f"claims and opinions are compared by words: {reason}")
    return await _judged(claims, complete, LexicalEntailment())


async def _judged(claims: Sequence[Claim], opinions: Sequence[Opinion], judge: Entailment) -> list[ClaimStances]:
    reads_opinions = isinstance(judge, JudgeEntailment)  # a language model judges all claims of a text together
    # opinions answer the same question, so a short answer is compared without it
    statements = [claim.text.rpartition("? ")[2] for claim in claims]
    pairs = [
        Pair(opinion.text if reads_opinions else lexical_premise(statement, opinion.text), statement)
        for statement in statements
        for opinion in opinions
    ]
    verdicts = iter(await WindowedEntailment(judge).judge(pairs)) if pairs else iter(())
    stances: list[ClaimStances] = []
    for _ in claims:
        of_claim = [(opinion.juror, next(verdicts)) for opinion in opinions]
        stances.append({juror: _STANCES[verdict.label] for juror, verdict in of_claim if verdict is not None})
    return stances


def find_entailment(judge: str, models: Models, run: Run) -> Entailment:
    """The judge of a strategy's claims; a comparison of words where it is not available, which degrades the run."""
    if judge == MODEL:
        return JudgeEntailment(models.judge)
    if isinstance(models.entailment, Entailment):
        return models.entailment
    if judge != LEXICAL:
        run.degrade(f"claims and opinions are compared by words: the judge {judge} is not available")
    return LexicalEntailment()


async def label_claims(
    answer: str,
    choice: str | None,
    opinions: Sequence[Opinion],
    question: Question,
    models: Models,
    judge: str,
    run: Run,
) -> tuple[ClaimLabel, ...]:
    """The claims of an answer with their labels, in order; the only claim of a closed question is its answer."""
    if not answer.strip():
        return ()
    if closed_kind(question) is not None and choice is not None:
        claims = [answer_claim(answer, choice, question)]
        stances = [choice_stances(choice, opinions)]
    else:
        claims = await off_loop(
            lambda: split_claims(answer, question_text(question), MAX_CLAIMS), is_long=len(answer) > LONG_CHARS
        )
        stances = await collect_stances(claims, opinions, find_entailment(judge, models, run), run)
    labels = [label_claim(claim, own) for claim, own in zip(claims, stances, strict=True)]
    emit_labels(labels, run)
    return tuple(labels)


def emit_labels(labels: Sequence[ClaimLabel], run: Run) -> None:
    """Emit an event for each label."""
    for index, label in enumerate(labels):
        run.emit(ClaimLabelled(index=index, report=label.model_dump(mode="json")))


def answer_claim(answer: str, choice: str, question: Question) -> Claim:
    """A closed answer as a claim, with its position in the text."""
    match = extract_answer(answer, question)
    start, end = (match.start, match.end) if match is not None and match.end > match.start else (0, len(answer))
    index = LETTERS.find(choice) if len(choice) == 1 else -1
    option = f" ({question.choices[index].strip()})" if 0 <= index < len(question.choices) else ""
    return Claim(text=f"The answer is {choice}{option}.", start=start, end=end)
