"""`VllmModel`: vLLM's asynchronous engine, in processes of its own, behind the `LanguageModel` protocol.

What a seed guarantees. A sample uses a generator of its own, made of (seed, index). vLLM computes in the number format
of the weights, mostly bf16, and batches rows as they arrive: a batch of another size may move a logit in its last bits
and so, now and then, flip a near tie.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from ...core.concurrency import OneLoop
from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, UserError
from ...core.files import Progress
from ...core.messages import (
    Chunk,
    Completion,
    Failure,
    LogitsProcessorSpec,
    NextTokenDistribution,
    Prompt,
    Request,
    SamplingParams,
    ScoredContinuation,
    Usage,
)
from ...core.settings import Settings, VllmSettings
from ..local.config import ContextLimits
from ..local.response import PreparedRequest, prepare_request
from ..local.tokenizer import Tokenizer, UserProfiles, eos_ids, own_sampling
from ..logits_processors import logits_processor_names, make_logits_processors
from ..model import Capabilities, Listener
from ..model_files.catalogue import PREFIX
from ..model_files.downloads import run_pull
from ..model_files.find import ModelFiles, find_model
from ..structured_output import GrammarCompiler
from ..tool_calls import ToolCallAdapter
from ..worker_group import WorkerGroupConfig
from .engine import CacheCounters, RunningEngine, start_engine, stop_engine
from .generation import (
    CompletionBuilder,
    is_valid_score,
    last_output,
    next_token_distribution,
    next_token_requests,
    scored_continuation,
    scoring_arguments,
    stream_outputs,
)
from .installation import require_main_guard, require_vllm
from .options import KEY, MAX_LOGPROBS, sampling_arguments
from .shared_cache import SCHEDULER
from .worker_group import BatchSlots, VllmWorkerGroup, WorkerGroupHost, start_worker_group

VLLM_PREFIX = "vllm/"

MAX_SUBMITTED = 1024
"""Maximum samples of one call that are submitted to the engine at a time."""

T = TypeVar("T")


async def load_vllm(name: str, settings: Settings, progress: Progress | None = None) -> VllmModel:
    """Fetch a model's files, start vLLM on them, and check that logits processors work.

    Args:
        name: `vllm/<short name>`, `vllm/<hub id>`, `vllm/<directory>` or `vllm/<file.gguf>`, as for `local/…`.
        settings: Where the files are stored; the section `vllm`.

    Raises:
        UserError: vLLM is not installed, or refuses the settings, or the script that starts it has no main guard.
        BackendUnavailable: The engine did not come up, or runs without our logits processors.
        UnknownName: No model has that name.
        DataError: A model file is damaged.
    """
    require_vllm()
    require_main_guard()

    def load(cancel: threading.Event) -> VllmModel:
        local_name = PREFIX + name.removeprefix(VLLM_PREFIX)
        files = find_model(local_name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
        return VllmModel.load(name, files, settings.vllm, settings.profiles)

    model = await run_pull(load, lambda model: model.aclose())
    try:
        await model.check_logits_processors()
    except BaseException:
        await model.aclose()
        raise
    return model


class VllmModel:
    """A language model on vLLM, in this program.

    Attributes:
        identity: Fingerprint of the weights, number format and version of vLLM.
        engine: vLLM's `AsyncLLM`; None once closed.
    """

    def __init__(
        self,
        name: str,
        files: ModelFiles,
        running: RunningEngine,
        tokenizer: Tokenizer,
    ) -> None:
        engine = running.engine
        config = engine.model_config
        self.name = name
        weights = f"{files.fingerprint}+{str(config.dtype).removeprefix('torch.')}+vllm-{require_vllm()}"
        self.identity = weights + tokenizer.profile.digest
        self.engine: Any = engine
        self._loop = OneLoop(f"the engine of {name}")
        self._tokenizer = tokenizer
        self._eos = eos_ids(files.directory, tokenizer)
        self._own_sampling = own_sampling(files.directory)
        self._limits = ContextLimits(
            name,
            config.max_model_len,
            config.max_model_len,
            config.get_vocab_size(),
            hint="shorten the prompt, lower max_tokens, or raise the setting vllm.engine.max_model_len",
        )
        self._grammars = GrammarCompiler(tokenizer, self._limits.vocab_size, self._eos, name)
        self._max_num_seqs: int = engine.vllm_config.scheduler_config.max_num_seqs
        self._shares_cache = engine.vllm_config.scheduler_config.scheduler_cls == SCHEDULER
        self._batch_slots = BatchSlots(self._max_num_seqs)
        self._running_engine = running
        self._work: set[asyncio.Task[Any]] = set()

    @classmethod
    def load(
        cls,
        name: str,
        files: ModelFiles,
        settings: VllmSettings,
        profiles: UserProfiles | None = None,
    ) -> VllmModel:
        """Start the engine; blocks. `check_logits_processors` should follow.

        Args:
            profiles: The user's settings for models that think (`ModelProfile`).

        Raises:
            UserError: vLLM is missing or refuses the settings.
            BackendUnavailable: The engine did not come up.
            DataError: The files are not a model.
        """
        tokenizer = Tokenizer(files.directory, name, profiles)
        _ = tokenizer.profile  # first: errors leave no engine running
        running = start_engine(files, settings)
        return cls(name, files, running, tokenizer)

    async def check_logits_processors(self) -> None:
        """Check that logits processors reach the engine's sampler: one that forces a token, and one that measures.

        Raises:
            BackendUnavailable: They were ignored.
        """
        forced = self._limits.vocab_size - 1
        processors = (
            LogitsProcessorSpec(name="entropy_probe"),
            LogitsProcessorSpec(name="only_tokens", args={"ids": [forced]}),
        )
        sampling = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, logits_processors=processors)
        [[completion]] = await self.generate([Request(prompt=Prompt(text="a"), sampling=sampling)])
        is_forced = completion.token_ids == (forced,) and "entropy_probe" in completion.extras
        if completion.failure is not None or not is_forced:
            raise BackendUnavailable(
                f"vLLM runs {self.name} without our logits processors: {completion.failure or completion.token_ids}",
                hint="other model runners cannot have them; see docs/logits-processors.md",
            )

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return Capabilities(
            logprobs=True,
            top_logprobs=min(MAX_LOGPROBS, self._limits.vocab_size),
            full_vocabulary=True,
            scoring=True,
            prefix=True,
            seed=True,
            logits_processors=logits_processor_names(),
            json_schema=self._grammars.possible,
            kv_sharing=self._shares_cache,
            tools=self._tokenizer.tool_support.renders_tools,
            context_tokens=self._limits.max_tokens,
            profile=self._tokenizer.profile,
        )

    @property
    def cache(self) -> CacheCounters:
        """Counters of the prefix cache since the engine was started."""
        return self._running_engine.cache_stats.counters

    @property
    def num_running(self) -> int:
        """Requests that the engine has not finished."""
        return 0 if self.engine is None else int(self.engine.get_num_unfinished_requests())

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        profile = self._tokenizer.profile
        requests = [self._own_sampling.resolve(request, profile) for request in requests]
        if not any(request.prompt.tools for request in requests):
            return await self._generate(requests, listener)
        calling = ToolCallAdapter(requests, self._tokenizer, self.name, holds=self.capabilities.json_schema)
        return calling.read(await self._generate(calling.requests, calling.hearing(listener)))

    async def _generate(self, requests: Sequence[Request], listener: Listener | None) -> list[list[Completion]]:
        prepared = [self._prepare(r) for r in requests]
        submitted = asyncio.Semaphore(MAX_SUBMITTED)

        async def sample(position: int, index: int) -> Completion:
            async with submitted:
                return await self._sample(prepared[position], position, index, listener)

        samples = [(i, index) for i, request in enumerate(requests) for index in request.indices]
        completions = iter(await self._all([sample(i, index) for i, index in samples]))
        return [[next(completions) for _ in request.indices] for request in requests]

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Log-probabilities of continuations (see `LanguageModel.score`).

        The engine itself needs one token of the context.
        """
        pairs = [self._tokenizer.continuation(prompt, c) for c in continuations]
        for before, after in pairs:
            self._limits.check_token_ids(after)
            self._limits.check_length(len(before) + len(after) + 1, "prompt, continuation and one more token")
        return await self._all([self._score(before, after, prompt.cache_salt) for before, after in pairs])

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        if top < 1:
            raise UserError(f"top must be at least 1, got {top}")
        top = min(top, self._limits.vocab_size)
        if top > MAX_LOGPROBS:
            raise CapabilityMissing(f"top_logprobs={top}", self.name)
        requests = next_token_requests(prompts, top)
        return [next_token_distribution(completion) for [completion] in await self.generate(requests)]

    async def start_workers(self, config: WorkerGroupConfig) -> VllmWorkerGroup:
        """Workers that read one another's cache (see `SupportsWorkers`); needs the setting `vllm.shared_workers`."""
        if not self._shares_cache:
            raise CapabilityMissing("kv_sharing", self.name)
        host = WorkerGroupHost(
            engine=self._open_engine,
            run=self._all,
            tokenizer=self._tokenizer,
            eos=self._eos,
            limits=self._limits,
            slots=self._batch_slots,
        )
        return await start_worker_group(config, host)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt with its template and prefix."""
        return len(self._tokenizer.prompt_ids(prompt))

    async def aclose(self) -> None:
        """End the engine and its processes; running calls are cancelled. Idempotent."""
        engine, self.engine = self.engine, None
        if engine is None:
            return
        work = tuple(self._work)
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work)
        await stop_engine(engine)

    # --- Calls

    def _prepare(self, request: Request) -> PreparedRequest:
        """A request in tokens, checked before any work."""
        sampling = request.sampling
        prepared = prepare_request(request, self._tokenizer, self._limits)
        if sampling.top_logprobs > self.capabilities.top_logprobs:
            raise CapabilityMissing(f"top_logprobs={sampling.top_logprobs}", self.name, alternative="")
        make_logits_processors(sampling.logits_processors, self.name)
        if sampling.json_schema is not None:
            self._grammars.check(sampling.json_schema)
        return prepared

    async def _sample(
        self, prepared: PreparedRequest, position: int, index: int, listener: Listener | None
    ) -> Completion:
        from vllm import SamplingParams as VllmSamplingParams
        from vllm.sampling_params import RequestOutputKind

        request, prompt_ids = prepared.request, prepared.prompt_ids
        request_id = _new_request_id()
        arguments = sampling_arguments(request.sampling, index, self._eos)
        has_processors = bool(request.sampling.logits_processors) or request.sampling.json_schema is not None
        if has_processors:
            arguments["extra_args"] = {KEY: self._processor_request(prepared, index, request_id)}
        params = VllmSamplingParams(output_kind=RequestOutputKind.DELTA, **arguments)
        builder = CompletionBuilder(
            request, position, index, prompt_ids, self._eos, self._tokenizer, is_open=prepared.is_open
        )
        chunk = Chunk(request=position, sample_index=index)
        salt = request.prompt.cache_salt
        stream = stream_outputs(self._open_engine(), prompt_ids, params, request_id, salt=salt)
        async with aclosing(stream) as outputs:
            async for output in outputs:
                chunk = builder.add(output)
                if builder.finish_reason is not None:
                    break
                if listener is not None:
                    listener(chunk)
        completion = builder.build(await self._report(request_id) if has_processors else None)
        if completion.finish_reason == "error" and completion.failure is None:
            completion = builder.build_failed(Failure(code="backend_error", message="vLLM aborted the sample"))
        if listener is not None:
            listener(chunk.model_copy(update={"completion": completion}))
        return completion

    def _processor_request(self, prepared: PreparedRequest, index: int, request_id: str) -> dict[str, Any]:
        """A `ProcessorRequest`, as plain values."""
        sampling, profile = prepared.request.sampling, self._tokenizer.profile
        return {
            "id": request_id,
            "sample": index,
            "logits_processors": [spec.model_dump(mode="json") for spec in sampling.logits_processors],
            "json_schema": "" if sampling.json_schema is None else json.dumps(sampling.json_schema),
            "eos": sorted(self._eos),
            "thought": profile.model_dump(mode="json") if prepared.may_think else None,
            "is_open": prepared.is_open,
        }

    async def _report(self, request_id: str) -> dict[str, Any]:
        """The report of a sample's logits processors."""
        responses = await self._open_engine().collective_rpc("reason_take_reports", args=([request_id],))
        report: dict[str, Any] | None = next((r[request_id] for r in responses if request_id in r), None)
        if report is None:
            raise BackendError(
                f"vLLM ignored the logits processors of a sample of {self.name}", hint="see docs/logits-processors.md"
            )
        return report

    async def _score(self, before: list[int], after: list[int], salt: str) -> ScoredContinuation:
        from vllm import SamplingParams as VllmSamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not after:
            return ScoredContinuation(token_ids=(), logprobs=(), is_greedy=True, usage=Usage(prompt_tokens=len(before)))
        ids = [*before, *after]
        for read_cache in (True, False):
            arguments = scoring_arguments(read_cache)
            params = VllmSamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **arguments)
            last = await last_output(self._open_engine(), ids, params, _new_request_id(), salt=salt)
            if last is not None and last.prompt_logprobs is not None and is_valid_score(last, len(before)):
                return scored_continuation(last, ids, len(before))
        raise BackendError(f"vLLM returned no log-probabilities of the prompt of {self.name}")

    async def _all(self, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Results in order. If one fails, or the wait is cancelled, the others are cancelled and waited for."""
        tasks = [asyncio.ensure_future(w) for w in work]
        self._work.update(tasks)
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException as error:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            translated = self._translated(error)
            if translated is error:
                raise
            raise translated from error
        finally:
            self._work.difference_update(tasks)

    def _translated(self, error: BaseException) -> BaseException:
        """An error of vLLM's as one of ours; any other unchanged."""
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.v1.engine.exceptions import EngineDeadError

        if isinstance(error, EngineDeadError):
            return BackendUnavailable(f"vLLM's engine of {self.name} has died", hint="load the model again")
        if isinstance(error, VLLMClientError):
            return UserError(f"vLLM rejects the request: {error}")
        if isinstance(error, VLLMServerError):
            return BackendError(f"vLLM failed: {error.__cause__ or error}")
        return error

    def _open_engine(self) -> Any:
        if self.engine is None:
            raise BackendUnavailable(f"the engine of {self.name} is closed", hint="load the model again")
        self._loop.check()
        return self.engine


def _new_request_id() -> str:
    return f"reason-{uuid.uuid4().hex}"
