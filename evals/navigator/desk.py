"""`Desk`: opened models, run store and judges of one training; it hands out a problem's run, visit by visit.

Every problem is one run in the store, under a name that follows from plan and problem. A visit goes on with that run,
so a reply that was once generated, be it by an earlier visit or before an interruption, is found and not paid again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ...agents.nodes import assemble
from ...core.answer import Answer, Candidate, Solution
from ...core.errors import DataError, LimitExceeded, UnknownName
from ...core.events import EventFields, SampleFinished, Sink, StepsScored
from ...core.run import Run, RunConfig
from ...core.settings import Settings
from ...core.sqlite_store import SqliteStore
from ...core.store import RunStatus
from ...reasoning.rlot.rlot import RLoT
from ...serving.litellm.limiter import Limiters
from ...serving.metered import MeteredModel
from ...serving.metered_rewards import MeteredReward
from ...serving.model import LanguageModel
from ...serving.open import open_model
from ...serving.pulling import Progress
from ...serving.rewards import RewardModel, open_reward
from ..items import Score
from ..task import Judge, Task
from .plan import TrainingPlan
from .problems import Problem


@dataclass
class Spent:
    """What a training has generated, and what it found in the run store instead; over all its processes.

    Attributes:
        tokens: Tokens generated.
        replies: Replies generated.
        reused_tokens: Tokens of replies that the store had.
        reused_replies: Such replies.
        scored: Solutions that the reward model scored.
        reused_scores: Solutions whose scores the store had.
    """

    tokens: int = 0
    replies: int = 0
    reused_tokens: int = 0
    reused_replies: int = 0
    scored: int = 0
    reused_scores: int = 0

    def take(self, event: EventFields) -> None:
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

    async def add_events(self, run_id: str, events: Sequence[EventFields]) -> None:
        """Keep none."""


@dataclass(frozen=True)
class Visit:
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


class Desk:
    """What the visits of a training share (see `open_desk`).

    Args:
        plan: What was decided.
        model: The model that reasons.
        reward: The reward model, if the plan has one.
        store: The run store.
        judges: Who judges answers, by dataset.
        sinks: Hear of every event of every visit.
        spent: What was generated and reused before; counted on.
        limit: Most tokens that may be generated in all; None is no limit.

    Attributes:
        plan: As given.
        config: Its parameters of `rlot`, read once for all episodes.
        model: As given.
        spent: As given.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        model: LanguageModel,
        reward: RewardModel | None,
        store: SqliteStore,
        judges: Mapping[str, Judge],
        sinks: Sequence[Sink] = (),
        spent: Spent | None = None,
        limit: int | None = None,
    ) -> None:
        self.plan = plan
        self.model = model
        self.config = RLoT.Config.model_validate(plan.parameters)
        self.spent = spent or Spent()
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
        found = {"main": self.model.identity}
        return found if self._reward is None else {**found, "reward": self._reward.identity}

    def visit(self, problem: Problem, strategy: str, parameters: Mapping[str, JsonValue]) -> Visit:
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
        return Visit(problem, run, MeteredModel(self.model, "main", run), reward)

    async def begin(self, visit: Visit) -> None:
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
        await self._store.take_run(name)

    @contextmanager
    def reserve(self, tokens: int) -> Iterator[None]:
        """Hold the most that a step could generate while it is under way.

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

    async def end(self, visit: Visit, status: RunStatus, answer: Answer | None = None) -> None:
        """End a visit, so that others may go on with the run.

        Args:
            visit: The visit.
            status: How it ended.
            answer: Its answer; None leaves none in the store.
        """
        visit.run.ledger.stop()
        told = None if answer is None else answer.model_dump(mode="json")
        await self._store.end_run(visit.run.id, status, told)

    async def judge(self, visit: Visit, candidate: Candidate) -> tuple[Answer, Score]:
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
async def open_desk(
    plan: TrainingPlan,
    tasks: Sequence[Task],
    settings: Settings,
    place: Path,
    *,
    sinks: Sequence[Sink] = (),
    spent: Spent | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[Desk]:
    """Open the models, the run store and the judges of a plan, and close them in the end.

    Args:
        plan: What was decided.
        tasks: Its datasets.
        settings: How backends are set up.
        place: The run store's file.
        sinks: Hear of every event.
        spent: See `Desk`.
        limit: See `Desk`.
        progress: Told how far a model's files are; called from another thread.

    Raises:
        StoreError: The store cannot be used.
        UserError, DataError, BackendError: As `open_model` and `open_reward`.
    """
    own = settings.model_copy(update={"local": plan.local, "store": place})
    limiters = Limiters()
    opened: dict[str, LanguageModel] = {}
    async with AsyncExitStack() as stack:
        store = await CallStore.open(place)
        stack.push_async_callback(store.aclose)

        async def language_model(name: str) -> LanguageModel:
            if name not in opened:
                opened[name] = await open_model(name, own, progress, limiters)
                stack.push_async_callback(opened[name].aclose)
            return opened[name]

        model = await language_model(plan.model)
        reward: RewardModel | None = None
        if plan.reward_model is not None:
            reward = await open_reward(plan.reward_model, own, progress, language_model)
            stack.push_async_callback(reward.aclose)
        judges = {task.use.whole_name: await stack.enter_async_context(task.open_judge()) for task in tasks}
        yield Desk(plan, model, reward, store, judges, sinks, spent, limit)
