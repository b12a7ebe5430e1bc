"""`LocalModel`: the embedded engine as a `LanguageModel`.

What a seed guarantees. A sample uses a generator of its own, made of (seed, index). A row gets the same bits from every
matrix product whatever other rows the step has, and from attention whatever other slots the cache has (`attention`,
`kv_cache.align_slots`); what is left is the order of the slots in a cache, in which attention sums, and whether it sums
in one call or in two parts (`attention.CASCADE_COST`), which the sequences of a cache decide. A cache belongs to one
call and begins with the prompt, computed now or copied from an earlier call's cache. So the same call gives the same
text in every format, whatever was computed before it and runs concurrently, as long as its samples start together.

Requesting only some of a call's samples, as a resumed run does, puts other slots between theirs: in fp32 that moves a
logit by about 1e-6, and a sampled token changes with a probability of about that size; in bf16 it moves
log-probabilities by up to 0.2 (`spec_decode.max_invariant_drafts`), and tokens change now and then. Speculative
decoding would do the same to calls for several samples, and by default is not used for them where it matters.

That holds with oneDNN and for the families that the engine computes itself. Elsewhere a row may have other last bits
when the step has other rows, so that a seed gives the same text only where the same other calls ran concurrently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import Chunk, Completion, NextTokenDistribution, Prompt, Request, ScoredContinuation
from ..logits_processors import logits_processor_names, make_logits_processors
from ..model import Capabilities, Listener, Relevance
from ..model_files.find import ModelFiles
from ..profiles.profile import OwnSampling
from ..structured_output import SCHEMA, GrammarCompiler
from ..tool_calls import ToolCallAdapter
from ..worker_group import WorkerGroupConfig
from .attention import TokenChunk
from .config import ContextLimits, ModelConfig
from .engine_thread import CallQueue, PendingCall
from .hardware import default_kv_bytes, fastest_threads, native_format, single_threaded
from .model import CausalLM, Decoder
from .relevance import explain, tokenize_parts
from .response import PreparedRequest, prepare_request
from .scheduler import Scheduler
from .sequence import GenerateTask
from .spec_decode import NgramSpeculator, SpecDecodeCounters, SpecDecodeMode
from .tasks import NextTokenTask, ScoreTask
from .tokenizer import Tokenizer, UserProfiles, eos_ids, own_sampling
from .weights import WeightFormat
from .worker_group import LocalWorkerGroup, start_worker_group

MAX_SUBMITTED = 1024
"""Maximum requests of one call that are submitted to the engine at a time."""
CALIBRATION_ROWS = 4
"""Sequences decoded in the steps that choose the number of threads."""


class LocalModel:
    """A language model computed in this process.

    Attributes:
        name: `local/…`.
        identity: Fingerprint of the weights and the number format.
        weight_format: "fp32", "bf16" or "int4", or the one of a GGUF file.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        model: CausalLM,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        *,
        weight_format: str,
        threads: int | None,
        kv_cache_bytes: int,
        max_num_seqs: int,
        checkpoint: Path | None = None,
        speculative_decoding: SpecDecodeMode = "auto",
        sampling: OwnSampling = OwnSampling(),  # noqa: B008 (a frozen value)
    ) -> None:
        self.name = name
        self.identity = f"{fingerprint}+{weight_format}{tokenizer.profile.digest}"
        self.weight_format = weight_format
        self._tokenizer, self._eos, self._own_sampling = tokenizer, eos, sampling
        self._model = model
        self._config, self._decoder = model.config, model if isinstance(model, Decoder) else None
        self._checkpoint = checkpoint
        # "auto" never drafts where it could move bits (`max_invariant_drafts`): then no texts need be indexed
        mode = speculative_decoding if model.max_invariant_rows or speculative_decoding == "on" else "off"
        self._scheduler = Scheduler(model, kv_cache_bytes, max_num_seqs, NgramSpeculator(eos, mode))
        config = self._config
        self._grammars = GrammarCompiler(tokenizer, config.vocab_size, eos, name)
        max_slots = self._scheduler.prefix_cache.max_slots
        self._limits = ContextLimits(name, config.context_length, max_slots, config.vocab_size)
        self._calls = CallQueue(self._scheduler, threads or partial(_fastest_threads, model))

    @classmethod
    def load(
        cls,
        files: ModelFiles,
        *,
        weight_format: Literal["auto", "fp32", "bf16", "int4"] = "auto",
        threads: int | None = None,
        kv_cache_bytes: int | None = None,
        max_num_seqs: int = 16,
        speculative_decoding: SpecDecodeMode = "auto",
        profiles: UserProfiles | None = None,
    ) -> LocalModel:
        """Read a model and start its engine.

        Args:
            weight_format: "auto" is bf16 where the processor has it natively, else fp32. "int4" is never chosen by
                "auto": it is faster at few rows and changes the output of small models.
            threads: Threads a step may use; None measures, in less than a second, how many are fastest.
            kv_cache_bytes: Bytes for keys and values; None is a quarter of the free memory.
            speculative_decoding: Whether tokens are drafted; changes the speed and not the text (`NgramSpeculator`).
            profiles: The user's settings for models that think (`ModelProfile`).

        Raises:
            DataError: The files are not a model.
            UserError: A setting is out of range.
            CapabilityMissing: The format cannot be computed.
        """
        numbers = {"threads": threads, "kv_cache_bytes": kv_cache_bytes, "max_num_seqs": max_num_seqs}
        for setting, value in numbers.items():
            if value is not None and value < 1:
                raise UserError(f"{setting} must be at least 1, got {value}")
        if weight_format not in ("auto", "fp32", "bf16", "int4"):
            raise UserError(f"unknown weight format {weight_format!r}", hint="one of auto, fp32, bf16, int4")
        chosen = native_format() if weight_format == "auto" else weight_format
        tokenizer = Tokenizer(files.directory, files.name, profiles)
        _ = tokenizer.profile  # before the weights: it may be invalid
        with single_threaded():
            model = _load_model(files, chosen)
        return cls(
            files.name,
            files.fingerprint,
            model,
            tokenizer,
            eos_ids(files.directory, tokenizer),
            weight_format=chosen,
            threads=threads,
            kv_cache_bytes=kv_cache_bytes or default_kv_bytes(),
            max_num_seqs=max_num_seqs,
            checkpoint=files.directory,
            speculative_decoding=speculative_decoding,
            sampling=own_sampling(files.directory),
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return Capabilities(
            logprobs=True,
            top_logprobs=min(1000, self._config.vocab_size),
            full_vocabulary=True,
            scoring=True,
            prefix=True,
            seed=True,
            logits_processors=logits_processor_names(),
            json_schema=self._grammars.possible,
            kv_sharing=self._decoder is not None,
            tools=self._tokenizer.tool_support.renders_tools,
            context_tokens=self._limits.max_tokens,
            profile=self._tokenizer.profile,
        )

    @property
    def num_running(self) -> int:
        """Samples being decoded right now."""
        return self._scheduler.num_running

    @property
    def spec_decode(self) -> SpecDecodeCounters:
        """Counters of speculative decoding since the engine was started."""
        return self._scheduler.speculator.counters

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values now, in use or cached."""
        return self._scheduler.prefix_cache.nbytes

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        profile = self._tokenizer.profile
        requests = [self._own_sampling.resolve(request, profile) for request in requests]
        if not any(request.prompt.tools for request in requests):
            return await self._generate(requests, listener)
        calling = ToolCallAdapter(requests, self._tokenizer, self.name, holds=self._grammars.possible)
        return calling.read(await self._generate(calling.requests, calling.hearing(listener)))

    async def _generate(self, requests: Sequence[Request], listener: Listener | None) -> list[list[Completion]]:
        prepared = [self._prepare(r) for r in requests]
        for (_, processors), request in zip(prepared, requests, strict=True):
            if (schema := request.sampling.json_schema) is not None:
                # after all processors, so that none of them undoes it
                processors.append((SCHEMA, await asyncio.to_thread(self._grammars.of, schema)))
        results: list[list[Completion]] = []
        for start in range(0, len(requests), MAX_SUBMITTED):
            stop = min(start + MAX_SUBMITTED, len(requests))
            results.extend(await self._sample(prepared, start, stop, listener))
        return results

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        if not continuations:
            return []
        pairs = [self._tokenizer.continuation(prompt, c) for c in continuations]
        for before, after in pairs:
            self._limits.check_token_ids([*before, *after])
            self._limits.check_length(len(before) + len(after), "prompt and continuation")
        shared = min(len(before) for before, _ in pairs)
        first = pairs[0][0]
        while any(before[:shared] != first[:shared] for before, _ in pairs):
            shared -= 1
        scored: list[ScoredContinuation] = await self._calls.run_one(
            lambda call: ScoreTask(
                prompt_ids=first[:shared],
                context_ids=[before[shared:] for before, _ in pairs],
                scored_ids=[after for _, after in pairs],
                on_result=call.emit,
                on_error=call.emit,
                salt=prompt.cache_salt,
            )
        )
        return scored

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        if top < 1:
            raise UserError(f"top must be at least 1, got {top}")
        if not prompts:
            return []
        all_ids = [self._tokenizer.prompt_ids(p, "none") for p in prompts]
        for prompt_ids in all_ids:
            self._limits.check_token_ids(prompt_ids)
            self._limits.check_length(len(prompt_ids), "prompt")
        results: list[NextTokenDistribution | None] = [None] * len(prompts)

        def on_item(item: tuple[int, NextTokenDistribution]) -> None:
            results[item[0]] = item[1]
            if all(r is not None for r in results):
                call.finish()

        call = PendingCall(on_item)

        def emitter(i: int) -> Callable[[NextTokenDistribution], None]:
            return lambda value: call.emit((i, value))

        call_id = object()
        for i, (prompt_ids, prompt) in enumerate(zip(all_ids, prompts, strict=True)):
            call.tasks.append(
                NextTokenTask(
                    prompt_ids=prompt_ids,
                    top=top,
                    tokenizer=self._tokenizer,
                    on_result=emitter(i),
                    on_error=call.emit,
                    call=call_id,
                    salt=prompt.cache_salt,
                )
            )
        await self._calls.run(call)
        return [r for r in results if r is not None]

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """Relevance of a prompt's parts, by the checkpoint's own weights in fp32 (see `ExplainsTokens.relevance`).

        The engine does nothing else meanwhile: it costs about four forward passes that reuse nothing.
        """
        if self._decoder is None or self._checkpoint is None:
            raise CapabilityMissing("relevance", self.name, alternative="")
        tokenized = tokenize_parts(self._tokenizer, prompt, parts, continuation)
        self._limits.check_token_ids(tokenized.token_ids)
        self._limits.check_length(len(tokenized.token_ids), "prompt and continuation")
        config, checkpoint = self._config, self._checkpoint
        relevance: Relevance = await self._calls.run_exclusive(
            lambda _, is_cancelled: explain(config, checkpoint, tokenized, is_cancelled)
        )
        return relevance

    async def start_workers(self, config: WorkerGroupConfig) -> LocalWorkerGroup:
        if self._decoder is None:
            raise CapabilityMissing("kv_sharing", self.name)
        return await start_worker_group(config, self._decoder, self._calls, self._tokenizer, self._eos, self._limits)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt with its template and prefix."""
        return len(self._tokenizer.prompt_ids(prompt))

    async def aclose(self) -> None:
        """End the engine's thread and free cache and weights; running calls are cancelled. Idempotent."""
        await self._calls.aclose()
        self._scheduler.prefix_cache.close()
        # Explicitly: reference cycles would keep hundreds of megabytes until the garbage collector runs.
        self._model.close()

    # --- Calls

    def _prepare(self, request: Request) -> tuple[PreparedRequest, list[tuple[str, Any]]]:
        """A request in tokens and its logits processors, checked before any work."""
        sampling = request.sampling
        prepared = prepare_request(request, self._tokenizer, self._limits)
        if sampling.top_logprobs > self.capabilities.top_logprobs:
            raise CapabilityMissing(f"top_logprobs={sampling.top_logprobs}", self.name, alternative="")
        return prepared, make_logits_processors(sampling.logits_processors, self.name)

    async def _sample(
        self,
        prepared: Sequence[tuple[PreparedRequest, list[tuple[str, Any]]]],
        start: int,
        stop: int,
        listener: Listener | None,
    ) -> list[list[Completion]]:
        requests = [one.request for one, _ in prepared]
        finished: list[dict[int, list[Completion]]] = [{} for _ in range(start, stop)]
        is_single_sample = sum(len(r.indices) for r in requests) == 1
        num_left = sum(len(r.indices) for r in requests[start:stop])

        def on_item(chunk: Chunk) -> None:
            nonlocal num_left
            if chunk.completion is not None:
                finished[chunk.request - start].setdefault(chunk.sample_index, []).append(chunk.completion)
                num_left -= 1
            if listener is not None:
                listener(chunk)
            if not num_left:
                call.finish()

        call = PendingCall(on_item)
        call_id = object()
        for position in range(start, stop):
            one, processors = prepared[position]
            if requests[position].indices:
                call.tasks.append(
                    GenerateTask(
                        request=requests[position],
                        position=position,
                        prompt_ids=one.prompt_ids,
                        may_think=one.may_think,
                        is_open=one.is_open,
                        eos=self._eos,
                        processors=processors,
                        tokenizer=self._tokenizer,
                        on_chunk=call.emit,
                        on_error=call.emit,
                        call=call_id,
                        is_single_sample=is_single_sample,
                    )
                )
        if call.tasks:
            await self._calls.run(call)
        return [[done[index].pop(0) for index in requests[start + i].indices] for i, done in enumerate(finished)]


def _fastest_threads(model: CausalLM) -> int:
    """By steps like those that decode a few samples."""

    def step() -> None:
        cache = model.new_kv_cache(CALIBRATION_ROWS)
        model.forward([TokenChunk(cache, cache.new_table(), [0], [0]) for _ in range(CALIBRATION_ROWS)])

    return fastest_threads(step)


def _load_model(files: ModelFiles, weight_format: WeightFormat) -> CausalLM:
    """The engine's own model where the family is native, transformers' modules elsewhere."""
    if ModelConfig.is_native(files.directory):
        return Decoder.load(files.directory, weight_format)
    from .transformers_model import TransformersModel

    return TransformersModel.load(files.directory, weight_format, files.name)
