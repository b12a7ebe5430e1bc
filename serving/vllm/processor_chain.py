"""The logits processors of one sample inside vLLM, apart from vLLM: read from a request, applied, reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from ...core.errors import ReasonError, UserError
from ...core.messages import Frozen, LogitsProcessorSpec
from ...core.settings import user_error_of
from ..local.response import ThoughtFollower
from ..local.tokenizer import Tokenizer
from ..logits_processors import LogitsProcessor, ProcessorState, make_logits_processors, run_logits_processors
from ..logits_processors.builtin import keep_only
from ..profiles.profile import ModelProfile
from ..structured_output import SCHEMA, GrammarError
from .options import KEY, PROCESSOR

if TYPE_CHECKING:
    from ..logits_processors.registry import Row


class ProcessorRequest(Frozen):
    """A request's logits processors.

    Attributes:
        id: Name under which the report is fetched; empty if it is not.
        sample: Sample index of its request.
        logits_processors: The logits processors, in order.
        json_schema: The JSON schema that constrains the text, as text; empty if there is none.
        eos: Tokens that end a text; None uses those that vLLM stops at.
        thought: How the model thinks, if the response begins with a thought; None if it begins with the answer.
        is_open: Whether it begins inside the thought.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    sample: int = 0
    logits_processors: tuple[LogitsProcessorSpec, ...] = ()
    json_schema: str = ""
    eos: tuple[int, ...] | None = None
    thought: ModelProfile | None = None
    is_open: bool = False

    @classmethod
    def from_arguments(cls, extra_args: Mapping[str, Any] | None) -> ProcessorRequest | None:
        """Read the `extra_args` of a request; None if it has none. Over HTTP it is a JSON string.

        Raises:
            ValueError: It is invalid, or a processor rejects its arguments; vLLM responds with status 400.
        """
        value = (extra_args or {}).get(KEY)
        if value is None:
            return None
        try:
            request = cls.model_validate(json.loads(value) if isinstance(value, str) else value)
            request.make_processors()
        except ValidationError as e:
            raise ValueError(f"{KEY}: {user_error_of(e, 'field', cls.model_fields)}") from e
        except (json.JSONDecodeError, ReasonError) as e:
            raise ValueError(f"{KEY}: {e}") from e
        return request

    def make_processors(self) -> list[tuple[str, LogitsProcessor]]:
        """The processors themselves."""
        return make_logits_processors(self.logits_processors, "vllm")


class ProcessorChain:
    """The logits processors of one sample.

    Args:
        eos: Tokens that end a text, if the request has none.
        grammar: Constrains the answer to its schema (`GrammarCompiler`); None if there is none.
        tokenizer: Gives the model's tokenizer, which finds where a thought ends; None leaves thoughts unknown.

    Attributes:
        failure: Code and message of the processor that failed; None if none did.
    """

    def __init__(
        self,
        request: ProcessorRequest,
        eos: Sequence[int] = (),
        grammar: LogitsProcessor | None = None,
        tokenizer: Callable[[], Tokenizer] | None = None,
    ) -> None:
        self.request = request
        self.failure: tuple[str, str] | None = None
        # after all processors, so that none of them undoes it
        self._processors = [*request.make_processors(), *([] if grammar is None else [(SCHEMA, grammar)])]
        self._eos = frozenset(eos if request.eos is None else request.eos)
        thought = None
        if request.thought is not None and tokenizer is not None:
            thought = ThoughtFollower(tokenizer, request.thought, is_open=request.is_open)
        self._states = {
            name: ProcessorState((), (), request.sample, eos_ids=self._eos, thought=thought)
            for name, _ in self._processors
        }

    def process(self, row: Row, prompt_ids: Sequence[int], generated_ids: Sequence[int]) -> Row:
        """The row after the processors; one that ends the text once a processor has failed."""
        import numpy as np

        if self.failure is None:
            try:
                if generated_ids and generated_ids[-1] < 0:
                    raise UserError(
                        "vLLM does not pass the generated tokens to the logits processors",
                        hint=f"--logits-processors {PROCESSOR}",
                    )
                processed = run_logits_processors(self._processors, self._states, row, prompt_ids, generated_ids)
                if processed is not row and not bool(np.isfinite(processed).any()):
                    raise UserError("the logits processors forbid every token")
                return processed
            except Exception as error:  # noqa: BLE001 - third-party code: its failure ends its own sample
                code = error.code if isinstance(error, ReasonError) else "logits_processor_failed"
                message = str(error) if isinstance(error, GrammarError) else f"a logits processor failed: {error}"
                self.failure = code, message
        eos = sorted(i for i in self._eos if i < len(row))
        return keep_only(row, eos) if eos else row

    def report(self) -> dict[str, Any]:
        """What the processors measured, by name, and what failed."""
        extras = {name: state.extras for name, state in self._states.items() if state.extras}
        return {"extras": extras, "failure": None if self.failure is None else list(self.failure)}
