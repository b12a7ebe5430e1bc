"""`edgejury`: several jurors answer in different roles, review one another blindly, and a chair makes one answer of it.

Source: Kumar, "EdgeJury: Cross-Reviewed Small-Model Ensembles for Truthful Question Answering on Serverless Edge
Inference" (2025, arXiv:2601.00850; extended in IEEE Access 2026, doi:10.1109/ACCESS.2026.3683784).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import JsonValue

from ...core.answer import Candidate, Solution
from ...core.events import CandidateFound
from ...core.question import Question
from ...core.run import Run
from ...reasoning.answers import extract
from ...reasoning.options import letter_of
from ...reasoning.strategy import Models, Stability
from ...serving.model import Feature
from .closed import closed_kind
from .config import JuryConfig
from .jury import Deliberated, deliberate
from .opinions import Opinion
from .stances import wanted_entailment


class EdgeJury:
    """A jury with anonymous cross-review, a chair, and labels of how far the jurors agree (see `jury`).

    Model calls for n jurors: n opinions, n reviews and 1 for the chair, in three batches one after the other; n alone
    where all agree on one short answer. One call more each: an opinion that states no answer, a review and a chair's
    answer that cannot be read, issues that the chair passed over, `claims=model`, `revise`; n more each with
    `distribution` and `stances=model`. Stage 4 makes no call otherwise.

    Confidence is how far the jurors agree on the answer's claims; of a closed answer, on the answer. That they agree is
    no evidence: jurors share misconceptions.

    Differs: failed calls say nothing, where the public implementation passes their error messages on; nobody reviews
    its own answer; each reader has the answers in an order and under letters of its own; reviews become ranks before
    they are added up; the chair sees no roles; labels are counted and not written; each juror has the options in an
    order of its own. `aggregate=points` is the published rule.
    """

    name: ClassVar[str] = "edgejury"
    summary: ClassVar[str] = "several models answer, review one another anonymously, and a chair makes one answer of it"
    paper: ClassVar[str] = "Kumar 2025, arXiv:2601.00850"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "jury", "chair", "judge")
    Config: ClassVar[type[JuryConfig]] = JuryConfig

    def __init__(self, config: JuryConfig) -> None:
        self.config = config

    def comparing(self, question: Question) -> str:
        """See `Strategy`: open answers alone have claims that are compared with texts."""
        config = self.config
        opens = closed_kind(question) is None
        return wanted_entailment(config, labels=opens and (config.label or config.early_exit == "always"))

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""

        def offer(opinions: Sequence[Opinion], juror: int) -> None:
            given = [opinion for opinion in opinions if opinion.ok]
            candidates = tuple(_candidate(opinion, question) for opinion in given)
            run.offer(Solution(chosen=[o.juror for o in given].index(juror), candidates=candidates))

        done = await deliberate(question, models, run, self.config, offer)
        solution = solution_of(done, question)
        for index, candidate in enumerate(solution.candidates):
            run.emit(CandidateFound(index=index, answer=candidate.answer, score=candidate.score))
        return solution


def solution_of(done: Deliberated, question: Question) -> Solution:
    """A jury's work as a solution: each opinion is a candidate, and the chair's answer is one more behind them."""
    result, final = done.result, done.final
    scores = {} if result.ranking is None else {s.juror: s.score for s in result.ranking.standings}
    given = [opinion for opinion in result.opinions if opinion.ok]
    candidates = [_candidate(opinion, question, scores.get(opinion.juror)) for opinion in given]
    chosen = next((i for i, o in enumerate(given) if o.juror == final.juror), None)
    if chosen is None and final.answer:
        tokens = 0 if final.synthesis is None else final.synthesis.tokens
        candidates.append(
            Candidate(text=final.answer, answer=_answer(final.answer, final.choice, question), tokens=tokens)
        )
        chosen = len(candidates) - 1
    elif chosen is not None and candidates[chosen].text != final.answer:  # its answer is stated in it now
        candidates[chosen] = candidates[chosen].model_copy(update={"text": final.answer})
    told = result.claims or final.vote is not None
    return Solution(
        chosen=chosen,
        candidates=tuple(candidates),
        confidence=result.confidence if told and chosen is not None else None,
        stopped="budget" if done.spent else "done",
        notes=_notes(done, question),
    )


def _candidate(opinion: Opinion, question: Question, score: float | None = None) -> Candidate:
    return Candidate(
        text=opinion.text,
        answer=_answer(opinion.text, opinion.choice, question),
        score=score,
        tokens=opinion.tokens,
    )


def _answer(text: str, choice: str | None, question: Question) -> str | None:
    if closed_kind(question) is not None:
        return choice
    found = extract(text, question)
    return None if found is None else found.value


def _notes(done: Deliberated, question: Question) -> dict[str, JsonValue]:
    """What a reader of the trace may want to know: nothing that depends on time."""
    result, final = done.result, done.final
    notes: dict[str, JsonValue] = {
        "path": result.path,
        "calls": result.calls,
        "tokens": result.tokens,
        "jurors": [_juror(opinion, done, question) for opinion in result.opinions],
        "reviews": [review.ok for review in result.reviews],
        "ranking": None if result.ranking is None else [*result.ranking.order],
        "issues": len(result.issues),
        "source": None if final.synthesis is None else final.synthesis.source,
        "overruled": final.overruled,
        "labels": {label: sum(c.label == label for c in result.claims) for label in _LABELS},
        "stages": [
            {"stage": cost.stage, "calls": cost.calls, "tokens": cost.completion_tokens, "usd": cost.cost_usd}
            for cost in result.stages
        ],
    }
    if final.vote is not None:
        notes["support"] = {**final.vote.support}
    return notes


_LABELS = ("consistent", "uncertain", "contradicted")


def _juror(opinion: Opinion, done: Deliberated, question: Question) -> JsonValue:
    """One juror in short; `place` is where its choice stood among the options that it saw, from 0."""
    place: int | None = None
    if question.choices and opinion.choice is not None:
        shown = done.seats[opinion.juror].order.to_shown(opinion.choice)
        place = next((i for i in range(len(question.choices)) if letter_of(i) == shown), None)
    return {
        "model": opinion.model,
        "role": opinion.role,
        "ok": opinion.ok,
        "choice": opinion.choice,
        "place": place,
        "tokens": opinion.tokens,
    }
