"""Our hooks as a logits processor of vLLM, for both of its runners in one class.

vLLM has two incompatible interfaces, and its model runner decides which is used. Runner V1 (always on a CPU) follows
batch rows that move; runner V2 gives every request a slot for its lifetime. The class tells them apart by how it is
constructed, keeps one `Chain` for each sample, and hands it the sample's row.

`vllm serve` finds `HooksPlugin` through the entry-point group `vllm.logits_processors`; an engine of ours, or a command
line, names `Hooks`, and then the plugin does nothing. Runner V2 was only exercised with stand-ins for its state.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerV1
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerV2

from .chain import Chain, Order
from .options import PROCESSOR

KEPT_REPORTS = 4096
"""Reports of ended samples that wait to be fetched; beyond that the oldest is dropped."""


class Hooks(RunnerV1, RunnerV2):  # type: ignore[misc]
    """Applies the hooks that requests name in their `extra_args`."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        self._states = None if len(rest) == 2 else rest[0]
        self._chains: dict[int, Chain] = {}
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
        if order is None or not order.hooks:
            return None
        # A request that lost its place and is computed again keeps what its hooks remember.
        chain = self._reports.get(order.id) or Chain(order, sorted(params.all_stop_token_ids))
        if order.id:
            self._reports[order.id] = chain
            while len(self._reports) > KEPT_REPORTS:
                self._reports.popitem(last=False)
        return chain

    # --- Runner V1: rows, which move

    def is_argmax_invariant(self) -> bool:
        """No: hooks change the most likely token too, so greedy batches need them."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows."""

        def enter(params: Any, prompt_ids: list[int] | None, output_ids: list[int]) -> Chain | None:
            chain = self._chain(params)
            if chain is not None:
                chain.place(prompt_ids or (), output_ids)
            return chain

        process_dict_updates(self._chains, batch_update, enter)

    # --- Runner V2: slots, which stay

    def add_request(self, slot: int, params: Any) -> bool:
        """Take a slot over; False if the request has no hooks."""
        chain = self._chain(params)
        if chain is None:
            self._chains.pop(slot, None)
        else:
            self._chains[slot] = chain
        return chain is not None

    def apply_staged_writes(self) -> None:
        """Nothing is staged."""

    # --- Both

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Change the rows `[rows, vocab]` in place."""
        if not self._chains:
            return logits
        for i, chain in self._of_rows(logits) if ctx is None else self._of_slots(ctx):
            row = logits[i].float().cpu().numpy()
            changed = chain(row)
            if changed is not row:
                logits[i] = torch.from_numpy(np.ascontiguousarray(changed, dtype=np.float32)).to(logits)
        return logits

    def _of_rows(self, logits: torch.Tensor) -> list[tuple[int, Chain]]:
        return [(i, chain) for i, chain in self._chains.items() if i < logits.shape[0]]

    def _of_slots(self, ctx: Any) -> list[tuple[int, Chain]]:
        states = self._states
        if states is None or not any(slot in self._chains for slot in ctx.idx_mapping_np.tolist()):
            return []
        found = []
        for i, (slot, position) in enumerate(zip(ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist(), strict=True)):
            chain, length = self._chains.get(slot), int(states.prompt_len.np[slot])
            if chain is not None and position + 1 >= length:  # else a piece of a prompt that goes on
                ids = states.all_token_ids.gpu[slot, : position + 1].tolist()
                chain.place(ids[:length], ids[length:])
                found.append((i, chain))
        return found


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
