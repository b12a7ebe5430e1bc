"""`Verifier`: the protocol of what verifies an answer, and the registry of verifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from pydantic import JsonValue

from ..core.messages import Effect
from ..core.registry import Registry
from ..core.run import Run
from ..core.types import Question, Solution, Verification
from ..reasoning.knowledge import Retriever
from ..reasoning.strategy import Models, Parameters, Stability, validate_parameters
from .types import Entailment

AUTO: Final = "auto"
MODEL: Final = "model"
LEXICAL: Final = "lexical"
BUILT_IN_JUDGES: Final = (MODEL, LEXICAL)
"""Judges that need not be loaded: the run's own judge model, and shared words."""


@dataclass(frozen=True)
class ToolUse:
    """An executed tool call, as evidence.

    Attributes:
        source: Its name in citations: the tool and the beginning of the call's ID.
    """

    source: str
    tool: str
    description: str
    arguments: str
    effect: Effect
    ok: bool
    result: str

    @property
    def call(self) -> str:
        """The tool with the arguments."""
        return f"{self.tool}({self.arguments})"

    @property
    def statement(self) -> str:
        """It as a sentence that a judge can read."""
        return f"The call {self.call} {'succeeded' if self.ok else 'failed'}: {self.result}"


@dataclass(frozen=True)
class VerifierContext:
    """What a verifier works with.

    Attributes:
        entailment: The metered entailment that the verifier's parameters name.
        retriever: Retrieves evidence; None if the run has no evidence.
        tool_uses: The tool calls of the run and of its conversation, in order; None of a run without tools, whose
            answers are not checked for claims of actions.
    """

    run: Run
    models: Models
    entailment: Entailment
    retriever: Retriever | None = None
    tool_uses: tuple[ToolUse, ...] | None = None


class Verifier(Protocol):
    """A method of verification. An instance is created for every answer and holds only its parameters.

    A class with `needs_evidence = False` has something to say without evidence; one with `runs_code = True` runs code
    of answers, which a server's operator has to allow.

    Attributes:
        summary: What it does, in one line.
        Config: Its parameters.
        entailment: The name of its judge (see `load_entailment`); "auto" is resolved before a run begins.
        roles: The roles whose language models it calls with its parameters: "judge", "main". With the judge "auto" it
            calls the judge model where one is named.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    stability: ClassVar[Stability]
    Config: ClassVar[type[Parameters]]

    def __init__(self, config: Any) -> None:
        """Take the parameters, an instance of `Config`."""

    @property
    def entailment(self) -> str:
        """The name of its judge."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose language models it calls."""

    async def verify(self, question: Question, solution: Solution, context: VerifierContext) -> Verification:
        """Verify the text of a solution's chosen candidate; its thought is not part of that.

        An exhausted budget is not an error: the claims that were not reached are "unchecked".

        Raises:
            ReasonError: Nothing could be verified.
        """


@runtime_checkable
class PreparesItself(Protocol):
    """A verifier that needs something of the machine, and says before a run spends anything if it is not there."""

    async def prepare(self) -> None:
        """Find what it needs.

        Raises:
            ReasonError: It is not there.
        """


@runtime_checkable
class IncludesVerifier(Protocol):
    """A verifier that runs another one itself, on the same claims.

    Attributes:
        includes: The other one's name in the registry.
    """

    includes: ClassVar[str]

    def with_included(self, parameters: Mapping[str, JsonValue]) -> Verifier:
        """This verifier in place of both, with the complete parameters of the other one.

        Raises:
            UserError: The parameters of the two contradict each other.
        """


VERIFIERS: Registry[type[Verifier]] = Registry("reason.verifiers", "verifier")
"""All verifiers, ours and other packages'; they register in the entry-point group `reason.verifiers`."""


def make_verifier(name: str, parameters: Mapping[str, JsonValue]) -> tuple[Verifier, dict[str, JsonValue]]:
    """A verifier from the parameters that differ from the defaults, and its complete ones.

    Raises:
        UnknownName: There is no such verifier or parameter.
        UserError: A parameter has a value that is not allowed.
    """
    kind = VERIFIERS.load(name)
    config = validate_parameters(kind.Config, name, parameters)
    return kind(config), config.model_dump(mode="json")


def make_verifiers(names: Sequence[str], parameters: Mapping[str, Mapping[str, JsonValue]]) -> list[Verifier]:
    """The verifiers of a run. One that includes another one of them takes its place, so that claims are split once.

    Raises:
        UnknownName: There is no such verifier or parameter.
        UserError: A parameter has a value that is not allowed, or those of two verifiers contradict each other.
    """
    made = {name: make_verifier(name, parameters.get(name, {})) for name in names}
    included = {v.includes for v, _ in made.values() if isinstance(v, IncludesVerifier)} & made.keys()
    return [
        verifier.with_included(made[verifier.includes][1])
        if isinstance(verifier, IncludesVerifier) and verifier.includes in included
        else verifier
        for name, (verifier, _) in made.items()
        if name not in included
    ]
