"""The hooks of one sample inside vLLM, apart from vLLM: read from a request, put to rows, reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from ...core.errors import ReasonError, UserError
from ...core.messages import Frozen, LogitsProcessorSpec
from ...core.settings import user_error_of
from ..logits_processors import Hook, HookState, Line, make_hooks
from ..logits_processors.builtin import just
from ..structured_output import SCHEMA, GrammarFailed
from .options import KEY, PROCESSOR

if TYPE_CHECKING:
    from ..logits_processors.base import Row


class Order(Frozen):
    """What a request asks of the hooks.

    Attributes:
        id: Name under which the report is fetched; empty if nobody will.
        sample: Which sample of its request.
        hooks: The hooks, in order.
        json_schema: The JSON schema that the text is held to, as text; empty if there is none.
        eos: Tokens that end a text; None takes those that vLLM stops at.
        scope: Groups of requests that have the same name are different ones in different scopes.
        together: Whether the request is one of a group that is begun as a whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    sample: int = 0
    hooks: tuple[LogitsProcessorSpec, ...] = ()
    json_schema: str = ""
    eos: tuple[int, ...] | None = None
    scope: str = ""
    together: bool = False

    @classmethod
    def read(cls, extra_args: Mapping[str, Any] | None) -> Order | None:
        """The order of a request; None if it has none. Over HTTP it is a JSON string.

        Raises:
            ValueError: It is not an order, or a hook refuses its arguments; vLLM answers with status 400.
        """
        given = (extra_args or {}).get(KEY)
        if given is None:
            return None
        try:
            order = cls.model_validate(json.loads(given) if isinstance(given, str) else given)
            order.make()
        except ValidationError as e:
            raise ValueError(f"{KEY}: {user_error_of(e, 'field', cls.model_fields)}") from e
        except (json.JSONDecodeError, ReasonError) as e:
            raise ValueError(f"{KEY}: {e}") from e
        return order

    def make(self) -> list[tuple[str, Hook]]:
        """The hooks themselves."""
        return make_hooks(self.hooks, "vllm")


class Chain:
    """The hooks of one sample.

    Args:
        order: What was asked for.
        eos: Tokens that end a text, if the order does not say.
        grammar: Holds the text to its schema, as `Grammars.of` gives it; None if there is none.

    Attributes:
        order: What was asked for.
        failure: Code and message of the hook that failed; None if none did.
    """

    def __init__(self, order: Order, eos: Sequence[int] = (), grammar: Hook | None = None) -> None:
        self.order = order
        self.failure: tuple[str, str] | None = None
        # behind all hooks, so that none of them undoes it
        self._hooks = [*order.make(), *([] if grammar is None else [(SCHEMA, grammar)])]
        self._eos = frozenset(eos if order.eos is None else order.eos)
        self._states = {
            name: HookState((), (), order.sample, eos_ids=self._eos, together=order.together) for name, _ in self._hooks
        }

    def line(self, row: Row, prompt_ids: Sequence[int], generated_ids: Sequence[int]) -> Line:
        """A row of logits, and where its sample stands, ready for the hooks.

        The first hook that fails ends its own sample and touches no other: the others then do not run.
        """
        stale = bool(generated_ids) and generated_ids[-1] < 0
        if stale and self.failure is None:
            error = UserError("vLLM does not tell the hooks what was said", hint=f"--logits-processors {PROCESSOR}")
            self.failure = error.code, f"a logits hook failed: {error}"
        hooks = self._hooks if self.failure is None else ()
        return Line(row, prompt_ids, generated_ids, hooks, self._states, self.order.scope)

    def changed(self, line: Line, row: Row) -> Row:
        """The row after the hooks; one that ends the text if a hook has failed.

        Args:
            line: What `line` gave, its hooks run.
            row: The row as it was.
        """
        import numpy as np

        if self.failure is None and line.error is not None:
            code = line.error.code if isinstance(line.error, ReasonError) else "hook_failed"
            told = str(line.error) if isinstance(line.error, GrammarFailed) else f"a logits hook failed: {line.error}"
            self.failure = code, told
        if self.failure is None and line.row is not row and not bool(np.isfinite(line.row).any()):
            self.failure = UserError.code, "a logits hook failed: the hooks forbid every token"
        if self.failure is None:
            return line.row
        ends = sorted(i for i in self._eos if i < len(row))
        return just(row, ends) if ends else row

    def report(self) -> dict[str, Any]:
        """What the hooks measured, by name, and what failed."""
        extras = {name: state.extras for name, state in self._states.items() if state.extras}
        return {"extras": extras, "failure": None if self.failure is None else list(self.failure)}
