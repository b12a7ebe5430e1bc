"""Our hooks as a logits processor of vLLM, for both of its runners in one class.

vLLM has two incompatible interfaces, and its model runner decides which is used. Runner V1 (always on a CPU) follows
batch rows that move; runner V2 gives every request a slot for its lifetime. The class tells them apart by how it is
constructed, keeps one `Chain` for each sample, and hands the rows of a step to the hooks together.

`vllm serve` finds `HooksPlugin` through the entry-point group `vllm.logits_processors`; an engine of ours, or a command
line, names `Hooks`, and then the plugin does nothing. Runner V2 was only exercised with stand-ins for its state.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerV1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerV2

from ...core.errors import ReasonError, UserError
from ..local.tokenizer import Tokenizer, eos_ids
from ..logits_processors import Line, run_hooks
from ..structured_output import SCHEMA, Grammars
from .options import PROCESSOR
from .processor_chain import Chain, Order

KEPT_REPORTS = 4096
"""Reports of ended samples that wait to be fetched; beyond that the oldest is dropped."""


@dataclass(frozen=True)
class _Seat:
    """A sample in a batch row or a slot; runner V1 hands over its lists of tokens, which grow, once."""

    chain: Chain
    prompt_ids: Sequence[int] = ()
    output_ids: Sequence[int] = ()


class Hooks(RunnerV1, RunnerV2):  # type: ignore[misc]
    """Applies the hooks that requests name in their `extra_args`."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        self._states = None if len(rest) == 2 else rest[0]
        self._model = vllm_config.model_config
        self._grammars: Grammars | None = None
        self._seats: dict[int, _Seat] = {}
        self._reports: OrderedDict[str, Chain] = OrderedDict()

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Refuse a request whose hooks are unknown or badly called, with a `ValueError`."""
        Order.read(params.extra_args)

    def take_reports(self, ids: list[str]) -> dict[str, Any]:
        """Reports of samples, by id; each can be taken once."""
        return {i: self._reports.pop(i).report() for i in ids if i in self._reports}

    def _chain(self, params: Any) -> Chain | None:
        order = Order.read(params.extra_args)
        if order is None or not (order.hooks or order.json_schema):
            return None
        # A request that lost its place and is computed again keeps what its hooks remember.
        chain = self._reports.get(order.id) or self._new_chain(order, sorted(params.all_stop_token_ids))
        if order.id:
            self._reports[order.id] = chain
            while len(self._reports) > KEPT_REPORTS:
                self._reports.popitem(last=False)
        return chain

    def _new_chain(self, order: Order, eos: Sequence[int]) -> Chain:
        """A sample's hooks. What a schema fails with is its own sample's: an error here would end the engine."""
        if not order.json_schema:
            return Chain(order, eos)
        try:
            if self._grammars is None:
                folder = Path(self._model.model)
                tokenizer = Tokenizer(folder, folder.name)
                vocab, ends = self._model.get_vocab_size(), eos_ids(folder, tokenizer)
                self._grammars = Grammars(tokenizer, vocab, ends, folder.name)
            return Chain(order, eos, self._grammars.of(json.loads(order.json_schema)))
        except (ReasonError, ValueError) as e:
            chain = Chain(order, eos)
            chain.failure = (e.code, str(e)) if isinstance(e, ReasonError) else (UserError.code, f"{SCHEMA}: {e}")
            return chain

    # --- Runner V1: rows, which move

    def is_argmax_invariant(self) -> bool:
        """No: hooks change the most likely token too, so greedy batches need them."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows."""

        def enter(params: Any, prompt_ids: list[int] | None, output_ids: list[int]) -> _Seat | None:
            chain = self._chain(params)
            return None if chain is None else _Seat(chain, prompt_ids or (), output_ids)

        process_dict_updates(self._seats, batch_update, enter)

    # --- Runner V2: slots, which stay

    def add_request(self, slot: int, params: Any) -> bool:
        """Take a slot over; False if the request has no hooks."""
        chain = self._chain(params)
        if chain is None:
            self._seats.pop(slot, None)
        else:
            self._seats[slot] = _Seat(chain)
        return chain is not None

    def apply_staged_writes(self) -> None:
        """Nothing is staged."""

    # --- Both

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Change the rows `[rows, vocab]` in place."""
        if not self._seats:
            return logits
        work = self._of_rows(logits) if ctx is None else self._of_slots(logits, ctx)
        before = [line.row for _, _, line in work]
        run_hooks([line for _, _, line in work])
        for (i, chain, line), row in zip(work, before, strict=True):
            changed = chain.changed(line, row)
            if changed is not row:
                logits[i] = torch.from_numpy(np.ascontiguousarray(changed, dtype=np.float32)).to(logits)
        return logits

    def _of_rows(self, logits: torch.Tensor) -> list[tuple[int, Chain, Line]]:
        return [
            (i, seat.chain, seat.chain.line(_row(logits, i), seat.prompt_ids, seat.output_ids))
            for i, seat in sorted(self._seats.items())
            if i < logits.shape[0]
        ]

    def _of_slots(self, logits: torch.Tensor, ctx: Any) -> list[tuple[int, Chain, Line]]:
        states = self._states
        if states is None or not any(slot in self._seats for slot in ctx.idx_mapping_np.tolist()):
            return []
        found = []
        for i, (slot, position) in enumerate(zip(ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist(), strict=True)):
            seat, length = self._seats.get(slot), int(states.prompt_len.np[slot])
            if seat is not None and position + 1 >= length:  # else a piece of a prompt that goes on
                ids = states.all_token_ids.gpu[slot, : position + 1].tolist()
                found.append((i, seat.chain, seat.chain.line(_row(logits, i), ids[:length], ids[length:])))
        return found


def _row(logits: torch.Tensor, i: int) -> Any:
    return logits[i].float().cpu().numpy()


class HooksPlugin(Hooks):
    """What `vllm serve` finds without being told; idle where the command line names `Hooks` itself."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        super().__init__(vllm_config, *rest)
        named = list(vllm_config.model_config.logits_processors or ())
        self._idle = PROCESSOR in named or Hooks in named
        v1, asynchronous = len(rest) == 2, bool(vllm_config.scheduler_config.async_scheduling)
        if v1 and asynchronous and not self._idle:
            raise ValueError(
                "this runner does not tell a plugin what was said, so its hooks would act on stale texts; start vLLM "
                f"with --logits-processors {PROCESSOR}"
            )

    def _chain(self, params: Any) -> Chain | None:
        return None if self._idle else super()._chain(params)
