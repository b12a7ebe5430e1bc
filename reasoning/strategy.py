"""`Strategy`: how a question is turned into a solution; and `Models`, what a strategy works with.

`Knowledge`: what a run may know beside its models: external brains, a lasting memory, and what compares texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ..core.answer import Solution
from ..core.errors import CapabilityMissing, UserError
from ..core.model_roles import CHAIR, JURY, jurors_of
from ..core.question import Question
from ..core.registry import Registry
from ..core.run import Run
from ..core.settings import explain
from ..core.stability import Stability as Stability
from ..serving.embeddings import EmbeddingModel
from ..serving.metered import MeteredModel
from ..serving.metered_rewards import MeteredReward
from ..serving.model import Feature
from .memory.named import NamedMemory
from .retrieval.sources.protocol import Brain


@dataclass(frozen=True)
class Knowledge:
    """What a run may know.

    Attributes:
        brains: What is asked for snippets; a memory that is to be recalled is among them.
        memory: Where what the answer rests on is kept for other runs; None keeps nothing.
        embedding: Compares texts, metered; None where no embedding model can be had.
    """

    brains: tuple[Brain, ...] = ()
    memory: NamedMemory | None = None
    embedding: EmbeddingModel | None = None


EXAMPLE_REWARD = "judge/local/smollm2-135m"
"""A reward model that everybody can have."""

NOT_LANGUAGE = frozenset({"reward", "embedding", "brain"})
"""Roles that no language model plays: what scores, what compares texts, and what is asked for knowledge."""


class Parameters(BaseModel):
    """Parameters of a strategy: checked, frozen, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Models:
    """The models of one run by role.

    A role of a language model that was given none of its own is played by the main model. A reward model is there only
    if one was given.

    Args:
        by_role: The language models; "main" is always there, but for a run whose answer was given to it.
        reward: The reward model.
        own_judge: Makes the language model of a role a reward model that judges its own steps; raises
            `CapabilityMissing` if it cannot be one.
        knowledge: What may be known beside; None is nothing.
        leader: The role under which the run knows the main model.
        entailment: What tells whether a text supports a claim, metered, for a strategy that wants it (see `Strategy`):
            a `verify.entailment.protocol.Entailment`, which this layer does not know. None where it wants none, or
            where it cannot be had.
    """

    def __init__(
        self,
        by_role: Mapping[str, MeteredModel],
        reward: MeteredReward | None = None,
        own_judge: Callable[[str], MeteredReward] | None = None,
        knowledge: Knowledge | None = None,
        leader: str = "main",
        entailment: object | None = None,
    ) -> None:
        self.knowledge = knowledge or Knowledge()
        self.entailment = entailment
        self._by_role = dict(by_role)
        self._reward = reward
        self._own_judge = own_judge
        self._leader = leader

    @property
    def main(self) -> MeteredModel:
        """The model that reasons."""
        return self._by_role["main"]

    @property
    def small(self) -> MeteredModel:
        """The model for small steps."""
        return self._by_role.get("small") or self.main

    @property
    def judge(self) -> MeteredModel:
        """The model that judges."""
        return self._by_role.get("judge") or self.main

    @property
    def chair(self) -> MeteredModel:
        """The model that makes one answer of the jurors'."""
        return self._by_role.get(CHAIR) or self.main

    @property
    def jury(self) -> tuple[MeteredModel, ...]:
        """The jurors' models, one a juror; the main model alone where none was given.

        Jurors of one model have the same object, that of the first of them: so their requests can be one batch, and are
        charged to one role.
        """
        firsts: dict[str, MeteredModel] = {}
        return tuple(firsts.setdefault(m.identity, m) for m in jurors_of(self._by_role)) or (self.main,)

    @property
    def reward(self) -> MeteredReward:
        """The model that scores steps.

        Raises:
            UserError: None was given.
        """
        if self._reward is None:
            raise UserError(
                "steps are to be scored, and no reward model was given",
                hint=f"name one with --reward-model (reward_model= in Python), for example {EXAMPLE_REWARD}",
            )
        return self._reward

    def own_judge(self) -> MeteredReward:
        """The main model as a reward model: it is asked of each of its steps whether that is right.

        Raises:
            CapabilityMissing: It shows neither likely tokens nor scores of given text.
        """
        if self._own_judge is None:
            raise CapabilityMissing("top_logprobs", self.main.name)
        return self._own_judge(self._leader)

    def led_by(self, role: str) -> Models:
        """The same models with that of another role as the main one, for a strategy that is to work with it.

        Its calls stay charged to its own role. A role that was given no model of its own is played by the main one, and
        nothing changes.

        Args:
            role: "small" or "judge".
        """
        if role not in self._by_role:
            return self
        by_role = {**self._by_role, "main": self._by_role[role]}
        return Models(by_role, self._reward, self._own_judge, self.knowledge, leader=role, entailment=self.entailment)

    def has(self, role: str) -> bool:
        """Whether a role was given a model of its own."""
        match role:
            case "reward":
                return self._reward is not None
            case "embedding":
                return self.knowledge.embedding is not None
            case "brain":
                return bool(self.knowledge.brains)
            case "jury":
                return bool(jurors_of(self._by_role))
        return role in self._by_role


class Strategy(Protocol):
    """One method. Made anew for every question; holds its parameters and nothing else.

    Attributes:
        name: Its name in the registry.
        summary: What it does, in one line.
        paper: Where it comes from; empty if nowhere.
        stability: "stable", "beta" or "experimental".
        requires: What its language models must be able to do.
        roles: The roles whose models it uses: "main", "small", "judge", "chair"; "jury" for the models of all jurors,
            "reward" for the reward model, "embedding" for what compares texts, "brain" for what is asked for knowledge.
        Config: Its parameters.

    A strategy may have an attribute `takes_tools`; where that is true, it can be asked with tools (`Question.tools`): a
    candidate of it may be a call (`candidates.read_candidate`). Without it no question with tools gets to it.

    A strategy may have a method `comparing(question) -> str`: the string of the entailment that it wants for a
    question, with its parameters; empty if none. It gets that as `Models.entailment`, and an embedding model beside it,
    or None where they cannot be had.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    stability: ClassVar[Stability]
    requires: ClassVar[frozenset[Feature]]
    roles: ClassVar[tuple[str, ...]]
    Config: ClassVar[type[Parameters]]

    def __init__(self, config: Any) -> None:
        """Take the parameters, an instance of `Config`."""

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Answer the question.

        A spent budget is no error here: the best answer so far comes back with `stopped="budget"`. A strategy offers
        its best answer so far with `run.offer` whenever it has a better one, so that a cancelled run has it too.

        Raises:
            BackendError: No sample could be had at all.
        """


STRATEGIES: Registry[type[Strategy]] = Registry("reason.strategies", "strategy")
"""All strategies, ours and other packages'; they register in the entry-point group `reason.strategies`."""


def make_strategy(name: str, parameters: Mapping[str, JsonValue]) -> tuple[Strategy, dict[str, JsonValue]]:
    """A strategy with its parameters.

    Args:
        name: Its name in the registry.
        parameters: Those that differ from the defaults.

    Returns:
        The strategy, and its parameters complete.

    Raises:
        UnknownName: There is no such strategy or parameter.
        UserError: A parameter has a value that is not allowed.
    """
    kind = STRATEGIES.load(name)
    config = checked_parameters(kind.Config, name, parameters)
    return kind(config), config.model_dump(mode="json")


def checked_parameters(kind: type[Parameters], owner: str, given: Mapping[str, JsonValue]) -> Parameters:
    """Parameters of a strategy or verifier.

    Args:
        kind: Its `Config`.
        owner: Its name, for messages.
        given: Those that differ from the defaults.

    Raises:
        UnknownName: There is no such parameter.
        UserError: A parameter has a value that is not allowed.
    """
    try:
        return kind.model_validate(dict(given))
    except ValidationError as e:
        raise explain(e, f"{owner} parameter", kind.model_fields) from e


def refuse_tools(name: str, question: Question) -> None:
    """Refuse a question with tools that a strategy does not take.

    Args:
        name: The strategy's name in the registry.
        question: What is asked.

    Raises:
        UserError: The strategy takes none; the hint lists those that do.
    """
    if not question.needs_tools or takes_tools(STRATEGIES.load(name)):
        return
    others = [other for other in STRATEGIES.names() if _takes_tools_if_it_loads(other)]
    raise UserError(
        f"strategy {name} takes no tools",
        hint=f"ask {', '.join(others[:-1])} or {others[-1]}, or leave the tools and their turns away",
        param="tools",
    )


def takes_tools(strategy: Strategy | type[Strategy]) -> bool:
    """Whether a strategy can be asked with tools."""
    return bool(getattr(strategy, "takes_tools", False))


def _takes_tools_if_it_loads(name: str) -> bool:
    try:
        return takes_tools(STRATEGIES.load(name))
    except UserError:  # another package's, which is broken: no reason to hide this question's fault
        return False


def require_features(strategy: Strategy | type[Strategy], models: Models, question: Question | None = None) -> None:
    """Refuse a strategy that the models cannot serve, before anything is spent.

    Args:
        strategy: The strategy.
        models: The models.
        question: What is asked; with tools, the main model must be able to show them.

    Raises:
        CapabilityMissing: Names the feature and the model.
    """
    if question is not None and question.offered_tools and not models.main.capabilities.tools:
        raise CapabilityMissing("tools", models.main.name, alternative="")
    for role in strategy.roles:
        if role in NOT_LANGUAGE:  # a strategy that cannot do without it asks for it first of all
            continue
        for model in models.jury if role == JURY else (getattr(models, role),):
            for feature in sorted(strategy.requires):
                if not model.capabilities.has(feature):
                    raise CapabilityMissing(feature, model.name)
