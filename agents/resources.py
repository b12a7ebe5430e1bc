"""What runs work with: models, knowledge and verifier resources, loaded at first use and shared by many runs.

Knowledge and verifier resources plug in: `RESOURCES` has their providers, which the first run that needs one imports.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeVar, cast

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from ..core.budget import Budget, LimitKind, require_known_price
from ..core.concurrency import CrossLoopLock
from ..core.errors import DataError, UserError
from ..core.files import Progress
from ..core.messages import Effect, Frozen, Tool
from ..core.run import Run, RunConfig, ToolRule
from ..core.settings import LocalSettings, Settings
from ..core.store.records import RunRecord
from ..reasoning.knowledge import Knowledge, SourceLike
from ..reasoning.strategy import RESOURCES, Models, Strategy
from ..serving.litellm.limiter import LimiterRegistry
from ..serving.metered.replay import ReplayModel, ReplayReward
from ..serving.model import Capabilities, LanguageModel
from ..serving.rewards.model import RewardCapabilities, RewardModel
from ..verify.verifier import Verifier, VerifierContext
from .loop.tool import READ_RESULT, ExecutableTool, ToolCallContext, tool_of, tool_spec


class KnowledgeProvider(Protocol):
    """Opens knowledge sources, memories and embedding models, and keeps them for other runs."""

    async def load(
        self,
        config: RunConfig,
        settings: Settings,
        sources: Sequence[SourceLike],
        progress: Progress | None,
        record: RunRecord | None = None,
    ) -> Knowledge:
        """The knowledge of a run."""

    def recorded(self, record: RunRecord, *, has_time_limit: bool) -> Knowledge:
        """The knowledge of a stored run, which answers from the run store only."""

    async def aclose(self) -> None:
        """Close everything; idempotent."""


class ToolProvider(Protocol):
    """Opens tools by their descriptions, and keeps what they need for other runs."""

    async def open(self, spec: str, settings: Settings, context: Sequence[str] = ()) -> list[ExecutableTool]:
        """The tools of a description; `context` are the run's knowledge sources."""

    async def aclose(self) -> None:
        """Close everything; idempotent."""


class VerifierResources(Protocol):
    """The judges and the retriever of one run."""

    def for_strategy(self, run: Run) -> object | None:
        """The entailment model of the run's strategy, charged to the run; None if it has none that was loaded."""

    def context(self, run: Run, models: Models, entailment: str) -> VerifierContext:
        """What a verifier with this judge works with in a run, charged to it."""

    def identities(self) -> dict[str, Any]:
        """What a replay needs to know, by role."""


class VerificationProvider(Protocol):
    """Opens the judges and retrievers of verifiers, and keeps them for other runs."""

    async def load(
        self,
        config: RunConfig,
        verifiers: Sequence[Verifier],
        settings: Settings,
        progress: Progress | None,
        strategy_judge: str = "",
    ) -> VerifierResources:
        """The resources of a run's verifiers and of its strategy, which requests a judge or none."""

    def recorded(self, record: RunRecord, config: RunConfig, strategy_judge: str = "") -> VerifierResources:
        """The resources of a stored run, which answer from the run store only."""

    @staticmethod
    def resolve_judge(name: str, settings: Settings, *, has_judge_model: bool) -> str:
        """The name of the judge that a name stands for, of which "auto" depends on the machine."""

    async def aclose(self) -> None:
        """Close everything; idempotent."""


@dataclass
class ProviderPool:
    """The providers of one reasoner, made at first use and closed together."""

    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def knowledge(self) -> KnowledgeProvider:
        """The provider of knowledge."""
        return cast(KnowledgeProvider, self._provider("knowledge"))

    @property
    def verification(self) -> VerificationProvider:
        """The provider of judges and retrievers."""
        return cast(VerificationProvider, self._provider("verification"))

    @property
    def tools(self) -> ToolProvider:
        """The provider of tools."""
        return cast(ToolProvider, self._provider("tools"))

    async def aclose(self) -> None:
        """Close the providers; idempotent."""
        made, self._made = self._made, {}
        async with AsyncExitStack() as stack:  # which closes the others too if one of them fails
            for provider in made.values():
                stack.push_async_callback(provider.aclose)

    def _provider(self, name: str) -> Any:
        made = self._made
        if name not in made:
            made.setdefault(name, RESOURCES.load(name)())  # a replay on another loop may have made it meanwhile
        return made[name]


@dataclass(frozen=True)
class RunResources:
    """What one run works with."""

    models: Mapping[str, LanguageModel]
    strategy: Strategy | None = None
    reward: RewardModel | None = None
    knowledge: Knowledge = field(default_factory=Knowledge)
    verifiers: Sequence[Verifier] = ()
    verifying: VerifierResources | None = None
    tools: Mapping[str, ExecutableTool] = field(default_factory=dict)
    tool_notes: Sequence[str] = ()
    """How the tools differ from those that the stored run began with."""

    def by_role(self) -> dict[str, LanguageModel | RewardModel]:
        """All models by role, the reward model included."""
        return {**self.models, **({} if self.reward is None else {"reward": self.reward})}


# -- tools


ToolLike = ExecutableTool | Callable[..., Any] | str
"""A tool, a function that becomes one (`tool_of`), or a description as of `--tool`."""


async def load_tools(
    config: RunConfig,
    settings: Settings,
    objects: Sequence[ToolLike],
    providers: ProviderPool,
    record: RunRecord | None,
) -> tuple[dict[str, ExecutableTool], list[str]]:
    """A run's tools by name, and how they differ from those that the stored run began with.

    Args:
        objects: Tools of this process; others are opened by their descriptions.

    Raises:
        UserError: A tool cannot be opened, two have one name, or one changes something and nobody can approve that.
    """
    given = {tool_spec(tool): tool for tool in objects if not isinstance(tool, str)}
    tools: dict[str, ExecutableTool] = {}
    for spec in (*config.tools, READ_RESULT):
        if spec in given:
            tool = given[spec]
            opened = [tool if isinstance(tool, ExecutableTool) else tool_of(tool)]
        else:
            try:
                opened = await providers.tools.open(spec, settings, config.context)
            except UserError:
                if record is None:
                    raise
                continue  # it stays declared
        rule = config.tool_rules.get(spec, ToolRule())
        for tool in opened:
            effect = settings.tools.effects.get(tool.name, tool.effect)
            if not rule.allow.matches(tool.name, effect):
                continue
            if tool.name in tools or any(tool.name == other.name for other in config.question.tools):
                raise UserError(
                    f"two tools are called {tool.name!r}",
                    hint="leave one out, or set a prefix for its server (`[tools.mcp.NAME]`)",
                )
            asks = tool.asks or rule.asks(tool.name, effect)
            tools[tool.name] = replace(tool, effect=effect, asks=asks, source=spec)
    if record is not None and "tools" in record.identities:
        return recorded_tools(record, tools)
    changing = next((tool for tool in tools.values() if tool.effect != "read"), None)
    if config.approve is None and changing is not None:
        raise UserError(
            f"tool {changing.name} changes something, and nobody can approve its calls",
            hint="set approve (--approve): never, all, or writes, which waits for a decision; or pass approver=",
            param="approve",
        )
    return tools, []


class RecordedTool(Frozen):
    """What a stored run keeps of a tool; `source` is its description in the configuration."""

    declaration: Tool
    effect: Effect
    result_chars: int
    source: str

    @classmethod
    def of(cls, tool: ExecutableTool) -> Self:
        """The record of a tool."""
        return cls(declaration=tool.declaration, effect=tool.effect, result_chars=tool.result_chars, source=tool.source)


def recorded_tools(
    record: RunRecord, loaded: Mapping[str, ExecutableTool]
) -> tuple[dict[str, ExecutableTool], list[str]]:
    """The tools of a stored run with its declarations, since others would change every prompt; and what has changed.

    A tool that is not loaded stays declared, and its calls get an error result.
    """
    try:
        recorded = _RECORDED_TOOLS.validate_python(record.identities.get("tools", []))
    except ValidationError as e:
        raise DataError(f"run {record.id} was made by another version of reason", hint="ask the question again") from e
    tools: dict[str, ExecutableTool] = {}
    notes: list[str] = []
    for one in recorded:
        name = one.declaration.name
        known = loaded.get(name) or ExecutableTool(declaration=one.declaration, call=_missing, effect=one.effect)
        if (known.declaration, known.effect) != (one.declaration, one.effect):
            notes.append(f"the tool {name} has changed since the run began; its first declaration is used")
        tools[name] = replace(
            known, declaration=one.declaration, effect=one.effect, result_chars=one.result_chars, source=one.source
        )
    return tools, notes


_RECORDED_TOOLS: TypeAdapter[list[RecordedTool]] = TypeAdapter(list[RecordedTool], config=ConfigDict(defer_build=True))


async def _missing(arguments: Mapping[str, JsonValue], context: ToolCallContext) -> object:
    raise UserError("the tool is not available any more")


# -- models

LoadModel = Callable[[str, Settings, Progress | None, LimiterRegistry], Awaitable[LanguageModel]]
LoadRewardModel = Callable[
    [str, Settings, Progress | None, Callable[[str], Awaitable[LanguageModel]]], Awaitable[RewardModel]
]
_Key = tuple[str, LocalSettings]


async def load_reward_model(
    name: str,
    settings: Settings,
    progress: Progress | None,
    language_model: Callable[[str], Awaitable[LanguageModel]],
) -> RewardModel:
    """Load a reward model by its string, with the loader that plugs in."""
    return await cast(LoadRewardModel, RESOURCES.load("rewards"))(name, settings, progress, language_model)


IN_PROCESS = ("local/", "gguf/", "vllm/", "judge/local/", "judge/gguf/", "judge/vllm/")
"""Beginnings of the strings of models whose weights are loaded into this process."""


class ModelPool:
    """Language models and reward models by their strings, loaded at first use, shared by many runs, closed together."""

    def __init__(
        self,
        load_model: LoadModel,
        load_reward_model: LoadRewardModel,
        settings: Settings,
        progress: Progress | None,
        lock: threading.Lock,
    ) -> None:
        self._load_model, self._load_reward_model = load_model, load_reward_model
        self._settings, self._progress, self._lock = settings, progress, lock
        self._limiters = LimiterRegistry()
        self._models: dict[_Key, LanguageModel] = {}
        self._rewards: dict[_Key, RewardModel] = {}

    def names(self) -> frozenset[str]:
        """Strings of the loaded models."""
        return frozenset(name for name, _ in (*self._models, *self._rewards))

    async def load(self, config: RunConfig) -> tuple[dict[str, LanguageModel], RewardModel | None]:
        """A run's language models by role, and its reward model; roles with one model string share the model.

        What is loaded already is returned at once, also while another model is being loaded.
        """
        keys = {role: (name, config.local) for role, name in config.models.items() if role != "embedding"}
        if not all(key in (self._rewards if role == "reward" else self._models) for role, key in keys.items()):
            async with CrossLoopLock(self._lock):
                # first what takes no time, so that a wrong name or a missing key is told before weights are loaded
                for role, key in sorted(keys.items(), key=lambda item: item[1][0].startswith(IN_PROCESS)):
                    await (self._reward_model(key) if role == "reward" else self.language_model(*key))
        models = {role: self._models[key] for role, key in keys.items() if role != "reward"}
        reward = self._rewards[keys["reward"]] if "reward" in keys else None
        for model in models.values():
            require_known_price(config.budget, model.name, model.capabilities.price_known)
        if reward is not None:
            require_known_price(config.budget, reward.name, reward.capabilities.price_known)
        return models, reward

    async def language_model(self, name: str, local: LocalSettings) -> LanguageModel:
        """A language model by its string; the caller holds the lock."""
        key = name, local
        if key not in self._models:
            settings = self._settings.model_copy(update={"local": local})
            self._models[key] = await self._load_model(name, settings, self._progress, self._limiters)
        return self._models[key]

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        loaded: list[RewardModel | LanguageModel] = [*self._rewards.values(), *self._models.values()]
        self._rewards.clear()
        self._models.clear()
        async with AsyncExitStack() as stack:  # which closes the others too if one of them fails
            for model in reversed(loaded):
                stack.push_async_callback(model.aclose)

    async def _reward_model(self, key: _Key) -> None:
        name, local = key
        if key not in self._rewards:
            settings = self._settings.model_copy(update={"local": local})

            async def language_model(of: str) -> LanguageModel:
                return await self.language_model(of, local)

            self._rewards[key] = await self._load_reward_model(name, settings, self._progress, language_model)


# -- replays

CapabilitiesT = TypeVar("CapabilitiesT", Capabilities, RewardCapabilities)


def recorded_models(
    record: RunRecord, config: RunConfig, *, has_time_limit: bool
) -> tuple[dict[str, LanguageModel], RewardModel | None]:
    """The language models of a stored run by role, and its reward model if it had one."""
    models: dict[str, LanguageModel] = {}
    reward: RewardModel | None = None
    for role, name in config.models.items():
        if role == "embedding":
            continue
        recorded = record.identities.get(role)
        if not isinstance(recorded, dict):
            raise DataError(f"run {record.id} was stopped before its models were recorded", hint="resume it instead")
        if role == "reward":
            reward = _recorded_reward(name, recorded, record, config.budget)
            continue
        models[role] = ReplayModel(
            name,
            str(recorded["identity"]),
            _recorded_capabilities(Capabilities, recorded, record),
            limit="seconds" if has_time_limit else None,
            finished=record.status == "finished",
        )
    return models, reward


def _recorded_reward(name: str, recorded: Mapping[str, Any], record: RunRecord, budget: Budget) -> ReplayReward:
    is_stopped = record.answer is not None and record.answer.get("stopped") == "budget"
    # the ledger of the replay enforces the other limits
    limit: LimitKind | None = "seconds" if budget.seconds is not None else "usd" if budget.usd is not None else None
    return ReplayReward(
        name,
        str(recorded["identity"]),
        _recorded_capabilities(RewardCapabilities, recorded, record),
        finished=record.status == "finished",
        limit=limit if is_stopped else None,
    )


def _recorded_capabilities(kind: type[CapabilitiesT], recorded: Mapping[str, Any], record: RunRecord) -> CapabilitiesT:
    try:
        return kind.model_validate(recorded["capabilities"])
    except ValidationError as e:
        raise DataError(f"run {record.id} was made by another version of reason", hint="ask the question again") from e
