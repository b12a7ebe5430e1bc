"""Our logits processors as a logits processor of vLLM, for both of its runners in one class.

vLLM has two incompatible interfaces, and its model runner decides which is used. Runner V1 (always on a CPU) follows
batch rows that move; runner V2 gives every request a slot for its lifetime. The class distinguishes them by how it is
constructed, and keeps one `ProcessorChain` for each sample.

An engine of ours, or a server's command line, names `ReasonLogitsProcessor`. Runner V2 was only exercised with
stand-ins for its state.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import ReasonError, UserError
from ..local.tokenizer import Tokenizer, eos_ids
from ..structured_output import SCHEMA, GrammarCompiler
from .installation import vllm_imports
from .processor_chain import ProcessorChain, ProcessorRequest

with vllm_imports():
    from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerV1
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerV2

_Sample = tuple[int, ProcessorChain, Sequence[int], Sequence[int]]
"""A row of logits, its sample's processors, and the tokens of its prompt and of its text."""

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
        samples = self._of_rows(logits.shape[0]) if ctx is None else self._of_slots(ctx)
        for i, chain, prompt_ids, generated_ids in samples:
            row: Any = logits[i].float().cpu().numpy()
            result = chain.process(row, prompt_ids, generated_ids)
            if result is not row:
                logits[i] = torch.from_numpy(np.ascontiguousarray(result, dtype=np.float32)).to(logits)
        return logits

    def _of_rows(self, num_rows: int) -> Iterator[_Sample]:
        for i, entry in sorted(self._entries.items()):
            if i < num_rows:
                yield i, entry.chain, entry.prompt_ids, entry.output_ids

    def _of_slots(self, ctx: Any) -> Iterator[_Sample]:
        states = self._states
        if states is None or not any(slot in self._entries for slot in ctx.idx_mapping_np.tolist()):
            return
        for i, (slot, position) in enumerate(zip(ctx.expanded_idx_mapping.tolist(), ctx.pos.tolist(), strict=True)):
            entry, length = self._entries.get(slot), int(states.prompt_len.np[slot])
            if entry is not None and position + 1 >= length:  # else a chunk of an unfinished prompt
                ids = states.all_token_ids.gpu[slot, : position + 1].tolist()
                yield i, entry.chain, ids[:length], ids[length:]


class ReasonWorkerExtension:
    """Methods that vLLM adds to its workers if it is named as `worker_extension_cls`."""

    model_runner: Any

    def reason_take_reports(self, ids: list[str]) -> dict[str, Any]:
        """Reports of the samples with these ids, from the processor of either runner."""
        batch = getattr(self.model_runner, "input_batch", None)
        sampler = getattr(self.model_runner, "sampler", None)
        processors = [*(batch.logitsprocs.all if batch is not None and hasattr(batch, "logitsprocs") else ())]
        processors += getattr(sampler, "logits_processors", ())
        reports: dict[str, Any] = {}
        for processor in processors:
            if isinstance(processor, ReasonLogitsProcessor):
                reports |= {i: serializable(report) for i, report in processor.take_reports(ids).items()}
        return reports

    def reason_close_workers(self, group: str) -> tuple[int, int]:
        """Forget a worker group; returns its passes in which workers saw one another, and in which they did not."""
        from .shared_attention import STATE

        counts = STATE.close(group)
        return counts.shared, counts.skipped


def serializable(report: dict[str, Any]) -> dict[str, Any]:
    """A report that can be sent: an error of a worker's method, as by a value that is no JSON, ends vLLM's engine."""
    try:
        json.dumps(report)
    except (TypeError, ValueError, RecursionError) as e:
        message = f"a logits processor reported what is no JSON: {e}"
        return {"extras": {}, "failure": ["logits_processor_failed", message]}
    return report
