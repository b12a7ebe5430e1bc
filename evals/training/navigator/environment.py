"""`NavigationEnv`: navigating a chain of thought as a Gymnasium environment, for any library of reinforcement learning.

    env = NavigationEnv.of(plan, tasks, settings, store=Path("runs.sqlite3"))
    state, info = env.reset(seed=0)
    state, reward, ended, _, info = env.step(env.action_space.sample(info["action_mask"]))

An observation is the model's self-assessment, seven scores from 0 to 3; an action is a block, 0 to 4; `action_mask` in
`info` states which make sense. It is the same episode that `reason train navigator` learns from, rewards included.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ....agents.reasoner import Portal
from ....core.errors import UserError
from ....core.settings import Settings
from ....reasoning.rlot.assessment import ASPECTS
from ....reasoning.rlot.blocks import NAMES, Legal
from ...task import Task
from .episodes import EpisodeResources, TrainingEpisode, open_episode_resources
from .plan import NavigatorPlan, Problem, split_problems

try:
    import gymnasium
except ModuleNotFoundError as e:
    raise UserError("the environment needs gymnasium", hint="pip install 'reason-orchestrator[train]'") from e

Scores: TypeAlias = NDArray[np.int64]
T = TypeVar("T")
OpenDesk: TypeAlias = Callable[[], AbstractAsyncContextManager[EpisodeResources]]


class NavigationEnv(gymnasium.Env[Scores, np.int64]):
    """One model navigated on problems, one episode at a time.

    Synchronous; models live on an event loop of their own, started at the first `reset`. Interrupting a call cancels
    what the model is doing. `close` gives everything back; used again afterwards, it opens everything again.

    An action that is masked does no harm: Reason runs instead of a first Refine, and the answer is requested where
    no more blocks may run. `reset(options={"problem": ID})` chooses the problem; else it is sampled with the seed given
    to `reset`, all equally likely. With `truncated` nothing ever ends.

    `info` has `action_mask` (int8, `[5]`; all 0 at the end) and `problem` (dataset and name), and after a step `block`
    (its name; empty if it failed), and at the end `correct` and `error`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(self, open_desk: OpenDesk, problems: Sequence[Problem]) -> None:
        if not problems:
            raise UserError("there is no problem to navigate on", hint="give at least one")
        self.observation_space = gymnasium.spaces.MultiDiscrete([4] * len(ASPECTS))
        self.action_space = gymnasium.spaces.Discrete(len(NAMES))
        self.render_mode = None
        self._open_desk = open_desk
        self._problems = tuple(problems)
        self._portal: Portal | None = None
        self._opened: AbstractAsyncContextManager[EpisodeResources] | None = None
        self._desk: EpisodeResources | None = None
        self._navigation: TrainingEpisode | None = None

    @classmethod
    def of(
        cls, plan: NavigatorPlan, tasks: Sequence[Task], settings: Settings, *, store: Path, held_out: bool = False
    ) -> NavigationEnv:
        """The environment of a training.

        Raises:
            UserError: The half is empty.
        """
        halves = split_problems(plan, tasks)
        return cls(
            lambda: open_episode_resources(plan, tasks, settings, store),
            halves.held_out if held_out else halves.training,
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
        problem = self._wanted((options or {}).get("problem"))
        self._call(lambda: self._begin(problem))
        return self._observed(), self._info()

    def step(self, action: np.int64) -> tuple[Scores, float, bool, bool, dict[str, Any]]:
        """Run a block.

        Raises:
            UserError: No episode is in flight, or there is no such action.
            ReasonError: As `TrainingEpisode.act`.
        """
        navigation = self._navigation
        if navigation is None or navigation.done:
            raise UserError("no episode is in flight", hint="call reset first")
        if not self.action_space.contains(action):
            raise UserError(f"there is no action {action}", hint=f"actions are 0 to {len(NAMES) - 1}")
        moved = self._call(lambda: navigation.act(int(action)))
        values: dict[str, Any] = {"block": "" if moved.block is None else NAMES[moved.block]}
        if moved.done:
            values |= {"correct": navigation.correct, "error": navigation.error}
        return self._observed(), moved.reward, moved.done, False, self._info() | values

    def close(self) -> None:
        """Close models and store; idempotent. An episode in flight is kept in the store as far as it got."""
        portal, self._portal = self._portal, None
        if portal is not None:
            try:
                portal.call(self._shut)
            finally:
                portal.close()

    def _wanted(self, name: str | None) -> Problem:
        if name is None:
            return self._problems[int(self.np_random.integers(len(self._problems)))]
        results = [p for p in self._problems if name in (p.item.id, _named(p))]
        if len(results) != 1:
            raise UserError(
                f"{len(results)} problems are called {name!r}", hint="a name is that of the item, or DATASET/ITEM"
            )
        return results[0]

    async def _begin(self, problem: Problem) -> None:
        if self._desk is None:
            self._opened = self._open_desk()
            self._desk = await self._opened.__aenter__()
        await self._leave()
        self._navigation = TrainingEpisode(self._desk, problem, substitutes=True)
        await self._navigation.begin()

    async def _leave(self) -> None:
        before, self._navigation = self._navigation, None
        if before is not None:
            await before.close()

    async def _shut(self) -> None:
        opened, self._opened, self._desk = self._opened, None, None
        try:
            await self._leave()
        finally:
            if opened is not None:
                await opened.__aexit__(None, None, None)

    def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do the work on the event loop; if the caller is interrupted meanwhile, wait until the work has cleaned up."""
        if self._portal is None:
            self._portal = Portal()
        return self._portal.call(work)

    def _observed(self) -> Scores:
        return np.array((0,) * len(ASPECTS) if self._navigation is None else self._navigation.state, dtype=np.int64)

    def _info(self) -> dict[str, Any]:
        navigation = self._navigation
        over = navigation is None or navigation.done
        legal: Legal = (False,) * 5 if navigation is None or over else navigation.legal
        return {
            "action_mask": np.array(legal, dtype=np.int8),
            "problem": "" if navigation is None else _named(navigation.problem),
        }


def _named(problem: Problem) -> str:
    return f"{problem.dataset}/{problem.item.id}"
