"""Our logits processors as a logits processor of vLLM, for both of its runners in one class.

vLLM has two incompatible interfaces, and its model runner decides which is used. Runner V1 (always on a CPU) follows
batch rows that move; runner V2 gives every request a slot for its lifetime. The class distinguishes them by how it is
constructed, keeps one `ProcessorChain` for each sample, and passes the rows of a step to the processors together.

`vllm serve` finds `ReasonLogitsProcessorPlugin` through the entry-point group `vllm.logits_processors`; an engine of
ours, or a command line, names `ReasonLogitsProcessor`, and then the plugin is idle. Runner V2 was only exercised with
stand-ins for its state.
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

from ...core.errors import ReasonError, UserError
from ..local.tokenizer import Tokenizer, eos_ids
from ..logits_processors import LogitsRow, run_logits_processors
from ..structured_output import SCHEMA, GrammarCompiler
from .installation import vllm_imports
from .options import PROCESSOR
from .processor_chain import ProcessorChain, ProcessorRequest

with vllm_imports():
    from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerV1
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerV2

MAX_REPORTS = 4096
"""Maximum reports of ended samples that wait to be fetched; beyond that the oldest is dropped."""


@dataclass(frozen=True)
class _BatchEntry:
    """A sample in a batch row or a slot; runner V1 passes its lists of tokens, which grow, once."""

    chain: ProcessorChain
    prompt_ids: Sequence[int] = ()
    output_ids: Sequence[int] = ()


class ReasonLogitsProcessor(RunnerV1, RunnerV2):  # type: ignore[misc]
    """Applies the logits processors that requests name in their `extra_args`."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        self._states = None if len(rest) == 2 else rest[0]
        self._model = vllm_config.model_config
        self._grammars: GrammarCompiler | None = None
        self._tokenizers: dict[bool, Tokenizer] = {}
        self._entries: dict[int, _BatchEntry] = {}
        self._reports: OrderedDict[str, ProcessorChain] = OrderedDict()

    @classmethod
    def validate_params(cls, params: Any) -> None:
        """Reject a request with unknown processors or invalid arguments, with a `ValueError`."""
        ProcessorRequest.from_arguments(params.extra_args)

    def take_reports(self, ids: list[str]) -> dict[str, Any]:
        """Reports of samples, by id; each can be read once."""
        return {i: self._reports.pop(i).report() for i in ids if i in self._reports}

    def _chain(self, params: Any) -> ProcessorChain | None:
        request = ProcessorRequest.from_arguments(params.extra_args)
        if request is None or not (request.logits_processors or request.json_schema):
            return None
        # A preempted request that is computed again keeps the state of its processors.
        chain = self._reports.get(request.id) or self._new_chain(request, sorted(params.all_stop_token_ids))
        if request.id:
            self._reports[request.id] = chain
            while len(self._reports) > MAX_REPORTS:
                self._reports.popitem(last=False)
        return chain

    def _new_chain(self, request: ProcessorRequest, eos: Sequence[int]) -> ProcessorChain:
        """A sample's processors. A failing schema fails its own sample: an error here would end the engine."""

        def tokenizer() -> Tokenizer:
            may_think = request.thought is not None
            if may_think not in self._tokenizers:
                directory = Path(self._model.model)
                self._tokenizers[may_think] = Tokenizer(directory, directory.name, profile=request.thought)
            return self._tokenizers[may_think]

        if not request.json_schema:
            return ProcessorChain(request, eos, tokenizer=tokenizer)
        try:
            if self._grammars is None:
                directory = Path(self._model.model)
                vocab_size, ends = self._model.get_vocab_size(), eos_ids(directory, tokenizer())
                self._grammars = GrammarCompiler(tokenizer(), vocab_size, ends, directory.name)
            grammar = self._grammars.of(json.loads(request.json_schema))
            return ProcessorChain(request, eos, grammar, tokenizer)
        except (ReasonError, ValueError) as e:
            chain = ProcessorChain(request, eos)
            chain.failure = (e.code, str(e)) if isinstance(e, ReasonError) else (UserError.code, f"{SCHEMA}: {e}")
            return chain

    # --- Runner V1: rows, which move

    def is_argmax_invariant(self) -> bool:
        """No: processors change the most likely token too, so greedy batches need them."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows."""

        def create(params: Any, prompt_ids: list[int] | None, output_ids: list[int]) -> _BatchEntry | None:
            chain = self._chain(params)
            return None if chain is None else _BatchEntry(chain, prompt_ids or (), output_ids)

        process_dict_updates(self._entries, batch_update, create)

    # --- Runner V2: slots, which stay

    def add_request(self, slot: int, params: Any) -> bool:
        """Take a slot over; False if the request has no processors."""
        chain = self._chain(params)
        if chain is None:
            self._entries.pop(slot, None)
        else:
            self._entries[slot] = _BatchEntry(chain)
        return chain is not None

    def apply_staged_writes(self) -> None:
        """Nothing is staged."""

    # --- Both

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Change the rows `[rows, vocab]` in place."""
        if not self._entries:
            return logits
        work = self._of_rows(logits) if ctx is None else self._of_slots(logits, ctx)
        before = [processed.row for _, _, processed in work]
        run_logits_processors([processed for _, _, processed in work])
        for (i, chain, processed), row in zip(work, before, strict=True):
            result = chain.result(processed, row)
            if result is not row:
                logits[i] = torch.from_numpy(np.ascontiguousarray(result, dtype=np.float32)).to(logits)
        return logits

    def _of_rows(self, logits: torch.Tensor) -> list[tuple[int, ProcessorChain, LogitsRow]]:
        return [
            (i, entry.chain, entry.chain.logits_row(_row(logits, i), entry.prompt_ids, entry.output_ids))
            for i, entry in sorted(self._entries.items())
            if i < logits.shape[0]
        ]

    def _of_slots(self, logits: torch.Tensor, ctx: Any) -> list[tuple[int, ProcessorChain, LogitsRow]]:
        states = self._states
        if states is None or not any(slot in self._entries for slot in ctx.idx_mapping_np.tolist()):
            return []
        work = []
        for i, (slot, position) in enumerate(zip(ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist(), strict=True)):
            entry, length = self._entries.get(slot), int(states.prompt_len.np[slot])
            if entry is not None and position + 1 >= length:  # else a chunk of an unfinished prompt
                ids = states.all_token_ids.gpu[slot, : position + 1].tolist()
                work.append((i, entry.chain, entry.chain.logits_row(_row(logits, i), ids[:length], ids[length:])))
        return work


def _row(logits: torch.Tensor, i: int) -> Any:
    return logits[i].float().cpu().numpy()


class ReasonLogitsProcessorPlugin(ReasonLogitsProcessor):
    """What `vllm serve` finds by itself; idle where the command line names `ReasonLogitsProcessor`."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        super().__init__(vllm_config, *rest)
        named = list(vllm_config.model_config.logits_processors or ())
        self._idle = PROCESSOR in named or ReasonLogitsProcessor in named
        is_v1, is_async = len(rest) == 2, bool(vllm_config.scheduler_config.async_scheduling)
        if is_v1 and is_async and not self._idle:
            raise ValueError(
                "this runner does not pass the generated tokens to a plugin, so its logits processors would act on "
                f"stale texts; start vLLM with --logits-processors {PROCESSOR}"
            )

    def _chain(self, params: Any) -> ProcessorChain | None:
        return None if self._idle else super()._chain(params)
