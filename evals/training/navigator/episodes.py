"""Episodes of navigation training: the models and runs they share, their rewards, and their records.

Every problem is one run in the store, named after plan and problem. A later episode on the problem continues that run,
so a completion that was paid by an earlier one, or before an interruption, is not paid again.

| reward | a block that the chain continues after | the block that ends it |
| --- | --- | --- |
| `prm` | the reward model's probability that the last step is right | 1 if the answer is right, else 0 |
| `outcome` | 0 | the same |
| `potential` | gamma * Phi(s') - Phi(s) | 1 if the answer is right, else 0, less Phi(s) |

Phi is the probability that `prm` pays, 0 for the bare problem and after the end. Over an episode of T blocks the
discounted rewards of `potential` sum to gamma^(T-1) if the answer is right and to 0 if not: only the outcome is
discounted.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for `prm`; Ng, Harada, Russell 1999, "Policy
invariance under reward transformations", theorem 1, for `potential`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

from pydantic import Field, JsonValue

from ....agents.pipeline import assemble
from ....core.concurrency import gather
from ....core.errors import BudgetExceeded, ContextTooLong, DataError, InvalidResponse, UnknownName, UserError
from ....core.events import Event, SampleFinished, Sink, StepsScored
from ....core.files import Progress
from ....core.messages import Frozen
from ....core.run import Run, RunConfig
from ....core.settings import Settings
from ....core.store.protocol import RunStatus, RunWrites
from ....core.store.sqlite import SqliteStore
from ....core.types import Answer, Candidate, Solution
from ....reasoning.candidates import read_candidate
from ....reasoning.prompts import question_text
from ....reasoning.rlot.assessment import State
from ....reasoning.rlot.block_runner import BlockRunner
from ....reasoning.rlot.blocks import LETTERS, Block, Legal, Trajectory, effective_block
from ....reasoning.rlot.episode import Episode
from ....reasoning.rlot.rlot import RLoT
from ....reasoning.step_rewards import ModelStepReward
from ....serving.factory import load_model
from ....serving.litellm.limiter import LimiterRegistry
from ....serving.metered.model import MeteredModel
from ....serving.metered.scorers import MeteredReward
from ....serving.model import LanguageModel
from ....serving.rewards.factory import load_reward_model
from ....serving.rewards.model import RewardModel
from ...datasets.items import Score
from ...task import AnswerScorer, Task
from .plan import NavigatorPlan, Problem, RewardKind


@dataclass
class TrainingUsage:
    """What a training run generated, and what the run store supplied instead, over all its processes.

    Attributes:
        tokens: Generated tokens.
        completions: Generated completions.
        reused_tokens: Tokens of completions from the store.
        reused_completions: Completions from the store.
        scored: Solutions that the reward model scored.
        reused_scores: Solutions whose scores came from the store.
    """

    tokens: int = 0
    completions: int = 0
    reused_tokens: int = 0
    reused_completions: int = 0
    scored: int = 0
    reused_scores: int = 0

    def count(self, event: Event) -> None:
        """Count an event of a problem's run."""
        if isinstance(event, SampleFinished):
            made = event.completion.usage.completion_tokens
            if event.replayed:
                self.reused_completions += 1
                self.reused_tokens += made
            else:
                self.completions += 1
                self.tokens += made
        elif isinstance(event, StepsScored):
            self.scored += len(event.log_odds) - event.replayed
            self.reused_scores += event.replayed


class CallStore(SqliteStore):
    """A run store that drops events: those of a thousand episodes would fill the disk."""

    def save(self, run_id: str, writes: RunWrites) -> asyncio.Future[None]:
        """Write all but the events."""
        writes.events.clear()
        return super().save(run_id, writes)


@dataclass(frozen=True)
class ProblemRun:
    """The run of a problem, for one episode or direct answer.

    Attributes:
        problem: The problem.
        run: Its run; the ledger counts this use only.
        main: The main model, charged to the run.
        reward: The reward model, charged to the run; None if the reward needs none.
    """

    problem: Problem
    run: Run
    main: MeteredModel
    reward: MeteredReward | None


class EpisodeResources:
    """The models, run store and scorers of a training run (see `open_episode_resources`).

    Args:
        max_tokens: Maximum number of generated tokens in all; None for no limit.

    Attributes:
        plan: The plan.
        config: Its parameters of `rlot`.
        model: The main model.
        usage: What was generated and reused so far.
    """

    def __init__(
        self,
        plan: NavigatorPlan,
        model: LanguageModel,
        reward: RewardModel | None,
        store: SqliteStore,
        scorers: Mapping[str, AnswerScorer],
        sinks: Sequence[Sink] = (),
        usage: TrainingUsage | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.config = RLoT.Config.model_validate(plan.parameters)
        self.usage = usage or TrainingUsage()
        self._max_tokens = max_tokens
        self._reserved = 0
        self._reward = reward
        self._store = store
        self._scorers = scorers
        self._sinks = tuple(sinks)
        self._known: set[str] = set()

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each model by role: weights, number format and engine."""
        match = {"main": self.model.identity}
        return match if self._reward is None else {**match, "reward": self._reward.identity}

    def problem_run(self, problem: Problem, strategy: str, parameters: Mapping[str, JsonValue]) -> ProblemRun:
        """The run of a problem, not begun: nothing is written before `begin`."""
        plan = self.plan
        models = {"main": plan.model} | ({} if plan.reward_model is None else {"reward": plan.reward_model})
        config = RunConfig(
            question=problem.item.question,
            strategy=strategy,
            parameters=dict(parameters),
            models=models,
            local=plan.local,
            seed=plan.item_seed(problem.item.id),
            reuse=plan.reuse,
        )
        name = plan.run_id(strategy, *problem.key)
        run = Run(name, config, self._store, sinks=(self.usage.count, *self._sinks))
        reward = None if self._reward is None else MeteredReward(self._reward, "reward", run)
        return ProblemRun(problem, run, MeteredModel(self.model, "main", run), reward)

    async def begin(self, run: ProblemRun) -> None:
        """Begin or continue a problem's run; it must be ended.

        Raises:
            UserError: Another process uses the problem's run.
            StoreError: The store failed.
        """
        name = run.run.id
        if name not in self._known:
            try:
                await self._store.get_run(name)
            except UnknownName:
                await self._store.create_run(name, run.run.config.model_dump(mode="json"))
                await self._store.set_identities(name, self._described())
                self._known.add(name)
                return
            self._known.add(name)
        await self._store.claim_run(name)

    @contextmanager
    def reserve(self, tokens: int) -> Iterator[None]:
        """Reserve the maximum that a step could generate while it is in flight.

        Raises:
            BudgetExceeded: The step could exceed the limit of the training.
        """
        if self._max_tokens is not None and self.usage.tokens + self._reserved + tokens > self._max_tokens:
            raise BudgetExceeded("tokens", self.usage.tokens, self._max_tokens)
        self._reserved += tokens
        try:
            yield
        finally:
            self._reserved -= tokens

    async def end(self, run: ProblemRun, status: RunStatus, answer: Answer | None = None) -> None:
        """Release a problem's run, with its answer if there is one."""
        run.run.ledger.stop()
        values = None if answer is None else answer.model_dump(mode="json")
        await self._store.end_run(run.run.id, status, values)

    async def score(self, run: ProblemRun, candidate: Candidate) -> tuple[Answer, Score]:
        """The answer of a run, and its score.

        Raises:
            DataError: The dataset's answers are neither right nor wrong.
        """
        problem = run.problem
        solution = Solution(chosen=0, candidates=(candidate,))
        answer = assemble(run.run, solution, strategy=run.run.config.strategy)
        score = await self._scorers[problem.dataset].score(problem.item, answer)
        if score.correct is None:
            raise DataError(
                f"the answer to {problem.dataset} {problem.item.id!r} is neither right nor wrong: no reward",
                hint="train on another dataset, or on another variant",
            )
        return answer, score

    def _described(self) -> dict[str, JsonValue]:
        """The models as the run store describes them, enough to show a run without them."""
        used: dict[str, LanguageModel | RewardModel] = {"main": self.model}
        if self._reward is not None:
            used["reward"] = self._reward
        return {
            role: {"identity": m.identity, "capabilities": m.capabilities.model_dump(mode="json")}
            for role, m in used.items()
        }


@asynccontextmanager
async def open_episode_resources(
    plan: NavigatorPlan,
    tasks: Sequence[Task],
    settings: Settings,
    store_path: Path,
    *,
    sinks: Sequence[Sink] = (),
    usage: TrainingUsage | None = None,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[EpisodeResources]:
    """Open the models, the run store and the scorers of a plan, and close them at the end.

    Args:
        progress: Reports the download of model files; called from another thread.

    Raises:
        StoreError: The store cannot be used.
        UserError, DataError, BackendError: As `load_model` and `load_reward_model`.
    """
    own = settings.model_copy(update={"local": plan.local, "store": store_path})
    limiters = LimiterRegistry()
    opened: dict[str, LanguageModel] = {}
    async with AsyncExitStack() as stack:
        store = await CallStore.open(store_path)
        stack.push_async_callback(store.aclose)

        async def language_model(name: str) -> LanguageModel:
            if name not in opened:
                opened[name] = await load_model(name, own, progress, limiters)
                stack.push_async_callback(opened[name].aclose)
            return opened[name]

        model = await language_model(plan.model)
        if not model.capabilities.profile.can_skip_thinking:
            raise UserError(
                f"{model.name} always thinks, and {RLoT.name} writes its blocks without thinking",
                hint="train a navigator for a model that can answer without thinking",
            )
        reward: RewardModel | None = None
        if plan.reward_model is not None:
            reward = await load_reward_model(plan.reward_model, own, progress, language_model)
            stack.push_async_callback(reward.aclose)
        scorers = {task.info.full_name: await stack.enter_async_context(task.open_scorer()) for task in tasks}
        yield EpisodeResources(plan, model, reward, store, scorers, sinks, usage, max_tokens)


class EpisodeRewards:
    """The rewards of one episode, in order.

    Args:
        gamma: Discount of later rewards, in [0, 1]; `potential` needs it.
        model: The reward model; None where the kind needs none.

    Attributes:
        unscored: Blocks whose step the reward model could not score, not even without the earlier ones; they count as
            0.
    """

    def __init__(self, kind: RewardKind, gamma: float, model: MeteredReward | None, run: Run) -> None:
        self.unscored = 0
        self._kind = kind
        self._gamma = gamma
        self._scores = None if model is None or kind == "outcome" else ModelStepReward(model, run)
        self._phi = 0.0

    async def step_reward(self, trajectory: Trajectory) -> float:
        """The reward of the block that led to this trajectory, from which the episode continues.

        Returns:
            In [0, 1], and with `potential` in [-1, 1].

        Raises:
            BackendError: The reward model failed.
        """
        if self._scores is None:
            return 0.0
        before, self._phi = self._phi, await self._score(trajectory)
        return self._phi if self._kind == "prm" else self._gamma * self._phi - before

    def final_reward(self, *, correct: bool) -> float:
        """The reward of the block that ends the episode: 1 or 0, and with `potential` that less Phi(s)."""
        outcome = 1.0 if correct else 0.0
        if self._kind != "potential":
            return outcome
        before, self._phi = self._phi, 0.0
        return outcome - before

    async def _score(self, trajectory: Trajectory) -> float:
        """The reward model's probability of the last step; if the steps are too long for it, without the oldest."""
        if self._scores is None or not trajectory.steps:
            return 0.0
        problem = question_text(trajectory.question)
        for first in range(len(trajectory.steps)):
            (score,) = await self._scores.score(problem, [trajectory.steps[first:]], "last")
            if score is not None:
                return score
        self.unscored += 1
        return 0.0


def discounted_return(rewards: Sequence[float], gamma: float) -> float:
    """The sum of gamma^t r_t, from the first reward on."""
    total = 0.0
    for reward in reversed(rewards):
        total = reward + gamma * total
    return total


class EpisodeRecord(Frozen):
    """One episode of a training run; no times, so that equal trainings write equal lines.

    Attributes:
        episode: Its number, from 1, in the order in which episodes ended.
        dataset: Dataset of its problem.
        item: Item id of its problem.
        blocks: The blocks that ran, by their letters; `Ga` where the answer was chosen or forced.
        length: Blocks before the answer. A reward of steps favours long chains: watch it.
        states: The self-assessments, from that of the bare problem on.
        actions: The chosen actions; with `mask_mode="substitute"` another block may have run.
        rewards: What each episode_return.
        episode_return: The discounted sum of them.
        correct: Whether the answer was right.
        answer: The parsed answer; None if there is none.
        forced: Whether the answer was requested because no further block could run.
        scores_requested: Scores that the assessments should have had.
        scores_missing: Scores that could not be parsed and count as 0.
        unscored: Blocks that the reward model could not score.
        tokens: Tokens of all completions, generated or from the run store.
        calls: Model calls, likewise.
        epsilon: Probability of a random action at its last one.
        learning_rate: The learning rate at its end.
        loss: Mean loss of its updates; None if there were none.
        steps: Actions of the training so far.
        error: What ended it before its answer; empty if nothing did. Such an episode gets no further reward.
    """

    episode: Annotated[int, Field(ge=1)]
    dataset: str
    item: str
    blocks: tuple[str, ...]
    length: int
    states: tuple[State, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    episode_return: float
    correct: bool
    answer: str | None = None
    forced: bool = False
    scores_requested: int = 0
    scores_missing: int = 0
    unscored: int = 0
    tokens: int = 0
    calls: int = 0
    epsilon: float = 0.0
    learning_rate: float = 0.0
    loss: float | None = None
    steps: int = 0
    error: str = ""

    @property
    def chain(self) -> str:
        """The blocks in one word, as in `R-Db-Ga`."""
        return "-".join(self.blocks)


class ValidationResult(Frozen):
    """The greedy navigator on held-out problems, at one point of a training run.

    Attributes:
        episode: Episodes before it.
        problems: Number of problems.
        correct: Number of right answers.
        episode_return: Mean discounted reward, by the rewards of the training.
        length: Mean number of blocks before the answer.
        missing: Share of the assessment scores that could not be parsed.
        tokens: Mean tokens of a problem's completions.
    """

    episode: int
    problems: int
    correct: int
    episode_return: float
    length: float
    missing: float
    tokens: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.problems


def block_letters(blocks: tuple[int, ...]) -> tuple[str, ...]:
    """Blocks by their letters."""
    return tuple(LETTERS[block] for block in blocks)


EPISODE_ERRORS = (ContextTooLong, InvalidResponse)
"""Errors of one chain: it ends without an answer, and gets no further reward."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What an action came to.

    Attributes:
        block: The block that ran; None if it failed.
        reward: What it episode_return.
        done: Whether the episode has ended with it.
        state: The assessment after it.
        legal: Which blocks may run next.
    """

    block: Block | None
    reward: float
    done: bool
    state: State
    legal: Legal


class TrainingEpisode:
    """One episode on one problem. Used by one task at a time; must be closed.

    Attributes:
        problem: As passed.
        states: Assessments so far, the bare problem's first.
        actions: Actions so far.
        rewards: What each episode_return.
        done: Whether it has ended.
        correct: Whether its answer was right; False while there is none.
        answer: The parsed answer; None if there is none.
        error: What ended it before its answer; empty if nothing did.
    """

    def __init__(self, resources: EpisodeResources, problem: Problem, *, substitute: bool = False) -> None:
        config = resources.config
        self.problem = problem
        self.states: list[State] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.done = False
        self.correct = False
        self.answer: str | None = None
        self.error = ""
        self._resources = resources
        self._substitutes = substitute
        self._problem_run = run = resources.problem_run(problem, RLoT.name, resources.plan.parameters)
        self._runner = BlockRunner(
            run.main,
            run.run,
            config.limits,
            refine_mode=config.refine_mode,
            system=config.system,
            temperature=config.temperature,
        )
        self._episode = Episode(
            self._runner, problem.item.question, max_blocks=config.max_blocks, mask_mode=config.mask_mode
        )
        self._rewards = EpisodeRewards(resources.plan.reward, resources.plan.learning.gamma, run.reward, run.run)
        self._open = False
        self._answer: Answer | None = None

    @property
    def state(self) -> State:
        """The last assessment."""
        return self._episode.state

    @property
    def legal(self) -> Legal:
        """Which blocks may run next."""
        return self._episode.legal

    @property
    def length(self) -> int:
        """Blocks that ran before the answer."""
        return self._episode.num_blocks

    @property
    def most_tokens(self) -> int:
        """Maximum number of tokens of an action: its block, the questions after it, and the answer."""
        runner = self._runner
        return max(runner.max_tokens(block) for block in Block) + runner.max_tokens(Block.TERMINATE)

    async def begin(self) -> None:
        """Begin: the model assesses the bare problem. A prompt that is too long ends the episode.

        Raises:
            BudgetExceeded: The token limit does not cover it.
            StoreError, UserError: The problem's run cannot be used.
            BackendError: The model failed.
        """
        with self._resources.reserve(self._runner.limits.assess_tokens):
            await self._resources.begin(self._problem_run)
            self._open = True
            try:
                await self._episode.begin()
            except EPISODE_ERRORS as e:
                self._fail(e.message)
        self.states.append(self.state)

    async def act(self, action: int) -> StepResult:
        """Run a block and compute its reward.

        Raises:
            UserError: The episode has ended or not begun, or the block may not run.
            BudgetExceeded: The token limit does not cover it.
            BackendError: The model or the reward model failed; the episode cannot be continued.
        """
        episode = self._episode
        if self.done or not self.states:
            raise UserError("the episode has ended or not begun", hint="begin another one")
        taken = action
        if self._substitutes and not episode.legal[action]:
            taken = int(effective_block(action, episode.num_blocks, episode.max_blocks))
        block: Block | None = None
        with self._resources.reserve(self.most_tokens):
            try:
                block = await episode.act(taken)
                if episode.is_done:
                    reward = self._rewards.final_reward(correct=await self._score_answer())
                    self.done = True
                else:
                    reward = await self._rewards.step_reward(episode.trajectory)
            except EPISODE_ERRORS as e:
                self._fail(e.message)
                reward = self._rewards.final_reward(correct=False)
        self.actions.append(action)
        self.rewards.append(reward)
        self.states.append(self.state)
        return StepResult(block, reward, self.done, self.state, self.legal)

    async def close(self) -> None:
        """Release the problem's run, finished or not; idempotent."""
        is_open, self._open = self._open, False
        if is_open:
            await self._resources.end(self._problem_run, "finished" if self.done else "interrupted", self._answer)

    def record(
        self,
        episode: int,
        *,
        epsilon: float = 0.0,
        learning_rate: float = 0.0,
        loss: float | None = None,
        steps: int = 0,
    ) -> EpisodeRecord:
        """The record of the episode after its end; the arguments are what the trainer knows."""
        runner, chain = self._runner, self._episode
        usage = self._problem_run.run.ledger.usage()
        return EpisodeRecord(
            episode=episode,
            dataset=self.problem.dataset,
            item=self.problem.item.id,
            blocks=block_letters(tuple(chain.blocks)),
            length=self.length,
            states=tuple(self.states),
            actions=tuple(self.actions),
            rewards=tuple(self.rewards),
            episode_return=discounted_return(self.rewards, self._resources.plan.learning.gamma),
            correct=self.correct,
            answer=self.answer,
            forced=chain.forced,
            scores_requested=runner.scores_requested,
            scores_missing=runner.scores_missing,
            unscored=self._rewards.unscored,
            tokens=usage.completion_tokens,
            calls=usage.model_calls,
            epsilon=epsilon,
            learning_rate=learning_rate,
            loss=loss,
            steps=steps,
            error=self.error,
        )

    async def _score_answer(self) -> bool:
        """Whether the final answer is right; it is parsed from the final completion only."""
        completion = self._episode.completion
        if completion is None:
            return False
        candidate = read_candidate(completion, self.problem.item.question)
        self._answer, score = await self._resources.score(self._problem_run, candidate)
        self.answer, self.correct = candidate.answer, score.correct is True
        return self.correct

    def _fail(self, why: str) -> None:
        self.error, self.done = why, True


EpisodeFactory: TypeAlias = Callable[[Problem], TrainingEpisode]
"""Creates an episode on a problem."""


T = TypeVar("T")
S = TypeVar("S")


async def map_concurrently(items: Iterable[S], work: Callable[[S], Awaitable[T]], concurrency: int) -> list[T]:
    """The result of each item, in order, with up to `concurrency` in flight; errors as `gather`."""
    listed = list(items)
    results: dict[int, T] = {}
    waiting = iter(range(len(listed)))

    async def lane() -> None:
        for i in waiting:
            results[i] = await work(listed[i])

    await gather([lane() for _ in range(min(concurrency, len(listed)))])
    return [results[i] for i in range(len(listed))]
