"""`OpenedModels`: the models of a reasoner that are open; they serve many runs and are closed together."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

from ..core.budget import refuse_unpriced
from ..core.run import RunConfig
from ..core.settings import LocalSettings, Settings
from ..serving.litellm.limiter import Limiters
from ..serving.model import LanguageModel
from ..serving.pulling import Progress
from ..serving.rewards import RewardModel
from .turn import Turn

Open = Callable[[str, Settings, Progress | None, Limiters], Awaitable[LanguageModel]]
"""Opens a language model by its string (`serving.open`)."""
OpenReward = Callable[
    [str, Settings, Progress | None, Callable[[str], Awaitable[LanguageModel]]], Awaitable[RewardModel]
]
"""Opens a reward model by its string (`serving.rewards`)."""
_Key = tuple[str, LocalSettings]


class OpenedModels:
    """Language models and reward models by their strings, opened when first asked for.

    Args:
        open_model: Opens a language model.
        open_reward: Opens a reward model.
        settings: How models are opened.
        progress: Told how far a model's files are.
        opening: Held while something is opened.
    """

    def __init__(
        self,
        open_model: Open,
        open_reward: OpenReward,
        settings: Settings,
        progress: Progress | None,
        opening: threading.Lock,
    ) -> None:
        self._open_model, self._open_reward_model = open_model, open_reward
        self._settings, self._progress, self._opening = settings, progress, opening
        self._limiters = Limiters()
        self._models: dict[_Key, LanguageModel] = {}
        self._rewards: dict[_Key, RewardModel] = {}

    def names(self) -> frozenset[str]:
        """Strings of the models that are open."""
        return frozenset(name for name, _ in (*self._models, *self._rewards))

    async def open(self, config: RunConfig) -> tuple[dict[str, LanguageModel], RewardModel | None]:
        """A run's language models by role, and its reward model; roles with one model string share it.

        A judge is shared likewise. What is open already is had at once, also while another model is being opened.

        Raises:
            ReasonError: One cannot be opened, or has no price where the budget is in dollars.
        """
        wanted = {role: (name, config.local) for role, name in config.models.items() if role != "embedding"}
        if not all(key in (self._rewards if role == "reward" else self._models) for role, key in wanted.items()):
            async with Turn(self._opening):
                for role, key in wanted.items():
                    await (self._open_reward(key) if role == "reward" else self.language_model(*key))
        models = {role: self._models[key] for role, key in wanted.items() if role != "reward"}
        reward = self._rewards[wanted["reward"]] if "reward" in wanted else None
        for model in models.values():
            refuse_unpriced(config.budget, model.name, model.capabilities.price_known)
        if reward is not None:
            refuse_unpriced(config.budget, reward.name, reward.capabilities.price_known)
        return models, reward

    async def language_model(self, name: str, local: LocalSettings) -> LanguageModel:
        """A language model by its string; the caller has the turn."""
        key = name, local
        if key not in self._models:
            settings = self._settings.model_copy(update={"local": local})
            self._models[key] = await self._open_model(name, settings, self._progress, self._limiters)
        return self._models[key]

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        opened: list[RewardModel | LanguageModel] = [*self._rewards.values(), *self._models.values()]
        self._rewards.clear()
        self._models.clear()
        for model in opened:
            await model.aclose()

    async def _open_reward(self, key: _Key) -> None:
        name, local = key
        if key not in self._rewards:
            settings = self._settings.model_copy(update={"local": local})

            async def language_model(of: str) -> LanguageModel:
                return await self.language_model(of, local)

            self._rewards[key] = await self._open_reward_model(name, settings, self._progress, language_model)
