"""`NavigationEnv`: navigating a chain of thought as a Gymnasium environment, for any library of reinforcement learning.

    env = NavigationEnv.of(plan, tasks, settings, store=Path("runs.sqlite3"))
    state, info = env.reset(seed=0)
    state, reward, ended, _, info = env.step(env.action_space.sample(info["action_mask"]))

An observation is the model's self-assessment, seven scores from 0 to 3; an action is a block, 0 to 4; `action_mask` in
`info` marks the legal ones. It is the same episode that `reason train navigator` learns from, rewards included.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ....agents.reasoner import SyncBridge
from ....core.errors import UserError
from ....core.extras import missing_package
from ....core.settings import Settings
from ....reasoning.rlot.assessment import ASPECTS
from ....reasoning.rlot.blocks import NAMES, Legal
from ...task import Task
from .episodes import EpisodeResources, TrainingEpisode, open_episode_resources
from .plan import NavigatorPlan, Problem, split_problems

try:
    import gymnasium
except ModuleNotFoundError as e:
    raise missing_package("the environment", e.name, "train") from e

Scores: TypeAlias = NDArray[np.int64]
T = TypeVar("T")
OpenResources: TypeAlias = Callable[[], AbstractAsyncContextManager[EpisodeResources]]


class NavigationEnv(gymnasium.Env[Scores, np.int64]):
    """One model navigated on problems, one episode at a time.

    Synchronous; models live on an event loop of their own, started at the first `reset`. Interrupting a call cancels
    what the model is doing. `close` releases everything; `reset` opens it again.

    A masked action is harmless: Reason runs instead of a first Refine, and the answer is requested where
    no more blocks may run. `reset(options={"problem": ID})` chooses the problem; else it is sampled with the seed given
    to `reset`, all equally likely. `truncated` is always False.

    `info` has `action_mask` (int8, `[5]`; all 0 at the end) and `problem` (dataset and name), and after a step `block`
    (its name; empty if it failed), and at the end `correct` and `error`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(self, open_resources: OpenResources, problems: Sequence[Problem]) -> None:
        if not problems:
            raise UserError("there is no problem to navigate on", hint="pass at least one")
        self.observation_space = gymnasium.spaces.MultiDiscrete([4] * len(ASPECTS))
        self.action_space = gymnasium.spaces.Discrete(len(NAMES))
        self.render_mode = None
        self._open_resources = open_resources
        self._problems = tuple(problems)
        self._bridge: SyncBridge | None = None
        self._opened: AbstractAsyncContextManager[EpisodeResources] | None = None
        self._resources: EpisodeResources | None = None
        self._episode: TrainingEpisode | None = None

    @classmethod
    def of(
        cls, plan: NavigatorPlan, tasks: Sequence[Task], settings: Settings, *, store: Path, held_out: bool = False
    ) -> NavigationEnv:
        """The environment of a training.

        Raises:
            UserError: The split is empty.
        """
        split = split_problems(plan, tasks)
        return cls(
            lambda: open_episode_resources(plan, tasks, settings, store),
            split.held_out if held_out else split.train,
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Scores, dict[str, Any]]:
        """Begin an episode: the model assesses the bare problem.

        Args:
            seed: Seed of the order of problems; None continues with the one before.

        Raises:
            UserError: There is no such problem.
            ReasonError: As `open_episode_resources` and `TrainingEpisode.begin`.
        """
        super().reset(seed=seed)
        problem = self._find_problem((options or {}).get("problem"))
        self._call(lambda: self._begin(problem))
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[Scores, float, bool, bool, dict[str, Any]]:
        """Run a block.

        Raises:
            UserError: No episode is in flight, or there is no such action.
            ReasonError: As `TrainingEpisode.act`.
        """
        episode = self._episode
        if episode is None or episode.done:
            raise UserError("no episode is in flight", hint="call reset first")
        if not self.action_space.contains(action):
            raise UserError(f"there is no action {action}", hint=f"actions are 0 to {len(NAMES) - 1}")
        result = self._call(lambda: episode.act(int(action)))
        values: dict[str, Any] = {"block": "" if result.block is None else NAMES[result.block]}
        if result.done:
            values |= {"correct": episode.correct, "error": episode.error}
        return self._observation(), result.reward, result.done, False, self._info() | values

    def close(self) -> None:
        """Close models and store; idempotent. An episode in flight stays in the store."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            try:
                bridge.call(self._shut)
            finally:
                bridge.close()

    def _find_problem(self, name: str | None) -> Problem:
        if name is None:
            return self._problems[int(self.np_random.integers(len(self._problems)))]
        results = [p for p in self._problems if name in (p.item.id, _named(p))]
        if len(results) != 1:
            raise UserError(
                f"{len(results)} problems are called {name!r}", hint="a name is that of the item, or DATASET/ITEM"
            )
        return results[0]

    async def _begin(self, problem: Problem) -> None:
        if self._resources is None:
            self._opened = self._open_resources()
            self._resources = await self._opened.__aenter__()
        await self._leave()
        self._episode = TrainingEpisode(self._resources, problem, substitute=True)
        await self._episode.begin()

    async def _leave(self) -> None:
        before, self._episode = self._episode, None
        if before is not None:
            await before.close()

    async def _shut(self) -> None:
        opened, self._opened, self._resources = self._opened, None, None
        try:
            await self._leave()
        finally:
            if opened is not None:
                await opened.__aexit__(None, None, None)

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do the work on the event loop; if the caller is interrupted meanwhile, wait until the work has cleaned up."""
        if self._bridge is None:
            self._bridge = SyncBridge()
        return self._bridge.call(work)

    def _observation(self) -> Scores:
        return np.array((0,) * len(ASPECTS) if self._episode is None else self._episode.state, dtype=np.int64)

    def _info(self) -> dict[str, Any]:
        episode = self._episode
        over = episode is None or episode.done
        legal: Legal = (False,) * 5 if episode is None or over else episode.legal
        return {
            "action_mask": np.array(legal, dtype=np.int8),
            "problem": "" if episode is None else _named(episode.problem),
        }


def _named(problem: Problem) -> str:
    return f"{problem.dataset}/{problem.item.id}"
