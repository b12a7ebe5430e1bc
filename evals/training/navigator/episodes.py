"""`Desk`: opened models, run store and judges of one training; it hands out a problem's run, visit by visit.

Every problem is one run in the store, under a name that follows from plan and problem. A visit continues with that run,
so a response that was once generated, be it by an earlier visit or before an interruption, is found and not paid again.

What a block earns: by a process reward model, by the outcome, or by a potential that leaves the best policy be.

| reward | a block that the chain continues after | the block that ends it |
| --- | --- | --- |
| `prm` | the reward model's probability that the last step is right | 1 if the answer is right, else 0 |
| `outcome` | 0 | likewise |
| `potential` | gamma * Phi(s') - Phi(s) | 1 if the answer is right, else 0, less Phi(s) |

Phi is the probability that `prm` pays, 0 for the bare problem and after the end. Over an episode of T blocks the
discounted rewards of `potential` sum to gamma^(T-1) if the answer is right and to 0 if not: what is discounted is the
outcome and nothing else.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for `prm`; Ng, Harada, Russell 1999, "Policy
invariance under reward transformations", theorem 1, for `potential`.

What a training notes of its episodes and validations; no times: equal trainings write equal lines.

`TrainingEpisode`: one episode on one problem, as trainer, validation and environment have it.

`each`: a work for every item, a bounded number in flight at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

from pydantic import Field, JsonValue

from ....agents.pipeline import assemble
from ....core.concurrency import gather
from ....core.errors import ContextTooLong, DataError, InvalidResponse, LimitExceeded, UnknownName, UserError
from ....core.events import Event, SampleFinished, Sink, StepsScored
from ....core.messages import Frozen
from ....core.run import Run, RunConfig
from ....core.settings import Settings
from ....core.store.protocol import RunStatus
from ....core.store.sqlite import SqliteStore
from ....core.types import Answer, Candidate, Solution
from ....reasoning.candidates import read_candidate
from ....reasoning.prompts import question_text
from ....reasoning.rlot.assessment import State
from ....reasoning.rlot.block_runner import BlockRunner
from ....reasoning.rlot.blocks import LETTERS, Block, Legal, Trajectory, effective
from ....reasoning.rlot.episode import Episode
from ....reasoning.rlot.rlot import RLoT
from ....reasoning.step_rewards import ModelStepReward
from ....serving.factory import load_model
from ....serving.litellm.limiter import Limiters
from ....serving.metered.model import MeteredModel
from ....serving.metered.scorers import MeteredReward
from ....serving.model import LanguageModel
from ....serving.model_files.downloads import Progress
from ....serving.rewards.model import RewardModel, load_reward_model
from ...datasets.items import Score
from ...task import AnswerScorer, Task
from .plan import NavigatorPlan, Problem, RewardKind


@dataclass
class TrainingUsage:
    """What a training has generated, and what it found in the run store instead; over all its processes.

    Attributes:
        tokens: Tokens generated.
        responses: Responses generated.
        reused_tokens: Tokens of responses that the store had.
        reused_replies: Such responses.
        scored: Solutions that the reward model scored.
        reused_scores: Solutions whose scores the store had.
    """

    tokens: int = 0
    replies: int = 0
    reused_tokens: int = 0
    reused_replies: int = 0
    scored: int = 0
    reused_scores: int = 0

    def take(self, event: Event) -> None:
        """Count an event of a visit."""
        if isinstance(event, SampleFinished):
            made = event.completion.usage.completion_tokens
            if event.replayed:
                self.reused_replies += 1
                self.reused_tokens += made
            else:
                self.replies += 1
                self.tokens += made
        elif isinstance(event, StepsScored):
            self.scored += len(event.log_odds) - event.replayed
            self.reused_scores += event.replayed


class CallStore(SqliteStore):
    """A run store that keeps the calls of runs and not their events: of a thousand visits they would fill the disk."""

    async def add_events(self, run_id: str, events: Sequence[Event]) -> None:
        """Keep none."""


@dataclass(frozen=True)
class ProblemRun:
    """A problem's run while it is being worked on once more.

    Attributes:
        problem: The problem.
        run: Its run; the ledger is this visit's.
        main: The model that reasons, charged to it.
        reward: The reward model likewise; None if there is none.
    """

    problem: Problem
    run: Run
    main: MeteredModel
    reward: MeteredReward | None


class EpisodeResources:
    """What the visits of a training share (see `open_episode_resources`).

    Args:
        limit: Maximum number of tokens that may be generated in all; None is no limit.

    Attributes:
        plan: As passed.
        config: Its parameters of `rlot`, read once for all episodes.
        model: As passed.
        spent: As passed.
    """

    def __init__(
        self,
        plan: NavigatorPlan,
        model: LanguageModel,
        reward: RewardModel | None,
        store: SqliteStore,
        judges: Mapping[str, AnswerScorer],
        sinks: Sequence[Sink] = (),
        spent: TrainingUsage | None = None,
        limit: int | None = None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.config = RLoT.Config.model_validate(plan.parameters)
        self.spent = spent or TrainingUsage()
        self._limit = limit
        self._reserved = 0
        self._reward = reward
        self._store = store
        self._judges = judges
        self._sinks = tuple(sinks)
        self._known: set[str] = set()

    @property
    def identities(self) -> dict[str, str]:
        """What each model is, by role: weights, number format and engine."""
        match = {"main": self.model.identity}
        return match if self._reward is None else {**match, "reward": self._reward.identity}

    def visit(self, problem: Problem, strategy: str, parameters: Mapping[str, JsonValue]) -> ProblemRun:
        """A visit, not begun: nothing is written before `begin`."""
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
        run = Run(name, config, self._store, sinks=(self.spent.take, *self._sinks))
        reward = None if self._reward is None else MeteredReward(self._reward, "reward", run)
        return ProblemRun(problem, run, MeteredModel(self.model, "main", run), reward)

    async def begin(self, visit: ProblemRun) -> None:
        """Begin a visit; it must be ended.

        Raises:
            UserError: Another process works on the problem's run.
            StoreError: The store failed.
        """
        name = visit.run.id
        if name not in self._known:
            try:
                await self._store.get_run(name)
            except UnknownName:
                await self._store.create_run(name, visit.run.config.model_dump(mode="json"))
                await self._store.set_identities(name, self._described())
                self._known.add(name)
                return
            self._known.add(name)
        await self._store.claim_run(name)

    @contextmanager
    def reserve(self, tokens: int) -> Iterator[None]:
        """Hold the most that a step could generate while it is in flight.

        Raises:
            LimitExceeded: The step could exceed the limit of the training.
        """
        if self._limit is not None and self.spent.tokens + self._reserved + tokens > self._limit:
            raise LimitExceeded("tokens", self.spent.tokens, self._limit)
        self._reserved += tokens
        try:
            yield
        finally:
            self._reserved -= tokens

    async def end(self, visit: ProblemRun, status: RunStatus, answer: Answer | None = None) -> None:
        """End a visit, so that others may resume the run.

        Args:
            answer: Its answer; None leaves none in the store.
        """
        visit.run.ledger.stop()
        values = None if answer is None else answer.model_dump(mode="json")
        await self._store.end_run(visit.run.id, status, values)

    async def judge(self, visit: ProblemRun, candidate: Candidate) -> tuple[Answer, Score]:
        """The answer of a visit, and what it is worth.

        Raises:
            DataError: The dataset's answers are neither right nor wrong.
        """
        problem = visit.problem
        solution = Solution(chosen=0, candidates=(candidate,))
        answer = assemble(visit.run, solution, strategy=visit.run.config.strategy)
        score = await self._judges[problem.dataset].score(problem.item, answer)
        if score.correct is None:
            raise DataError(
                f"the answer to {problem.dataset} {problem.item.id!r} is neither right nor wrong, so it is no reward",
                hint="train on another dataset, or on another variant",
            )
        return answer, score

    def _described(self) -> dict[str, JsonValue]:
        """The models as the run store has them, enough to show a run without them."""
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
    place: Path,
    *,
    sinks: Sequence[Sink] = (),
    spent: TrainingUsage | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[EpisodeResources]:
    """Open the models, the run store and the judges of a plan, and close them in the end.

    Args:
        progress: Reports the download of model files; called from another thread.

    Raises:
        StoreError: The store cannot be used.
        UserError, DataError, BackendError: As `load_model` and `load_reward_model`.
    """
    own = settings.model_copy(update={"local": plan.local, "store": place})
    limiters = Limiters()
    opened: dict[str, LanguageModel] = {}
    async with AsyncExitStack() as stack:
        store = await CallStore.open(place)
        stack.push_async_callback(store.aclose)

        async def language_model(name: str) -> LanguageModel:
            if name not in opened:
                opened[name] = await load_model(name, own, progress, limiters)
                stack.push_async_callback(opened[name].aclose)
            return opened[name]

        model = await language_model(plan.model)
        reward: RewardModel | None = None
        if plan.reward_model is not None:
            reward = await load_reward_model(plan.reward_model, own, progress, language_model)
            stack.push_async_callback(reward.aclose)
        judges = {task.use.whole_name: await stack.enter_async_context(task.open_judge()) for task in tasks}
        yield EpisodeResources(plan, model, reward, store, judges, sinks, spent, limit)


class EpisodeRewards:
    """The rewards of one episode, in order.

    Args:
        gamma: Discount of later rewards, in [0, 1]; `potential` needs it.
        model: The reward model; None where the kind needs none.

    Attributes:
        unscored: Blocks whose step the reward model could not score, not even only; they count as 0.
    """

    def __init__(self, kind: RewardKind, gamma: float, model: MeteredReward | None, run: Run) -> None:
        self.unscored = 0
        self._kind = kind
        self._gamma = gamma
        self._scores = None if model is None or kind == "outcome" else ModelStepReward(model, run)
        self._phi = 0.0

    async def going_on(self, trajectory: Trajectory) -> float:
        """What the block earns that led to this trajectory, from which the episode continues.

        Returns:
            In [0, 1], and with `potential` in [-1, 1].

        Raises:
            BackendError: The reward model failed.
        """
        if self._scores is None:
            return 0.0
        before, self._phi = self._phi, await self._score(trajectory)
        return self._phi if self._kind == "prm" else self._gamma * self._phi - before

    def ending(self, *, correct: bool) -> float:
        """What the block earns with which the episode ends: 1 or 0, and with `potential` that less Phi(s)."""
        outcome = 1.0 if correct else 0.0
        if self._kind != "potential":
            return outcome
        before, self._phi = self._phi, 0.0
        return outcome - before

    async def _score(self, trajectory: Trajectory) -> float:
        """The reward model's probability of the last step; where the steps are too long for it, without the oldest."""
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
    """One episode of a training.

    Attributes:
        episode: Its number, from 1, in the order in which episodes ended.
        dataset: Where its problem is from.
        item: Name of the problem there.
        blocks: The blocks that ran, by their letters; `Ga` where the answer was chosen or forced.
        length: Blocks that ran before the answer. A reward of steps pays for long chains: keep an eye on it.
        states: The self-assessments, from that of the bare problem on.
        actions: What was chosen, by number; under "substitute" another block may have run.
        rewards: What each earned.
        earned: The discounted sum of them.
        correct: Whether the answer was right.
        answer: The answer that was read; None if none was.
        forced: Whether the answer was requested because no further block could run.
        scores_asked: Scores that the assessments should have had.
        scores_missing: Those that could not be read, and count as 0.
        unscored: Blocks that the reward model could not score.
        tokens: Tokens of all responses, whether they were generated for it or found in the run store.
        calls: Requests likewise.
        epsilon: The chance of a random action at its last one.
        learning_rate: The learning rate at its end.
        loss: Mean loss of its updates; None if there were none.
        steps: Actions of the training so far.
        error: What ended it before its answer; empty if nothing did. Such an episode earns nothing more.
    """

    episode: Annotated[int, Field(ge=1)]
    dataset: str
    item: str
    blocks: tuple[str, ...]
    length: int
    states: tuple[State, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    earned: float
    correct: bool
    answer: str | None = None
    forced: bool = False
    scores_asked: int = 0
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
    """The greedy navigator on held-out problems, at one moment of a training.

    Attributes:
        episode: Episodes before it.
        problems: How many were asked.
        correct: How many of the answers were right.
        earned: Mean discounted reward; rewards are those of the training.
        length: Mean number of blocks before the answer.
        missing: Share of the scores of assessments that could not be read.
        tokens: Mean tokens of a problem's responses.
    """

    episode: int
    problems: int
    correct: int
    earned: float
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
"""What befalls one chain and no other: it ends without an answer, and earns nothing more."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What an action came to.

    Attributes:
        block: The block that ran; None if it failed.
        reward: What it earned.
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
        rewards: What each earned.
        done: Whether it has ended.
        correct: Whether its answer was right; False while there is none.
        answer: The answer that was read; None if none was.
        error: What ended it before its answer; empty if nothing did.
    """

    def __init__(self, desk: EpisodeResources, problem: Problem, *, substitutes: bool = False) -> None:
        config = desk.config
        self.problem = problem
        self.states: list[State] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.done = False
        self.correct = False
        self.answer: str | None = None
        self.error = ""
        self._desk = desk
        self._substitutes = substitutes
        self._visit = visit = desk.visit(problem, RLoT.name, desk.plan.parameters)
        self._runner = BlockRunner(
            visit.main,
            visit.run,
            config.limits,
            refine_mode=config.refine_mode,
            system=config.system,
            temperature=config.temperature,
        )
        self._episode = Episode(
            self._runner, problem.item.question, max_blocks=config.max_blocks, mask_mode=config.mask_mode
        )
        self._earning = EpisodeRewards(desk.plan.reward, desk.plan.learning.gamma, visit.reward, visit.run)
        self._open = False
        self._whole: Answer | None = None

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
        return self._episode.ran

    @property
    def most_tokens(self) -> int:
        """Maximum number of tokens that an action could generate: its block, the questions after it, and the answer."""
        runner = self._runner
        return max(runner.most_tokens(block) for block in Block) + runner.most_tokens(Block.TERMINATE)

    async def begin(self) -> None:
        """Begin: the model assesses the bare problem. A prompt that it cannot take ends the episode.

        Raises:
            LimitExceeded: The tokens of the training do not cover it.
            StoreError, UserError: The problem's run cannot be had.
            BackendError: The model failed.
        """
        with self._desk.reserve(self._runner.limits.assess_tokens):
            await self._desk.begin(self._visit)
            self._open = True
            try:
                await self._episode.begin()
            except EPISODE_ERRORS as e:
                self._fail(e.message)
        self.states.append(self.state)

    async def act(self, action: int) -> StepResult:
        """Run a block, and see what it earns.

        Raises:
            UserError: The episode has ended or not begun, or the block may not run.
            LimitExceeded: The tokens of the training do not cover it.
            BackendError: The model or the reward model failed; the episode cannot be continued then.
        """
        episode = self._episode
        if self.done or not self.states:
            raise UserError("the episode has ended or not begun", hint="begin another one")
        taken = action
        if self._substitutes and not episode.legal[action]:
            taken = int(effective(action, episode.ran, episode.max_blocks))
        block: Block | None = None
        with self._desk.reserve(self.most_tokens):
            try:
                block = await episode.act(taken)
                if episode.done:
                    reward = self._earning.ending(correct=await self._judged())
                    self.done = True
                else:
                    reward = await self._earning.going_on(episode.trajectory)
            except EPISODE_ERRORS as e:
                self._fail(e.message)
                reward = self._earning.ending(correct=False)
        self.actions.append(action)
        self.rewards.append(reward)
        self.states.append(self.state)
        return StepResult(block, reward, self.done, self.state, self.legal)

    async def close(self) -> None:
        """Give the problem's run back, finished or not; idempotent."""
        is_open, self._open = self._open, False
        if is_open:
            await self._desk.end(self._visit, "finished" if self.done else "interrupted", self._whole)

    def record(
        self,
        episode: int,
        *,
        epsilon: float = 0.0,
        learning_rate: float = 0.0,
        loss: float | None = None,
        steps: int = 0,
    ) -> EpisodeRecord:
        """What is to be noted of it, after its end; the arguments are what it does not know itself."""
        runner, chain = self._runner, self._episode
        usage = self._visit.run.ledger.usage()
        return EpisodeRecord(
            episode=episode,
            dataset=self.problem.dataset,
            item=self.problem.item.id,
            blocks=block_letters(tuple(chain.blocks)),
            length=self.length,
            states=tuple(self.states),
            actions=tuple(self.actions),
            rewards=tuple(self.rewards),
            earned=discounted_return(self.rewards, self._desk.plan.learning.gamma),
            correct=self.correct,
            answer=self.answer,
            forced=chain.forced,
            scores_asked=runner.scores_asked,
            scores_missing=runner.scores_missing,
            unscored=self._earning.unscored,
            tokens=usage.completion_tokens,
            calls=usage.model_calls,
            epsilon=epsilon,
            learning_rate=learning_rate,
            loss=loss,
            steps=steps,
            error=self.error,
        )

    async def _judged(self) -> bool:
        """Whether the final answer is right; it is read from the final response only."""
        reply = self._episode.reply
        if reply is None:
            return False
        candidate = read_candidate(reply, self.problem.item.question)
        self._whole, score = await self._desk.judge(self._visit, candidate)
        self.answer, self.correct = candidate.answer, score.correct is True
        return self.correct

    def _fail(self, why: str) -> None:
        self.error, self.done = why, True


EpisodeFactory: TypeAlias = Callable[[Problem], TrainingEpisode]
"""Makes an episode on a problem."""


T = TypeVar("T")
S = TypeVar("S")


async def map_concurrently(items: Iterable[S], work: Callable[[S], Awaitable[T]], most: int) -> list[T]:
    """The result of each item, in their order, a bounded number in flight at a time (raises as `together`)."""
    listed = list(items)
    results: dict[int, T] = {}
    waiting = iter(range(len(listed)))

    async def lane() -> None:
        for i in waiting:
            results[i] = await work(listed[i])

    await gather([lane() for _ in range(min(most, len(listed)))])
    return [results[i] for i in range(len(listed))]
