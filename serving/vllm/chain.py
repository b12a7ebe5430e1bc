"""The hooks of one sample inside vLLM, apart from vLLM: read from a request, applied to rows, reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from ...core.errors import ReasonError, UserError
from ...core.messages import Frozen, HookCall
from ...core.settings import explain
from ..hooks import Hook, HookState, make_hooks
from ..hooks.tokens import just
from .options import KEY, PROCESSOR

if TYPE_CHECKING:
    from ..hooks.registry import Row


class Order(Frozen):
    """What a request asks of the hooks.

    Attributes:
        id: Name under which the report is fetched; empty if nobody will.
        sample: Which sample of its request.
        hooks: The hooks, in order.
        eos: Tokens that end a text; None takes those that vLLM stops at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    sample: int = 0
    hooks: tuple[HookCall, ...] = ()
    eos: tuple[int, ...] | None = None

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
            raise ValueError(f"{KEY}: {explain(e, 'field', cls.model_fields)}") from e
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

    Attributes:
        order: What was asked for.
        failure: Code and message of the hook that failed; None if none did.
    """

    def __init__(self, order: Order, eos: Sequence[int] = ()) -> None:
        self.order = order
        self.failure: tuple[str, str] | None = None
        self._hooks = order.make()
        self._eos = frozenset(eos if order.eos is None else order.eos)
        self._states = {name: HookState((), (), order.sample, eos_ids=self._eos) for name, _ in self._hooks}
        self._prompt: Sequence[int] = ()
        self._generated: Sequence[int] = ()

    def place(self, prompt_ids: Sequence[int], generated_ids: Sequence[int]) -> None:
        """Say where the sample stands. A list that grows may be given once."""
        self._prompt, self._generated = prompt_ids, generated_ids
        for state in self._states.values():
            state.prompt_ids, state.generated_ids = prompt_ids, generated_ids

    def __call__(self, row: Row) -> Row:
        """Apply the hooks to a row of logits. A hook that fails ends its own sample and touches no other."""
        if self.failure is None:
            try:
                return self._apply(row)
            except ReasonError as e:
                self.failure = e.code, f"a logits hook failed: {e}"
            except Exception as e:  # noqa: BLE001 - a hook is foreign code: its failure belongs to its sample alone
                self.failure = "hook_failed", f"a logits hook failed: {e}"
        ends = sorted(i for i in self._eos if i < len(row))
        return just(row, ends) if ends else row

    def _apply(self, row: Row) -> Row:
        import numpy as np

        if self._generated and self._generated[-1] < 0:
            raise UserError("vLLM does not tell the hooks what was said", hint=f"--logits-processors {PROCESSOR}")
        changed = row
        for name, hook in self._hooks:
            changed = hook(changed, self._states[name])
        if changed is not row and not bool(np.isfinite(changed).any()):
            raise UserError("the hooks forbid every token")
        return changed

    def report(self) -> dict[str, Any]:
        """What the hooks measured, by name, and what failed."""
        extras = {name: state.extras for name, state in self._states.items() if state.extras}
        return {"extras": extras, "failure": None if self.failure is None else list(self.failure)}
