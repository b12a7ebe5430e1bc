"""Best of n: sample many chains, score each, take the best; or let the scores be the weights of a vote.

Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021, arXiv:2110.14168), section 4, for the
best; Li et al., "Making Language Models Better Reasoners with Step-Aware Verifier" (ACL 2023, arXiv:2206.02336) for the
vote; Liu et al., "G-Eval" (EMNLP 2023, arXiv:2303.16634), section 2, for the judge's ratings, whose prompt is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, JsonValue

from ..core.concurrency import paced
from ..core.errors import BackendError, BudgetExceeded
from ..core.events import StrategyNote
from ..core.messages import Frozen, Prompt
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Step, Stopped
from ..serving.metered.model import MeteredModel
from ..serving.metered.scorers import MeteredReward
from ..serving.model import Feature
from ..serving.profiles.profile import quick_sampling
from ..serving.rewards.model import Aggregation, StepSelection, as_one_step, score_solutions
from ..serving.verdict_distribution import VERDICT_TOKENS, VerdictDistribution, has_verdict_distribution, read_verdicts
from .anonymity import MATERIAL_NOTICE, make_blinding, show_answers
from .answers.calls import ineligible, settle_calls, with_quorum
from .answers.equivalence import answer_classes
from .answers.extraction import find_code, finished_or_all, text_with_calls
from .answers.normalization import visible_text
from .code_tests import question_tests
from .prompts import fit_prompt, question_prompt, question_text
from .sampling import SampleSet, SamplingConfig
from .self_evaluation import EvaluationConfig, SelfEvaluator
from .step_rewards import exceeded_by_reward, num_affordable, was_over_budget
from .strategy import MAX_WEIGHT, RESOURCES, Models, Stability
from .voting.self_consistency import majority_answer

ScoreSource = Literal["auto", "reward", "self-evaluation", "logprob", "judge", "tests"]


class BestOfN:
    """Sample `n` chains and score each.

    `score` names the source: a reward model over each chain's steps, the model's own evaluation of the chain
    (`SelfEvaluator`), or the mean log-probability of its tokens without those of a thought; "auto" is a reward model if
    there is one, else the model's own evaluation. "judge" is the mean mark that the judge model gives a chain, under
    the probabilities of its marks (`AnswerJudge`). "tests" is the share of the question's tests (`question_tests`) that
    a chain's Python code passes in a sandbox. With `select="best"` the chain of the highest score wins, of equals the
    first; with "weighted" the class of equal answers with the largest sum of scores, in it the chain of the highest
    score.

    A reward model's scores of a chain's steps become one by `aggregate`; "auto" is their mean if one pass of a process
    reward model scores all of them, else the last one (see `default_aggregation`).

    A chain that cannot be scored does not affect the others: it ranks last, and the answer reports it. If fewer than
    half can be scored, the answer of the majority is taken: a wrong one may be the only one with a score.

    Model calls: 1 for the samples (more under a token budget), and 2 for each distinct chain and 2 more for the model's
    own evaluation; with "judge" 1 for each distinct chain. A reward model takes a pass for each distinct chain, or one
    for each of its steps.

    Confidence is the score of the best as a probability, or the winning class's share of the sum of all scores. It is
    as calibrated as the scorer is.

    Differs: the papers train verifiers; here any reward model scores, or a judge, and without one the model itself.
    """

    name: ClassVar[str] = "best-of-n"
    summary: ClassVar[str] = "sample many chains and keep the one that scores highest"
    paper: ClassVar[str] = "Cobbe et al. 2021, arXiv:2110.14168"
    confidence: ClassVar[str] = (
        "The highest score, as a probability; with select=weighted, the answer's share of all scores."
    )
    family: ClassVar[str] = "votes"
    when_to_use: ClassVar[str] = "You have a reward model, a judge, or tests of the code (score=tests)."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "judge", "reward")
    supports_tools: ClassVar[bool] = True

    class Config(SamplingConfig):
        """Parameters of `best-of-n`."""

        score: Annotated[
            ScoreSource,
            Field(
                description="source of scores: auto, reward, self-evaluation, logprob, judge (the judge model's "
                "ratings), or tests of Python code"
            ),
        ] = "auto"
        aggregate: Annotated[
            Literal["auto"] | Aggregation,
            Field(description="aggregation of a reward model's step scores: auto, or last, min, prod, mean, model"),
        ] = "auto"
        select: Annotated[
            Literal["best", "weighted"], Field(description="the best chain, or the answer with the largest score sum")
        ] = "best"
        alpha: Annotated[
            float,
            Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="self-evaluation is sigmoid(alpha + beta v); fitted or 0"),
        ] = 0.0
        beta: Annotated[float, Field(gt=0, le=MAX_WEIGHT, description="its slope; fitted or 1")] = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        Raises:
            UserError: The parameters name the reward model, and there is none.
            SandboxUnavailable: Code is to be tested, and cannot be run in isolation here.
        """
        config = self.config
        source = config.score
        if source == "auto":
            source = "reward" if models.has("reward") else "self-evaluation"
        if source == "reward":
            models.reward  # noqa: B018 (raises before anything is spent)
        if source == "tests" and run.recording:  # a replay runs nothing
            await RESOURCES.load("code_tests").require_sandbox()
        samples = await config.sample(question, models, run, logprobs=source == "logprob")
        if not samples.candidates:
            return Solution(chosen=None, stopped=samples.stopped)
        scored = await self._score(source, samples.candidates, question, models, run)
        return await self._choose(source, samples, scored, question, run)

    async def _score(
        self, source: ScoreSource, candidates: Sequence[Candidate], question: Question, models: Models, run: Run
    ) -> CandidateScores:
        config = self.config
        if source == "reward":
            aggregate = default_aggregation(models.reward) if config.aggregate == "auto" else config.aggregate
            return await score_by_reward(candidates, question, models.reward, aggregate, run)
        if source == "logprob":
            return score_by_logprob(candidates)
        if source == "tests":
            return await score_by_tests(candidates, question, run)
        if source == "judge":
            return await score_by_ratings(candidates, AnswerJudge(models.judge, question, run))
        evaluation = EvaluationConfig(alpha=config.alpha, beta=config.beta, system=config.system)
        return await score_by_self_evaluation(candidates, question, models.main, evaluation, run)

    async def _choose(
        self, source: ScoreSource, samples: SampleSet, scored: CandidateScores, question: Question, run: Run
    ) -> Solution:
        stopped: Stopped = "budget" if "budget" in (samples.stopped, scored.stopped) else "done"
        scores = scored.scores
        candidates = scored.apply_to(samples.candidates)
        num_unscored = sum(score is None for score in scores)
        has_calls = any(candidate.tool_calls for candidate in candidates)
        classes: list[list[int]] = []
        if self.config.select == "weighted" or has_calls:
            classes = await answer_classes([candidate.answer for candidate in candidates], question, run)
        shares = [len(own) / len(candidates) for own in classes]
        notes: dict[str, JsonValue] = {"score": source, "unscored": num_unscored, **scored.notes}
        is_vote = 2 * num_unscored > len(candidates)
        if is_vote:
            scored_text = f"only {len(candidates) - num_unscored} of {len(candidates)} samples could be scored"
            scored_text = scored_text if num_unscored < len(candidates) else "no sample could be scored"
            run.degrade(f"{scored_text}; the answer of the majority was taken")
            chosen, confidence = await majority_answer(candidates, question, run) or (0, 0.0)
        else:
            if num_unscored:
                run.degrade(f"{num_unscored} of {len(candidates)} samples could not be scored and ranked last")
            refused = set(ineligible(classes, candidates, question))
            finished = finished_or_all(candidates)
            chosen = highest_scored(scores, [i for i in finished if i not in refused] or finished)
            best = scores[chosen]
            confidence = best.value if best is not None else 0.0
            if self.config.select == "weighted":
                weights = [math.fsum(s.value for i in c if (s := scores[i]) is not None) for c in classes]
                total = math.fsum(s.value for s in scores if s is not None)
                if classes and total > 0:
                    shares = [min(1.0, weight / total) for weight in weights]
                    heaviest = max(range(len(classes)), key=weights.__getitem__)
                    chosen = highest_scored(scores, classes[heaviest])
                    confidence = shares[heaviest]
                    notes["weights"] = {str(candidates[c[0]].answer): w for c, w in zip(classes, weights, strict=True)}
        run.emit(StrategyNote(strategy=run.config.strategy, name="samples.scored", data=notes))
        solution = Solution(chosen=chosen, candidates=candidates, confidence=confidence, stopped=stopped, notes=notes)
        if has_calls and (self.config.select == "weighted" or is_vote):
            return settle_calls(solution, classes, shares, question)
        return with_quorum(solution, classes, question)


class CandidateScore(Frozen):
    """A candidate's score.

    Attributes:
        key: Sort key, finer than `value` where that rounds to 0 or 1; the range is the scorer's.
        value: A probability, in [0, 1].
        steps: Probability of each step, if every step was scored.
    """

    key: float
    value: float
    steps: tuple[float, ...] = ()


@dataclass(frozen=True)
class CandidateScores:
    """The scores of candidates. If the budget does not cover all of them, the first ones are scored.

    Attributes:
        scores: A score for each candidate, in order; None for one that has none.
        stopped: "budget" if the budget did not cover all of them.
        notes: What the scorer reports besides.
    """

    scores: list[CandidateScore | None]
    stopped: Stopped = "done"
    notes: Mapping[str, JsonValue] = field(default_factory=dict)

    def apply_to(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The candidates with their scores, and their steps with those of a reward model."""
        return tuple(
            candidate if score is None else _with_score(candidate, score)
            for candidate, score in zip(candidates, self.scores, strict=True)
        )


def default_aggregation(reward: MeteredReward) -> Aggregation:
    """The mean of the step scores of a process reward model that scores all steps in one pass, else the last score.

    Where each step is scored by itself, the last score misses an error before it; where a score is the chance of a
    right end, no difference is shown; and unlike the product the mean doesn't prefer solutions with a step missing
    (docs/results/details/recorded_step_rewards.md). The score of an outcome model is already that of the complete
    chain, and a judge takes a pass for each step.
    """
    capabilities = reward.capabilities
    return "mean" if capabilities.kind == "process" and capabilities.one_pass else "last"


async def score_by_reward(
    candidates: Sequence[Candidate], question: Question, reward: MeteredReward, aggregate: Aggregation, run: Run
) -> CandidateScores:
    """Score by a reward model: one number over the steps of each candidate (see `Aggregation`); equal ones once."""
    problem = question_text(question)
    steps = [tuple(text for step in candidate.steps if (text := step.text.strip())) for candidate in candidates]
    solutions = list(dict.fromkeys(texts for texts in steps if texts))
    if not solutions:
        return CandidateScores([None] * len(candidates))
    which: StepSelection = "last" if aggregate in ("last", "model") else "all"
    sent = [(as_one_step(texts),) for texts in solutions] if aggregate == "model" else solutions
    count = num_affordable(reward, problem, sent, which, run)
    try:
        results = await score_solutions(reward, problem, solutions[:count], aggregate)
    except BudgetExceeded as e:
        run.record_limit(e)
        return CandidateScores([None] * len(candidates), "budget")
    by_steps: dict[tuple[str, ...], CandidateScore] = {}
    for texts, result in zip(solutions, results, strict=False):
        if result.ok:
            step_scores = result.probabilities if which == "all" else ()
            by_steps[texts] = CandidateScore(
                key=result.log_value(aggregate), value=result.value(aggregate), steps=step_scores
            )
    scores = [by_steps.get(texts) for texts in steps]
    if len(results) < len(solutions) or any(map(was_over_budget, results)):
        run.record_limit(exceeded_by_reward(run))
        return CandidateScores(scores, "budget")
    return CandidateScores(scores)


async def score_by_self_evaluation(
    candidates: Sequence[Candidate], question: Question, model: MeteredModel, config: EvaluationConfig, run: Run
) -> CandidateScores:
    """Score by the model's evaluation of each candidate (see `SelfEvaluator`); sorted by `alpha + beta v`."""
    texts = list(dict.fromkeys(text_with_calls(candidate) for candidate in candidates))
    left = run.ledger.remaining("calls")
    prior_pairs = 1 if has_verdict_distribution(model) else 0  # a pair of requests about the empty response
    count = len(texts) if left == math.inf else max(1, min(len(texts), int(left) // 2 - prior_pairs))
    try:
        evaluations = await SelfEvaluator(model, question, run, config).evaluate(texts[:count])
    except BudgetExceeded as e:
        run.record_limit(e)
        return CandidateScores([None] * len(candidates), "budget")
    by_text = dict(zip(texts, evaluations, strict=False))
    scores: list[CandidateScore | None] = []
    for candidate in candidates:
        evaluation = by_text.get(text_with_calls(candidate))
        if evaluation is None:
            scores.append(None)
        else:
            scores.append(CandidateScore(key=config.alpha + config.beta * evaluation.v, value=evaluation.q))
    if count < len(texts):
        run.record_limit(run.ledger.exceeded("calls"))
        return CandidateScores(scores, "budget")
    return CandidateScores(scores)


async def score_by_ratings(candidates: Sequence[Candidate], judge: AnswerJudge) -> CandidateScores:
    """Score by a judge's mean mark of each candidate; equal ones once."""
    texts = [text_with_calls(candidate) for candidate in candidates]
    distinct = list(dict.fromkeys(texts))
    by_text = dict(zip(distinct, await judge.rate(distinct), strict=True))
    scores = [
        None if (rating := by_text[text]) is None else CandidateScore(key=rating.value, value=rating.value)
        for text in texts
    ]
    rated = [rating for rating in by_text.values() if rating is not None]
    notes: dict[str, JsonValue] = {
        "off_scale": max((rating.off_scale for rating in rated), default=0.0),
        "standard_error": max((rating.standard_error for rating in rated), default=0.0),
    }
    return CandidateScores(scores, judge.stopped, notes)


def score_by_logprob(candidates: Sequence[Candidate]) -> CandidateScores:
    """Score by the mean log-probability of the tokens of a candidate's text, in nats.

    As a probability, it is that of a typical token.
    """
    means = [mean_logprob(candidate) for candidate in candidates]
    return CandidateScores([None if m is None else CandidateScore(key=m, value=min(1.0, math.exp(m))) for m in means])


async def score_by_tests(candidates: Sequence[Candidate], question: Question, run: Run) -> CandidateScores:
    """Score by the share of the question's tests that a candidate's code passes; without code it is 0.

    Without tests nothing is scored.
    """
    tests = question_tests(question)
    if not tests:
        run.degrade("the question has no tests, and no examples (>>>) in its text")
        return CandidateScores([None] * len(candidates))
    sources = [test.code for test in tests]
    spans = [find_code(candidate.text, sources) for candidate in candidates]
    codes = [c.text[slice(*span)] for c, span in zip(candidates, spans, strict=True) if span is not None]
    try:
        results = iter(await RESOURCES.load("code_tests").run_answer_tests(codes, question, tests, run))
    except BudgetExceeded as e:
        run.record_limit(e)
        return CandidateScores([None] * len(candidates), "budget")
    shares = [0.0 if span is None else sum(r.passed for r in next(results)) / len(tests) for span in spans]
    return CandidateScores([CandidateScore(key=share, value=share) for share in shares], notes={"tests": len(tests)})


def mean_logprob(candidate: Candidate) -> float | None:
    """Mean log-probability of the tokens of a candidate's text, in nats, without its thought; None if unknown."""
    tokens = candidate.tokens - candidate.thinking_tokens
    return None if candidate.logprob is None or tokens <= 0 else candidate.logprob / tokens


def highest_scored(scores: Sequence[CandidateScore | None], among: Sequence[int]) -> int:
    """Position of the highest score, of equals the first; of positions without any score the first."""
    return max(among, key=lambda i: (s.key if (s := scores[i]) is not None else -math.inf, -i))


def _with_score(candidate: Candidate, score: CandidateScore) -> Candidate:
    changes: dict[str, object] = {"score": score.value}
    if score.steps and len(score.steps) == len(candidate.steps):
        changes["steps"] = tuple(
            Step(text=step.text, model=step.model, scores={**step.scores, "reward": p})
            for step, p in zip(candidate.steps, score.steps, strict=True)
        )
    return candidate.model_copy(update=changes)


MARKS: Final = tuple("123456789")
"""Marks of a rating, each one token of any tokenizer."""
MARK_VALUES: Final = tuple((int(mark) - 1) / 8 for mark in MARKS)
"""Their values, from 0 to 1."""
NO_ANSWER: Final = "(no answer)"
_RETRY_THINKING_TOKENS: Final = 8192
"""Room of a judge's thought where a shorter one was cut before its verdict."""


class Rating(Frozen):
    """A rating of one answer.

    Attributes:
        value: Mean mark, from 0 (the lowest) to 1.
        standard_error: Its standard error; 0 where the distribution was read.
        off_scale: Probability that the verdict is no mark.
    """

    value: float
    standard_error: float
    off_scale: float


class AnswerJudge:
    """Rates answers to one question, by the mean of the marks 1 to 9 under their probabilities.

    Answers are quoted as data and anonymous.

    Model calls: 1 for each rating, all of one method's call in one batch. They are quick calls; see `read_verdicts`. A
    judge that has to think rates answers without a verdict once more, with more room.

    Args:
        model: The judge; preferably not the model that wrote the answers.

    Attributes:
        stopped: "budget" once the budget did not cover all that was requested.
    """

    def __init__(self, model: MeteredModel, question: Question, run: Run) -> None:
        self.stopped: Stopped = "done"
        self._model, self._question, self._run = model, question, run

    async def rate(self, answers: Sequence[str]) -> list[Rating | None]:
        """Rate answers; None for one without a readable verdict, or beyond the budget.

        Raises:
            BackendError: Every request failed.
        """
        left = self._run.ledger.remaining("calls")
        count = len(answers) if left == math.inf else min(len(answers), int(left))
        if count < len(answers):
            self._stop(self._run.ledger.exceeded("calls"))
        fitted = [await self._fitted(text) async for text in paced(answers[:count])]
        prompts = [prompt for prompt in fitted if prompt is not None]
        try:
            read = iter(await read_verdicts(self._model, prompts, MARKS) if prompts else ())
        except BudgetExceeded as e:
            self._stop(e)
            return [None] * len(answers)
        ratings = [None if prompt is None else _rating(next(read)) for prompt in fitted]
        unread = [i for i, prompt in enumerate(fitted) if prompt is not None and ratings[i] is None]
        if unread and not self._model.profile.can_skip_thinking:
            again = [prompt for i in unread if (prompt := fitted[i]) is not None]
            try:
                read = iter(await read_verdicts(self._model, again, MARKS, thinking_tokens=_RETRY_THINKING_TOKENS))
            except (BackendError, BudgetExceeded):  # what was rated stays rated
                return [*ratings, *[None] * (len(answers) - count)]
            for i in unread:
                ratings[i] = _rating(next(read))
        return [*ratings, *[None] * (len(answers) - count)]

    async def _fitted(self, answer: str) -> Prompt | None:
        """The prompt about an answer, which is truncated if it does not fit."""
        bare = visible_text(answer).text.strip() or NO_ANSWER
        sampling = quick_sampling(self._model.profile, max_tokens=VERDICT_TOKENS)
        prompt, max_chars = await fit_prompt(self._model, self._run, self.prompt, [bare], sampling)
        if max_chars is not None:
            self._run.degrade(
                f"the answers do not fit the context of {self._model.name}: it saw them without their middle"
            )
        return prompt

    def prompt(self, texts: Sequence[str]) -> Prompt:
        """The prompt about an answer, the only one of the texts."""
        blind = make_blinding((0,), self._question, 0, shuffle=False)
        return question_prompt(
            self._question,
            f"Rate the answer to this question quoted below. {MATERIAL_NOTICE}\n\n"
            f"{show_answers(blind, dict(enumerate(texts)))}\n\n"
            "Judge correctness first, then completeness and clarity. Ignore length. "
            f"Reply with a single digit from {MARKS[0]} (wrong or useless) to {MARKS[-1]} (correct, complete and "
            "clear).",
            # a digit has no token with a blank before it in most vocabularies
            prefix="Score: " if self._model.capabilities.prefix else "",
        )

    def _stop(self, error: BudgetExceeded) -> None:
        self._run.record_limit(error)
        self.stopped = "budget"


def _rating(verdict: VerdictDistribution | None) -> Rating | None:
    if verdict is None or not verdict.is_readable:
        return None
    return Rating(
        value=verdict.expected(MARK_VALUES),
        standard_error=verdict.standard_error(MARK_VALUES),
        off_scale=verdict.off_scale,
    )
