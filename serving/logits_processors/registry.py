"""The interface of logits processors, the registry that finds and runs them, and checks of their arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import LogitsProcessorSpec
from ...core.registry import entry_points_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row = NDArray[np.float32]

ENTRY_POINTS: Final = "reason.logits_processors"
"""Entry-point group of the factories."""

REPORTS_PAGE = "/v1/reason/reports"
PROCESSORS_PAGE = "/v1/reason/logits_processors"
"""Routes of our endpoint plug-in on a vLLM server: reports of logits processors, and which are installed."""


class ThoughtState(Protocol):
    """The thought of a sample that begins with one (`response.ThoughtFollower`)."""

    def answer_start(self, prompt_ids: Sequence[int], generated_ids: Sequence[int]) -> int | None:
        """Number of generated tokens up to the end of the thought's closing tag; None if it is not closed."""

    @property
    def begun_answer(self) -> list[int]:
        """Tokens of the answer's text in the token that closed the thought; mostly none."""


@dataclass
class ProcessorState:
    """The sample that a row belongs to.

    Attributes:
        prompt_ids: Tokens of the prompt, its prefix included.
        generated_ids: Tokens of the sample so far; the row is of the token after them.
        extras: What the processor reports in `Completion.extras` under its name; JSON values.
        eos_ids: Tokens that end a text.
        memory: State of a processor between two tokens, under a key of its own. An engine may request the same position
            twice (a prompt computed in chunks): the second time counts.
        thought: Where the sample's thought ends; None if it begins with none.
    """

    prompt_ids: Sequence[int]
    generated_ids: Sequence[int]
    sample_index: int
    extras: dict[str, Any] = field(default_factory=dict)
    eos_ids: frozenset[int] = frozenset()
    memory: dict[object, Any] = field(default_factory=dict)
    thought: ThoughtState | None = None

    @property
    def answer_start(self) -> int | None:
        """Number of generated tokens before the answer; None while the sample thinks."""
        return 0 if self.thought is None else self.thought.answer_start(self.prompt_ids, self.generated_ids)


LogitsProcessor = Callable[["Row", ProcessorState], "Row"]
ProcessorFactory = Callable[..., LogitsProcessor]


def logits_processor_names() -> frozenset[str]:
    """Names of all registered processors."""
    return frozenset(e.name for e in entry_points_in(ENTRY_POINTS))


def make_logits_processors(specs: Sequence[LogitsProcessorSpec], model: str) -> list[tuple[str, LogitsProcessor]]:
    """The processors of a request, in order, with their names.

    Raises:
        CapabilityMissing: No processor of that name is registered.
        UserError: A processor does not take these arguments.
    """
    return [(spec.name, _make(spec, model)) for spec in specs]


def _make(spec: LogitsProcessorSpec, model: str) -> LogitsProcessor:
    entries = entry_points_in(ENTRY_POINTS, spec.name)
    if not entries:
        error = CapabilityMissing(f"logits processor {spec.name}", model, alternative="")
        registered = ", ".join(sorted(logits_processor_names())) or "none"
        error.hint = f"registered logits processors: {registered}"
        raise error
    factory: ProcessorFactory = entries[0].load()
    try:
        return factory(**spec.args)
    except TypeError as error:
        raise UserError(f"logits processor {spec.name!r} does not take {spec.args!r}: {error}") from error


def run_logits_processors(
    processors: Sequence[tuple[str, LogitsProcessor]],
    states: Mapping[str, ProcessorState],
    row: Row,
    prompt_ids: Sequence[int],
    generated_ids: Sequence[int],
) -> Row:
    """Run a sample's processors on its row of logits, each on the row that the previous one returned."""
    import numpy as np

    for name, processor in processors:
        state = states[name]
        state.prompt_ids, state.generated_ids = prompt_ids, generated_ids
        row = np.asarray(processor(row, state), dtype=np.float32)
    return row


# -- checks of arguments


def token_ids(processor: str, name: str, value: object) -> list[int]:
    """A list of token ids without repetitions.

    Raises:
        UserError: The value is no such list; names the processor and the argument.
    """
    return list(dict.fromkeys(token_sequence(processor, name, value)))


def token_sequence(processor: str, name: str, value: object) -> list[int]:
    """A sequence of token ids with repetitions. Raises as `token_ids`."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value
    ):
        raise UserError(f"logits processor {processor!r}: {name} must be a list of token ids, got {value!r}")
    return list(value)


def count(processor: str, name: str, value: object, min_value: int = 0) -> int:
    """An integer of at least `min_value`. Raises as `token_ids`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < min_value:
        raise UserError(
            f"logits processor {processor!r}: {name} must be an integer of at least {min_value}, got {value!r}"
        )
    return value


def number(processor: str, name: str, value: object) -> float:
    """A finite number. Raises as `token_ids`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"logits processor {processor!r}: {name} must be a finite number, got {value!r}")
    return float(value)


def within(processor: str, ids: Sequence[int], row: Row) -> list[int]:
    """The ids, if all of them are in the vocabulary.

    Raises:
        UserError: One is not; names it.
    """
    if ids and max(ids) >= len(row):
        raise UserError(f"logits processor {processor!r}: token {max(ids)} is not in a vocabulary of {len(row)}")
    return list(ids)
