"""`Strategy`: turns a question into a solution; `Models`: what a strategy works with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, ClassVar, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ..core.errors import CapabilityMissing, UserError
from ..core.registry import Registry
from ..core.registry import Stability as Stability
from ..core.run import Run
from ..core.settings import JURY, jurors_of, user_error_of
from ..core.types import Question, Solution
from ..serving.metered.model import MeteredModel
from ..serving.metered.scorers import MeteredReward
from ..serving.model import Feature

MAX_CHAINS: Final = 4096
"""Maximum samples of one prompt at once, beams, particles and the like; that of `SamplingParams.n`."""
MAX_DEPTH: Final = 1000
"""Maximum steps of a solution."""
MAX_ROUNDS: Final = 10_000
"""Maximum expansions, passes and the like that follow one another."""
MAX_ITEMS: Final = 1000
"""Maximum length of a list, and number of notes, snippets and the like."""
MAX_TOKENS: Final = 1 << 20
"""Maximum tokens of one text; longer than the context of any model."""
MAX_WEIGHT: Final = 1e9
"""Maximum of factors, weights and temperatures that the method does not bound itself."""
MAX_RUN_SAMPLES: Final = 65_536
"""Maximum samples that the parameters of one run may lead to."""


def require_samples_within(strategy: str, factors: Mapping[str, int], maximum: int) -> None:
    """Refuse parameters whose product exceeds the maximum with a `UserError` (see `Parameters.sample_factors`)."""
    product = math.prod(factors.values())
    if product <= maximum:
        return
    values = " * ".join(f"{name} {value:,}" for name, value in factors.items())
    total = f" = {product:,}" if len(factors) > 1 else ""
    names = list(factors)
    lower = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    raise UserError(
        f"the parameters of {strategy} lead to up to {values}{total} samples, more than {maximum:,}",
        hint=f"lower {lower}",
        param=max(factors, key=factors.__getitem__).partition(" ")[0],
    )


EXAMPLE_REWARD = "judge/local/smollm2-135m"
"""A small reward model for hints."""

NON_LANGUAGE_ROLES = frozenset({"reward", "embedding", "knowledge"})
"""Roles that are not language models: the reward model, the embedding model, and knowledge sources."""


class Parameters(BaseModel):
    """Parameters of a strategy: validated and frozen; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
        """What the maximum number of samples of a run is the product of, by parameter; empty for a handful."""
        return {}


class Models:
    """The models of one run by role.

    The main model plays the role of every language model that has none of its own. A reward model exists only if one
    was configured.

    Args:
        by_role: The language models; "main" is always there, except in a run that only verifies a given answer.
        create_self_judge: Makes the language model of a role a reward model that judges its own steps; raises
            `CapabilityMissing` if it cannot be one.
        knowledge: A `knowledge.Knowledge` for a strategy that uses some, a type above this layer; see `knowledge_of`.
        entailment: Metered entailment model for a strategy that requests one (see `Strategy`): a
            `verify.types.Entailment`, a type above this layer. None if not requested or not available.
    """

    def __init__(
        self,
        by_role: Mapping[str, MeteredModel],
        reward: MeteredReward | None = None,
        create_self_judge: Callable[[str], MeteredReward] | None = None,
        knowledge: object | None = None,
        entailment: object | None = None,
    ) -> None:
        self.knowledge = knowledge
        self.entailment = entailment
        self._by_role = dict(by_role)
        self._reward = reward
        self._create_self_judge = create_self_judge
        self._main_role = "main"

    @property
    def main(self) -> MeteredModel:
        """The model that reasons."""
        return self._by_role["main"]

    @property
    def language_models(self) -> tuple[MeteredModel, ...]:
        """All of them, in order of their roles."""
        return tuple(self._by_role.values())

    @property
    def small(self) -> MeteredModel:
        """The model for small steps."""
        return self._by_role.get("small") or self.main

    @property
    def judge(self) -> MeteredModel:
        """The judge model."""
        return self._by_role.get("judge") or self.main

    @property
    def jury(self) -> tuple[MeteredModel, ...]:
        """The models of all jurors; only the main model if there are none.

        Jurors of one model share one object, that of the first of them, so that their requests can be one batch and are
        charged to one role.
        """
        firsts: dict[str, MeteredModel] = {}
        return tuple(firsts.setdefault(m.identity, m) for m in jurors_of(self._by_role)) or (self.main,)

    @property
    def reward(self) -> MeteredReward:
        """The reward model.

        Raises:
            UserError: There is none.
        """
        if self._reward is None:
            raise UserError(
                "scoring steps needs a reward model",
                hint=f"name one with --reward-model (reward_model= in Python), for example {EXAMPLE_REWARD}",
            )
        return self._reward

    def self_judge(self) -> MeteredReward:
        """The main model as a reward model that judges its own steps.

        Raises:
            CapabilityMissing: It supports neither top log-probabilities nor scoring of given text.
        """
        if self._create_self_judge is None:
            raise CapabilityMissing("top_logprobs", self.main.name)
        return self._create_self_judge(self._main_role)

    def with_main(self, role: str) -> Models:
        """The same models with that of another role as the main one, if it has one of its own.

        Its calls stay charged to its own role.
        """
        if role not in self._by_role:
            return self
        models = copy(self)
        models._by_role = {**self._by_role, "main": self._by_role[role]}
        models._main_role = role
        return models

    def has(self, role: str) -> bool:
        """Whether a role has a model of its own."""
        if role == JURY:
            return bool(jurors_of(self._by_role))
        return self._reward is not None if role == "reward" else role in self._by_role


Thinking = Literal["answers", "steps", "thought"]
"""What a strategy does with the thoughts of a model that thinks before it answers: it uses only its answers; it works
on the steps of the answer, before which the model must not think; or it works inside the thought."""


class Strategy(Protocol):
    """One method. Created for every question; holds its parameters and nothing else.

    Attributes:
        summary: One line on what it does.
        confidence: What the confidence of its solutions means, in one sentence; one without a confidence says so.
        requires: Features that its language models must have.
        roles: The roles whose models it uses: "main", "small", "judge"; "jury" for the models of all jurors,
            "reward" for the reward model, "embedding" for the embedding model, "knowledge" for knowledge sources.
        Config: Class of its parameters.

    A strategy may have the attributes `family` and `when_to_use`, one line each; `reason strategies list` shows those
    that have both, by family, and the others with `--all`.

    A strategy may have an attribute `thinking` (`Thinking`); without one it is "answers". One of "steps" is replaced by
    self-consistency where the model always thinks (`thinking.fit_to_thinking`), of as many chains as its property
    `num_chains` says.

    A strategy may have an attribute `supports_tools`; if true, it accepts questions with tools (`Question.tools`), and
    its candidates may be tool calls (`candidates.read_candidate`). Other strategies never get such a question.

    A strategy may have a static method `entailment_model(config, question) -> str`: the string of the entailment model
    that it needs for a question; empty if none. The run then provides it as `Models.entailment`, together with an
    embedding model, or None if they are not available.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    confidence: ClassVar[str]
    stability: ClassVar[Stability]
    requires: ClassVar[frozenset[Feature]]
    roles: ClassVar[tuple[str, ...]]
    Config: ClassVar[type[Parameters]]

    def __init__(self, config: Any) -> None:
        """Take the parameters, an instance of `Config`."""

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        An exhausted budget is no error: the best answer so far is returned with `stopped="budget"`. A strategy sets the
        run's best answer whenever it has a better one, so that a cancelled run has it too.

        Raises:
            BackendError: Every sample failed.
        """


STRATEGIES: Registry[type[Strategy]] = Registry("reason.strategies", "strategy")
"""All strategies, built-in and of other packages, from the entry-point group `reason.strategies`."""

RESOURCES: Registry[Any] = Registry("reason.resources", "resource provider")
"""Providers of what runs use besides language models: "knowledge", "verification" and "rewards" (protocols in
`agents.resources`), and "code_tests", which runs answers that are code (`execution.metered`)."""


def create_strategy(name: str, parameters: Mapping[str, JsonValue]) -> tuple[Strategy, dict[str, JsonValue]]:
    """Create a strategy from the parameters that differ from the defaults; also returns the complete ones.

    Raises:
        UnknownName: There is no such strategy or parameter.
        UserError: A parameter has an invalid value, or the product of several is too large (`limits`).
    """
    config = strategy_config(name, parameters)
    return STRATEGIES.load(name)(config), config.model_dump(mode="json")


def strategy_config(name: str, parameters: Mapping[str, JsonValue]) -> Parameters:
    """The validated parameters of a strategy; raises as `create_strategy`."""
    kind = STRATEGIES.load(name).Config
    config = validate_parameters(kind, name, parameters)
    require_samples_within(name, kind.sample_factors(config.model_dump(mode="json")), MAX_RUN_SAMPLES)
    return config


def requested_entailment(name: str, config: Parameters, question: Question) -> str:
    """The name of the judge that a strategy needs for a question; empty if none."""
    entailment_model = getattr(STRATEGIES.load(name), "entailment_model", None)
    return "" if entailment_model is None else str(entailment_model(config, question))


def validate_parameters(kind: type[Parameters], owner: str, values: Mapping[str, JsonValue]) -> Parameters:
    """Validate the parameters of a strategy or verifier; raises as `create_strategy`."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as e:
        raise user_error_of(e, f"{owner} parameter", kind.model_fields) from e


def require_tool_support(name: str, question: Question, *, has_tools: bool = False) -> None:
    """Refuse a question with tools, or of a run that executes some, if the strategy does not support them."""
    if not (has_tools or question.needs_tools) or supports_tools(name):
        return
    roles = {"main", *STRATEGIES.load(name).roles}  # what needs another model or knowledge is no alternative
    others = [o for o in STRATEGIES.names() if supports_tools(o) and roles.issuperset(STRATEGIES.load(o).roles)]
    raise UserError(
        f"strategy {name} does not support tools",
        hint=f"use {', '.join(others[:-1])} or {others[-1]}, or remove the tools and their messages",
        param="tools",
    )


def supports_tools(name: str) -> bool:
    """Whether a strategy accepts questions with tools."""
    try:
        return bool(getattr(STRATEGIES.load(name), "supports_tools", False))
    except UserError:  # a broken strategy of another package must not hide a question's error
        return False


def require_features(strategy: Strategy | type[Strategy], models: Models, question: Question | None = None) -> None:
    """Refuse a strategy whose required features the models lack, before anything is spent.

    The main model must support the question's tools, every model its attachments.

    Raises:
        CapabilityMissing: Names the feature and the model.
    """
    if question is not None and question.offered_tools and not models.main.capabilities.tools:
        hint = "name a model that takes tools; vLLM needs --enable-auto-tool-choice and --tool-call-parser"
        raise CapabilityMissing("tools", models.main.name, hint=hint)
    for attachment in () if question is None else question.all_attachments:
        for model in models.language_models:
            if attachment.kind not in model.capabilities.inputs:
                hint = f'name another model, or declare inputs = ["{attachment.kind}"] in [profiles."{model.name}"]'
                raise CapabilityMissing(f"{attachment.kind} input", model.name, hint=hint)
    for role in strategy.roles:
        if role in NON_LANGUAGE_ROLES:  # a strategy that needs it raises its own error first
            continue
        for model in models.jury if role == JURY else (getattr(models, role),):
            for feature in sorted(strategy.requires):
                if not model.capabilities.has(feature):
                    raise CapabilityMissing(feature, model.name)
