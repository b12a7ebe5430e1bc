"""`StepReward`: what a search over steps scores with, whatever it is; and what all of them have in common.

| source | a prefix's score |
| --- | --- |
| `process_rewards.ByRewardModel` | what a reward model gives its steps: trained on steps, on outcomes, or a judge |
| `exact_rewards.ByArithmetic` | the share of its calculations that are right |
| `outcome_rewards.ByRollouts` | how often it leads to the answer that most rollouts reach, or a scorer of replies |
| `likelihood_rewards.ByLogprob` | the mean probability of its tokens: how sure the model is, not how right it is |

Scores of prefixes by a reward model.

Scores of prefixes by what becomes of them: they are finished some times over.

Source: the idea of scoring a step by rollouts is that of Wang et al., "Math-Shepherd" (ACL 2024, arXiv:2312.08935),
section 3.3. Differs: there the right answer is known; here the answer that most rollouts reach stands for it, or a
given scorer judges each finished reply.

Scores of prefixes by how likely the model found its own words: the fallback where nothing else can score.

Scores of prefixes by an exact verifier: the arithmetic that they do.

What a search over steps scores with: which sources a strategy's parameters name, and several of them as one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, get_args

from pydantic import Field, JsonValue, field_validator

from ..core.answer import Candidate
from ..core.errors import CapabilityMissing, LimitExceeded, UserError
from ..core.events import StrategyNote
from ..core.messages import Prompt
from ..core.question import Question
from ..core.run import Run
from ..serving.metered_rewards import MeteredReward
from ..serving.rewards import Aggregation, StepScores, Which, as_one_step, count_passes
from .answers.equivalence import Equivalence
from .arithmetic import check_arithmetic
from .continuations import Finisher, Prefix
from .strategy import Models, Parameters
from .voting.answer_classes import AnswerLabels


class StepReward(Protocol):
    """Scores the beginnings of solutions."""

    @property
    def name(self) -> str:
        """What scores, as it stands in the record of a run."""

    @property
    def spent(self) -> bool:
        """Whether a budget has kept something from being scored."""

    @property
    def passes(self) -> int:
        """Prefixes scored anew so far; what a source has remembered is not scored again."""

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """Score the beginnings of solutions to one problem, as one batch.

        Args:
            problem: The problem's text.
            prefixes: Each the texts of its steps, in order; a `Prefix` also says how they were generated.
            aggregate: How the values of steps become one.

        Returns:
            A score in [0, 1] for each prefix, in order; None for one that could not be scored, for one without steps,
            and for those that the budget did not cover.

        Raises:
            BackendError: Nothing could be scored at all.
        """


Known = tuple[str, Hashable, Aggregation]
"""Problem, what is scored, and aggregation."""


class Remembering(ABC):
    """A source that scores nothing twice within its run, and says in the trace what scored how many.

    Args:
        name: What scores.
        run: The run.
    """

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self.spent = False
        self.passes = 0
        self._run = run
        self._known: dict[Known, float | None] = {}

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """See `StepReward.score`."""
        keys: list[Known] = [(problem, self._same(prefix), aggregate) for prefix in prefixes]
        fresh: dict[Known, Sequence[str]] = {}
        for key, prefix in zip(keys, prefixes, strict=True):
            if key not in self._known and any(step.strip() for step in prefix):
                fresh.setdefault(key, prefix)
        if fresh:
            made = await self._score(problem, list(fresh.values()), aggregate)
            scored = list(fresh)
            self._known.update({scored[i]: value for i, value in made.items()})
        scores = [self._known.get(key) for key in keys]
        data: dict[str, JsonValue] = {
            "by": self.name,
            "aggregate": aggregate,
            "prefixes": len(prefixes),
            "fresh": len(fresh),
            "unscored": sum(score is None for score in scores),
            "scores": list(scores),
        }
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="prefixes.scored", data=data))
        return scores

    def _same(self, prefix: Sequence[str]) -> Hashable:
        """What makes two prefixes one: by default their texts, and whether they are whole replies."""
        return tuple(prefix), isinstance(prefix, Prefix) and prefix.terminal

    @abstractmethod
    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        """Score prefixes that are all different and have steps.

        Returns:
            By position the score, None for one that cannot be scored; those that the budget did not cover are left out
            and may be asked for again.
        """


def aggregated(values: Sequence[float], aggregate: Aggregation) -> float:
    """The values of steps as one; "model" is that of the whole, which is all there is then.

    Args:
        values: In [0, 1], at least one.
        aggregate: How.

    Raises:
        UserError: There is no value, or no such aggregation.
    """
    if not values:
        raise UserError("no step has a value that could be aggregated")
    match aggregate:
        case "last" | "model":
            return values[-1]
        case "min":
            return min(values)
        case "prod":
            return math.prod(values)
        case "mean":
            return math.fsum(values) / len(values)
        case _:
            raise UserError(f"no aggregation of step scores is called {aggregate!r}")


Steps = tuple[str, ...]


class ByRewardModel(Remembering):
    """A reward model's opinion of the steps: trained on steps or outcomes, or a judge.

    A model that takes a pass for each step is asked about the last step of each prefix alone, and what an aggregation
    needs of the steps before is what it said of those prefixes; so every prefix takes one pass, whatever the
    aggregation. Where the budget does not cover all, the first ones are scored.

    Args:
        reward: The reward model.
        run: The run that pays.
        asked: The problem as it was put to the model that wrote the steps. A judge is told it so, for then it reads
            what that model has in its cache.
    """

    def __init__(self, reward: MeteredReward, run: Run, asked: str | None = None) -> None:
        super().__init__(f"{reward.capabilities.kind} reward model {reward.name}", run)
        self._reward = reward
        self._asked = asked if reward.capabilities.kind == "judge" else None
        self._told: dict[tuple[str, Steps], float | None] = {}
        """Log-odds of the last step of a prefix; None where it could not be had."""

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        problem = problem if self._asked is None else self._asked
        cleaned = [tuple(text for step in prefix if (text := step.strip())) for prefix in prefixes]
        if aggregate == "model":
            made = await self._made(problem, [(as_one_step(steps),) for steps in cleaned], "last")
        elif self._reward.capabilities.one_pass and aggregate != "last":
            made = await self._made(problem, cleaned, "all")
        else:
            return await self._by_last_steps(problem, cleaned, aggregate)
        return {
            i: scores.value(aggregate) if scores.ok else None for i, scores in enumerate(made) if scores is not None
        }

    async def _by_last_steps(
        self, problem: str, prefixes: Sequence[Steps], aggregate: Aggregation
    ) -> dict[int, float | None]:
        def parts(steps: Steps) -> list[Steps]:
            return [steps] if aggregate == "last" else [steps[:end] for end in range(1, len(steps) + 1)]

        wanted = list(dict.fromkeys(p for steps in prefixes for p in parts(steps) if (problem, p) not in self._told))
        for part, scores in zip(wanted, await self._made(problem, wanted, "last"), strict=True):
            if scores is not None:
                self._told[problem, part] = scores.log_odds[-1] if scores.ok else None
        found: dict[int, float | None] = {}
        for i, steps in enumerate(prefixes):
            needed = [(problem, part) for part in parts(steps)]
            if all(key in self._told for key in needed):
                odds = [self._told[key] for key in needed]
                known = tuple(x for x in odds if x is not None)
                found[i] = StepScores(log_odds=known).value(aggregate) if len(known) == len(odds) else None
        return found

    async def _made(self, problem: str, solutions: Sequence[Steps], which: Which) -> list[StepScores | None]:
        """Scores of solutions; None for those that the budget does not cover."""
        if not solutions:
            return []
        one_pass, ledger = self._reward.capabilities.one_pass, self._run.ledger

        def too_dear(count: int) -> bool:
            passes = count_passes(one_pass, solutions[:count], which)
            limited = self._run.config.budget.usd is not None
            usd = self._reward.most_usd(problem, solutions[:count], which) if limited else 0.0
            return passes > ledger.left("reward_calls") or usd > ledger.left("usd")

        # the most that fit: both amounts grow with the count
        count = bisect_right(range(1, len(solutions) + 1), False, key=too_dear)
        try:
            told = await self._reward.score_steps(problem, solutions[: max(1, count)], which)
        except LimitExceeded as e:
            self._run.note_limit(e)
            self.spent = True
            return [None] * len(solutions)
        paid = [None if _unpaid(scores) else scores for scores in told]
        self.passes += sum(scores.passes for scores in paid if scores is not None and scores.ok)
        if len(told) < len(solutions) or None in paid:
            self._run.note_limit(ledger.refuse("reward_calls" if self._run.config.budget.usd is None else "usd"))
            self.spent = True
        return [*paid, *([None] * (len(solutions) - len(told)))]


def _unpaid(scores: StepScores) -> bool:
    """Whether a replay tells that the recorded run could not pay for this one."""
    return scores.failure is not None and scores.failure.code == LimitExceeded.code


Scorer = Callable[[Candidate], float]
"""Judges a finished reply: a number in [0, 1]."""


class ByRollouts(Remembering):
    """The share of a prefix's rollouts that reach the answer of the majority.

    The majority is that of all rollouts of the run so far, those of this call included; of equals, the answer reached
    first. A rollout without an answer agrees with nobody. A prefix that has ended is its own only rollout. What is once
    scored keeps its score, though the majority may move. The aggregation means nothing here, since a prefix has one
    value.

    Args:
        finisher: Finishes prefixes.
        question: What is answered.
        run: The run that pays.
        times: Rollouts of each prefix.
        scorer: Judges each finished reply in place of the majority; a prefix's score is then the mean.
        delimiter: Between the steps of a prefix that is given as texts alone.
    """

    def __init__(
        self,
        finisher: Finisher,
        question: Question,
        run: Run,
        *,
        times: int = 4,
        scorer: Scorer | None = None,
        delimiter: str = "\n\n",
    ) -> None:
        by = "agreement with the majority of" if scorer is None else "a scorer of"
        super().__init__(f"{by} rollouts, {times} each", run)
        self._finisher, self._times, self._scorer, self._delimiter = finisher, times, scorer, delimiter
        self._labels = AnswerLabels(question)
        self._counts: Counter[int] = Counter()
        self.tokens = 0
        """Tokens that the rollouts took."""

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        begun = [p if isinstance(p, Prefix) else Prefix.of_steps(p, self._delimiter) for p in prefixes]
        made = await self._finisher.finish(begun, self._times)
        self.tokens += made.tokens
        self.spent = self.spent or made.spent
        covered = {i: f for i, f in enumerate(made.finished) if f.candidates or not f.unasked}
        self.passes += len(covered)
        if self._scorer is not None:
            scorer = self._scorer
            judged = {i: [scorer(c) for c in f.candidates] for i, f in covered.items()}
            return {i: math.fsum(values) / len(values) if values else None for i, values in judged.items()}
        async with Equivalence() as equivalence:
            labels = {
                i: [await self._labels.label(c.answer, equivalence) for c in f.candidates] for i, f in covered.items()
            }
        self._counts.update(label for found in labels.values() for label in found if label is not None)
        most = max(sorted(self._counts), key=self._counts.__getitem__, default=None)
        return {
            i: sum(label is not None and label == most for label in found) / len(found) if found else None
            for i, found in labels.items()
        }


class ByLogprob(Remembering):
    """The exponential of a step's mean log-probability: the geometric mean of its tokens' probabilities.

    A search's h is then `1 - exp(mean logprob)`. It is a weak signal: it says how sure the model is of its words, not
    whether they are true. Only a `Prefix` whose log-probabilities are known can be scored. With aggregation "model" the
    mean is over all tokens of the prefix.

    Source: the last resort of step-level search where no reward model is to be had.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        super().__init__("mean log-probability of the model's own words", run)

    def _same(self, prefix: Sequence[str]) -> Hashable:
        """The same words may have been other tokens."""
        return (prefix.logprobs, prefix.lengths) if isinstance(prefix, Prefix) else None

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        self.passes += len(prefixes)
        return {i: _value(prefix, aggregate) for i, prefix in enumerate(prefixes)}


def _value(prefix: Sequence[str], aggregate: Aggregation) -> float | None:
    if not isinstance(prefix, Prefix) or len(prefix.logprobs) != len(prefix.lengths) or not prefix.lengths:
        return None
    known = [(p, n) for p, n in zip(prefix.logprobs, prefix.lengths, strict=True) if p is not None and n > 0]
    if aggregate == "last":
        known = known if prefix.logprobs[-1] is not None and prefix.lengths[-1] > 0 else []
    elif len(known) < len(prefix.lengths):
        return None
    if not known:
        return None
    if aggregate == "model":
        known = [(math.fsum(p for p, _ in known), sum(n for _, n in known))]
    return aggregated([min(1.0, math.exp(p / n)) for p, n in known], aggregate)


class ByArithmetic(Remembering):
    """The share of right ones among a step's calculations (see `check_arithmetic`).

    Steps that calculate nothing have no value and are passed over: "last" is the last step that does. A prefix without
    any gets `unknown`: nothing speaks for it, and nothing against it.

    Args:
        run: The run.
        unknown: Score of a prefix that calculates nothing, in [0, 1]; None leaves it unscored.
        strict: Whether one wrong calculation makes a step's value 0.
    """

    def __init__(self, run: Run, *, unknown: float | None = 0.5, strict: bool = True) -> None:
        super().__init__("arithmetic, checked exactly", run)
        self._unknown, self._strict = unknown, strict

    async def _score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation
    ) -> Mapping[int, float | None]:
        self.passes += len(prefixes)
        return {i: self._value(prefix, aggregate) for i, prefix in enumerate(prefixes)}

    def _value(self, prefix: Sequence[str], aggregate: Aggregation) -> float | None:
        parts = ["\n".join(prefix)] if aggregate == "model" else list(prefix)
        checks = [check for part in parts if (check := check_arithmetic(part)).share is not None]
        shares = [check.share for check in checks if check.share is not None]
        if not shares:
            return self._unknown
        if self._strict:
            shares = [0.0 if check.any_wrong else share for check, share in zip(checks, shares, strict=True)]
        return aggregated(shares, aggregate)


Source = Literal["reward", "judge", "arithmetic", "rollouts", "logprob"]
SOURCES: tuple[str, ...] = get_args(Source)


class StepScoring(Parameters):
    """Parameters of every strategy that scores steps."""

    score: Annotated[
        str,
        Field(description="what scores steps: auto, or reward, judge, arithmetic, rollouts, logprob, joined by +"),
    ] = "auto"
    aggregate: Annotated[
        Aggregation, Field(description="a prefix's step scores as one number: last, min, prod, mean or model")
    ] = "last"
    rollouts: Annotated[int, Field(ge=1, le=64, description="how often each prefix is finished, for rollouts")] = 4
    rollout_tokens: Annotated[int, Field(ge=1, description="most tokens of a rollout")] = 256

    @field_validator("score")
    @classmethod
    def _sources_exist(cls, score: str) -> str:
        unknown = [name for name in score.split("+") if name not in SOURCES]
        if score != "auto" and unknown:
            raise ValueError(f"{unknown[0]!r} scores nothing; give auto, or {', '.join(SOURCES)}, joined by +")
        return score

    def source(self, prompt: Prompt, question: Question, models: Models, run: Run) -> StepReward | None:
        """What scores.

        "auto" is the reward model, if one is given; else the model that reasons judges its own steps; else, if it
        cannot be asked so, the mean probability of its own words.

        Args:
            prompt: The question as it is put to the model.
            question: The question.
            models: The models.
            run: The run that pays.

        Returns:
            The source; None for "auto" where the model gives no signal at all.

        Raises:
            UserError: A reward model is to score, and none was given.
            CapabilityMissing: The model cannot do what a named source needs.
        """
        if self.score != "auto":
            wanted = list(dict.fromkeys(self.score.split("+")))
            sources = [self._named(name, prompt, question, models, run, alone=len(wanted) == 1) for name in wanted]
            return sources[0] if len(sources) == 1 else Joined(sources)
        try:
            name = "reward" if models.has("reward") else "judge"
            return self._named(name, prompt, question, models, run, alone=True)
        except CapabilityMissing:
            if not models.main.capabilities.logprobs:
                return None
        run.degrade(
            f"{models.main.name} cannot judge its steps; they were scored by the probability of their words, "
            "which says how sure the model is and not how right"
        )
        return ByLogprob(run)

    def _named(
        self, name: str, prompt: Prompt, question: Question, models: Models, run: Run, *, alone: bool
    ) -> StepReward:
        if name in ("reward", "judge"):
            reward = models.reward if name == "reward" else models.own_judge()
            return ByRewardModel(reward, run, prompt.messages[-1].content)
        if name == "arithmetic":
            return ByArithmetic(run) if alone else ByArithmetic(run, unknown=None)  # no opinion is no factor
        if name == "rollouts":
            finisher = Finisher(models.main, prompt, question, run, max_tokens=self.rollout_tokens)
            return ByRollouts(finisher, question, run, times=self.rollouts)
        if not models.main.capabilities.logprobs:
            raise CapabilityMissing("logprobs", models.main.name)
        return ByLogprob(run)


class Joined:
    """Several sources as one: the product of their scores, so that each can turn a step down.

    Where one cannot score, the others do; a prefix that none can score has no score.

    Args:
        sources: At least two.
    """

    def __init__(self, sources: Sequence[StepReward]) -> None:
        if len(sources) < 2:
            raise UserError("sources are joined where there are two or more")
        self.name = " and ".join(source.name for source in sources)
        self._sources = tuple(sources)

    @property
    def spent(self) -> bool:
        """Whether a budget kept one of them from scoring."""
        return any(source.spent for source in self._sources)

    @property
    def passes(self) -> int:
        """Prefixes that were scored anew, by each source."""
        return sum(source.passes for source in self._sources)

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """See `StepReward.score`."""
        told = [await source.score(problem, prefixes, aggregate) for source in self._sources]
        return [_product(scores) for scores in zip(*told, strict=True)]


def _product(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.prod(known) if known else None
