"""Ranked vote: many sampled chains rank possible answers, or a judge does; the rankings are counted.

Source: Wang et al., "Ranked Voting based Self-Consistency of Large Language Models" (Findings of ACL 2025,
arXiv:2505.10772).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ...core.concurrency import off_loop, paced
from ...core.events import StrategyNote, VoteUpdated
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ...serving.model import Feature
from ..answers.extraction import extract_answer
from ..answers.normalization import visible_text
from ..candidates import complete_sentences, text_with_calls
from ..judge import AnswerJudge
from ..prompts import requested_kind
from ..sampling import SamplingConfig, leading_solution
from ..strategy import Models, Stability
from ..tournament import hold_tournament
from .answer_classes import answer_classes
from .ballots import CountingRule, count_ballots, first_choices

_HEADING = re.compile(
    r"(?:^|(?<=[.!?:\n]))[\s*_#>-]{0,8}(?:final\s+)?rank(?:ing|ed)(?:\s+(?:of\s+)?(?:the\s+)?(?:possible\s+)?"
    r"(?:answers?|list|choices|options))?\s*[*_]{0,3}\s*:[*_]{0,3}",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(
    r"^\W{0,6}(?:so|therefore|thus|hence|finally)?\W{0,4}(?:the\s+)?(?:final\s+|best\s+)?answer\b", re.IGNORECASE
)
_FINAL = re.compile(
    r"[.;,]?\s+(?:(?:so|therefore|thus|hence)\W{1,3})?(?:the\s+)?(?:final\s+)?answer\s+is\b.*", re.IGNORECASE
)
_ITEM = re.compile(r"^\s{0,8}(?:[*_]{1,3})?(?:\(?\d{1,2}[.):](?=\s|\S)|#\d{1,2}[.):]?|[-*•])\s+(?=\S)")
_BETWEEN = re.compile(r"\s+(?:>+|≻|→|->)\s+|\s*;\s*")
_INLINE = re.compile(r"(?<=\S)\s+(?=\(?\d{1,2}[.)]\s+\S)")
_COMMA = re.compile(r"\s*,\s*")
_ASIDE = re.compile(
    r"\s*[\[(][^()\[\]]{0,60}(?:%|likely|likelihood|probab|confiden)[^()\[\]]{0,60}[\])]\s*$", re.IGNORECASE
)
_MAX_LINES = 40


class RankedVote:
    """Sample `n` chains that each rank up to `ranks` answers, and count the rankings (`ballots.count_ballots`).

    A chain without a ranking votes with its single answer, one without an answer does not vote. Answers are compared by
    mathematical equivalence. Of equal answers the one reached first wins.

    With `rankings="judge"` chains give single answers, and the judge model ranks the different ones by a tournament
    (`PivotTournament`) whose pivot is the majority's; a chain's ballot is its own answer and then the others in that
    order. So the judge decides to whom the votes of an answer go that does not win.

    Model calls: 1 for all samples (more under a token budget); with `rankings="judge"` up to 4 for each different
    answer.

    Confidence is the winner's score as a share of what it would be if every chain, those without an answer included,
    had it first.

    Differs: the paper shows examples of ranked answers, this requests them by instruction. A chain still ends with a
    single answer, so that one that ranks nothing has a vote. See `ballots` for the counting.
    """

    name: ClassVar[str] = "ranked-vote"
    summary: ClassVar[str] = "many sampled chains that rank several answers; the rankings are counted"
    paper: ClassVar[str] = "Wang et al. 2025, arXiv:2505.10772"
    confidence: ClassVar[str] = "The answer's score as a share of what it would be if every chain ranked it first."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "judge")

    class Config(SamplingConfig):
        """Parameters of `ranked-vote`."""

        rankings: Annotated[
            Literal["chains", "judge"],
            Field(description="who ranks answers: each chain, or the judge model by comparisons in both orders"),
        ] = "chains"

        rule: Annotated[
            CountingRule, Field(description="borda (points by rank), irv (instant runoff), mrr (mean reciprocal rank)")
        ] = "borda"
        ranks: Annotated[int, Field(ge=1, le=20, description="maximum answers on the ballot of a chain")] = 3
        instruction: Annotated[
            str | None, Field(description="text after the question; by default it requests a ranking")
        ] = None

        def default_instruction(self, question: Question) -> str:
            if self.rankings == "judge":
                return super().default_instruction(question)
            return ranking_instruction(question, self.ranks)

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        samples = await config.sample(question, models, run)
        if not samples.candidates:
            return Solution(chosen=None, stopped=samples.stopped)
        if config.rankings == "judge":
            judge = AnswerJudge(models.judge, question, run)
            rankings = await judged_rankings(samples.candidates, question, judge, run, config.ranks)
        else:
            judge = None
            rankings = [parse_ranking(c, question, config.ranks) async for c in paced(samples.candidates)]
        candidates = [
            candidate if not ranking else candidate.model_copy(update={"answer": ranking[0]})
            for candidate, ranking in zip(samples.candidates, rankings, strict=True)
        ]
        run.set_best(leading_solution(candidates))
        named = [answer for ranking in rankings for answer in ranking]
        classes = await answer_classes(named, question, run)
        class_of = {i: k for k, members in enumerate(classes) for i in members}
        ballots, at = [], 0
        for ranking in rankings:
            ballots.append(list(dict.fromkeys(class_of[at + rank] for rank in range(len(ranking)))))
            at += len(ranking)
        voting = [ballot for ballot in ballots if ballot]
        if not voting:
            return Solution(chosen=0, candidates=tuple(candidates), confidence=0.0, stopped=samples.stopped)
        election = await off_loop(partial(count_ballots, voting, config.rule), is_long=len(voting) > 500)
        answers = {k: named[members[0]] for k, members in enumerate(classes)}
        firsts = first_choices(voting)
        run.emit(VoteUpdated(votes={answers[k]: count for k, count in firsts.items()}, total=len(candidates)))
        notes: dict[str, JsonValue] = {
            "rule": config.rule,
            "scores": {answers[k]: float(score) for k, score in election.scores.items()},
            "first_choices": {answers[k]: count for k, count in firsts.items()},
            "ranked": sum(len(ballot) > 1 for ballot in voting),
            **({} if judge is None else judge.notes()),
        }
        run.emit(StrategyNote(strategy=run.config.strategy, name="rankings.counted", data=notes))
        rank, chosen = min((b.index(election.winner), i) for i, b in enumerate(ballots) if election.winner in b)
        if rank > 0:  # no chain has it first: the one that ranks it best represents it
            candidates[chosen] = candidates[chosen].model_copy(update={"answer": answers[election.winner]})
        share = {k: float(score / election.max_score) for k, score in election.scores.items()}
        return Solution(
            chosen=chosen,
            candidates=tuple(
                candidate
                if not ballot
                else candidate.model_copy(update={"score": share[election.winner if i == chosen else ballot[0]]})
                for i, (candidate, ballot) in enumerate(zip(candidates, ballots, strict=True))
            ),
            confidence=float(election.share) * len(voting) / len(candidates),
            stopped=samples.stopped if judge is None or judge.stopped == "done" else judge.stopped,
            notes=notes,
        )


async def judged_rankings(
    candidates: Sequence[Candidate], question: Question, judge: AnswerJudge, run: Run, max_answers: int
) -> list[list[str]]:
    """For each candidate its own answer, and then the others by a judge's tournament; empty without an answer.

    Answers that were not compared, since the budget ended or the judge could not be read, are on no other's ballot.
    """
    classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
    if not classes:
        return [[] for _ in candidates]
    classes = sorted(classes, key=lambda members: -len(members))
    tournament = await hold_tournament(judge, [text_with_calls(candidates[members[0]]) for members in classes])
    order = [number async for number in paced(tournament.ranking) if tournament.win(number) is not None]
    answers = [str(candidates[members[0]].answer) for members in classes]
    rankings: list[list[str]] = [[] for _ in candidates]
    for number, members in enumerate(classes):
        others = [answers[other] for other in order if other != number]
        for i in members:
            rankings[i] = [str(candidates[i].answer), *others][:max_answers]
    return rankings


def ranking_instruction(question: Question, ranks: int) -> str:
    """The instruction that requests a chain, a ranking and a single answer."""
    kind = requested_kind(question)
    each = {
        "choice": "the letters of the choices",
        "number": "the numbers",
        "math": "each within \\boxed{}",
        "yes_no": "yes and no",
    }.get(kind, "each in a few words")
    form = {
        "choice": '"The answer is" and the letter of the first one.',
        "math": "the first one within \\boxed{}.",
    }.get(kind, '"The answer is" and the first one.')
    return (
        f'Let\'s work this out step by step. Then write "Ranking:" and below it up to {ranks} different answers that '
        f"you think possible, {each}, one a line and numbered from 1, the most likely first. End with {form}"
    )


def parse_ranking(candidate: Candidate, question: Question, max_answers: int) -> list[str]:
    """The answers that a chain ranks, the best first; its single answer if it ranks none.

    The last heading of a ranking counts. Below it each line is an answer, until a line states the final answer or no
    line is an item any more; on one line, answers are separated by ">", ";" or, if they are letters, commas.

    Args:
        candidate: The chain.
        max_answers: Maximum number of answers.
    """
    text = candidate.text if candidate.finish_reason == "stop" else complete_sentences(candidate.text)
    body = visible_text(text).text
    headings = list(_HEADING.finditer(body))
    items = _items(body[headings[-1].end() :], question) if headings else []
    answers: list[str] = []
    for item in items:
        answer = extract_answer(f"The answer is {_ASIDE.sub('', item)}", question)
        if answer is not None and answer.value not in answers:
            answers.append(answer.value)
    return answers[:max_answers] or ([] if candidate.answer is None else [candidate.answer])


def _items(below: str, question: Question) -> Sequence[str]:
    """The items of a ranking, from the text after its heading."""
    first, *rest = (_FINAL.sub("", line) for line in below.split("\n")[:_MAX_LINES])
    if first.strip() and not _ITEM.match(first):
        parts = _BETWEEN.split(first.strip())
        if len(parts) == 1 and question.choices:
            parts = _COMMA.split(first.strip())
        return [part.strip(" .") for part in parts if part.strip(" .")]
    items: list[str] = []
    lines = [piece for text in (first, *rest) for piece in (_INLINE.split(text) if _ITEM.match(text) else [text])]
    for line in lines:
        if not line.strip():
            if items:
                break
            continue
        if _END.match(line):
            break
        marked = _ITEM.match(line)
        if marked is None and items:
            break
        items.append(line[marked.end() :].strip() if marked else line.strip())
    return items
