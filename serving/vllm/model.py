"""`VllmModel`: vLLM's asynchronous engine, in processes of its own, behind the `LanguageModel` protocol.

What a seed promises. A sample draws from a generator of its own, made of (seed, index). vLLM computes in the number
format of the weights, mostly bf16, and groups rows as they come: a batch of another size may move a logit in its last
bits and so, now and then, turn a near tie. While vLLM drafts (`drafts`), how many numbers a sample has drawn depends on
what was guessed, and so, now and then, on its neighbours: a seed promises nothing then.

`open_vllm`: from `vllm/…` to a running, checked `VllmModel`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, ContextTooLong, UserError
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
from ..local.config import Bounds
from ..local.tokenizer import Tokenizer, eos_ids
from ..logits_processors import OutOfStep, companions, hook_names, make_hooks
from ..model import Capabilities, Listener
from ..model_files.catalogue import PREFIX
from ..model_files.downloads import Progress, run_pull
from ..model_files.find import ModelFiles, find_model
from ..prefix_folder import Owner, PrefixFolder, PrefixPlace
from ..streaming import stream_of
from ..structured_output import Grammars
from ..tool_calls import Calling
from ..worker_group import Opening
from .engine import Started, start_engine, stop_engine
from .generation import Growing, asking, distribution, is_valid, outputs_of, scored, scoring_arguments
from .installation import require_main_guard, require_vllm
from .kv_store import Host, VllmPrefixes, describe
from .kv_transfer import BlockShape
from .lockstep import Admission, Attempt, reached
from .metrics import CacheCounters, DraftCounters, counters
from .options import KEY, MOST_ALTERNATIVES, drafting_name, refuse_undraftable, sampling_arguments
from .shared_cache import SCHEDULER
from .worker_group import Host as WorkersHost
from .worker_group import Quota, Seats, VllmWorkers, column_bytes, open_workers

WINDOW = 1024
"""Samples of one call that are handed to the engine at a time."""

TRIES = 4
"""Attempts to begin a group of requests in one step. The first one leaves their prompts in the cache, so that the next
need no room of the step for them."""

T = TypeVar("T")


class VllmModel:
    """A language model on vLLM, in this program.

    Attributes:
        name: `vllm/…`.
        identity: Fingerprint of the weights, number format, version of vLLM, and how it drafts.
        engine: vLLM's `AsyncLLM`; None once closed.
    """

    def __init__(
        self,
        name: str,
        files: ModelFiles,
        started: Started,
        tokenizer: Tokenizer,
        prefixes: PrefixPlace | None = None,
        shared_bytes: int = 1 << 30,
    ) -> None:
        engine = started.engine
        config = engine.model_config
        self.name = name
        self._weights = f"{files.fingerprint}+{str(config.dtype).removeprefix('torch.')}+vllm-{require_vllm()}"
        speculative = engine.vllm_config.speculative_config
        self.identity = self._weights + drafting_name(speculative)
        self.engine: Any = engine
        self._tokenizer = tokenizer
        self._eos = eos_ids(files.folder, tokenizer)
        self._context: int = config.max_model_len
        self._vocabulary: int = config.get_vocab_size()
        self._grammars = Grammars(tokenizer, self._vocabulary, self._eos, name)
        self._rows: int = engine.vllm_config.scheduler_config.max_num_seqs
        self._block_tokens: int = engine.vllm_config.cache_config.block_size
        self._shares = engine.vllm_config.scheduler_config.scheduler_cls == SCHEDULER
        self._seats = Seats(self._rows)
        self._quota = Quota(shared_bytes, column_bytes(engine.vllm_config)) if self._shares else None
        self._drafts = speculative is not None
        self._draws = not self._drafts  # until it is seen
        self._forks = bool(engine.vllm_config.cache_config.enable_prefix_caching)
        self._started, self._place = started, prefixes
        self._prefixes: VllmPrefixes | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._admission = Admission(self._running)

    @classmethod
    def load(
        cls, name: str, files: ModelFiles, settings: VllmSettings, prefixes: PrefixPlace | None = None
    ) -> VllmModel:
        """Start the engine; blocks. `check_engine` should follow.

        Args:
            name: `vllm/…`.
            files: The model.
            settings: How the engine is set up.
            prefixes: Where named prefixes are kept; None if they are not.

        Raises:
            UserError: vLLM is missing or refuses the settings.
            BackendUnavailable: The engine did not come up.
            DataError: The files are not a model.
        """
        tokenizer = Tokenizer(files.folder, name)  # first: what it may raise leaves no engine behind
        started = start_engine(files, settings, prefixes)
        return cls(name, files, started, tokenizer, prefixes, settings.shared_bytes)

    async def check_engine(self) -> None:
        """Prove that hooks work, or see how drafted tokens are drawn; learn whether prefixes can be kept under names.

        Raises:
            BackendUnavailable: Hooks were ignored.
        """
        if self._drafts:
            self._draws = all(await self._one(self._running().collective_rpc("reason_draws_exactly")))
        else:
            await self.check_hooks()
        if self._place is not None:
            told = await self._one(describe(self._running()))
            if told is not None and told.shape is not None and not told.shape.refusal:
                self._prefixes = self._make_prefixes(self._place, told.shape)

    async def check_hooks(self) -> None:
        """Prove that hooks reach the engine's sampler: one that forces a token, and one that measures.

        Raises:
            BackendUnavailable: They were ignored.
        """
        forced = self._vocabulary - 1
        hooks = (
            LogitsProcessorSpec(name="entropy_probe"),
            LogitsProcessorSpec(name="only_tokens", args={"ids": [forced]}),
        )
        prompt = Prompt(text="a")
        sampling = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, hooks=hooks)
        [[said]] = await self.generate([Request(prompt=prompt, sampling=sampling)])
        if said.failure is not None or said.token_ids != (forced,) or "entropy_probe" not in said.extras:
            raise BackendUnavailable(
                f"vLLM runs {self.name} without our logits hooks: {said.failure or said.token_ids}",
                hint="speculative decoding and foreign model runners cannot have them; see docs/hooks.md",
            )

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return Capabilities(
            logprobs=True,
            top_logprobs=min(MOST_ALTERNATIVES, self._vocabulary),
            full_vocabulary=not self._drafts,
            scoring=True,
            prefix=True,
            seed=not self._drafts,
            hooks=frozenset() if self._drafts else hook_names(),
            json_schema=self._grammars.possible and not self._drafts,
            forks=self._forks,
            kv_sharing=self._shares,
            pins=self._prefixes is not None,
            tools=self._tokenizer.tool_forms.shows_tools,
            context_tokens=self._context,
            max_batch=self._rows,
        )

    @property
    def kv_store(self) -> VllmPrefixes:
        """The named prefixes.

        Raises:
            CapabilityMissing: `capabilities.pins` is false.
        """
        if self._prefixes is None:
            raise CapabilityMissing("pins", self.name)
        return self._prefixes

    @property
    def cache(self) -> CacheCounters:
        """How often the prefix cache helped since the engine was started."""
        return counters(self._block_tokens, self._started.statistics, self._started.events)

    @property
    def drafts(self) -> DraftCounters:
        """Passes and tokens since the engine was started, and how many of them were guessed (setting `vllm.draft`)."""
        return self._started.drafts.counters

    @property
    def under_way(self) -> int:
        """Requests that the engine has not finished."""
        return 0 if self.engine is None else int(self.engine.get_num_unfinished_requests())

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Sample every request in one batch (see `LanguageModel.generate`)."""
        if not any(request.prompt.tools for request in requests):
            return await self._generate(requests, listener)
        calling = Calling(requests, self._tokenizer, self.name, holds=self.capabilities.json_schema)
        return calling.read(await self._generate(calling.requests, calling.hearing(listener)))

    async def _generate(self, requests: Sequence[Request], listener: Listener | None) -> list[list[Completion]]:
        prepared = [self._prepare(r) for r in requests]
        gate = asyncio.Semaphore(WINDOW)

        async def sample(position: int, index: int) -> Completion:
            async with gate:
                return await self._sample(requests[position], position, index, prepared[position], listener)

        groups = companions(requests, self.name)
        if (size := max(map(len, groups), default=0)) > self._rows:
            raise UserError(f"{size} requests in lock-step need as many rows", hint=f"max_num_seqs is {self._rows}")
        pairs = asyncio.Semaphore(max(1, self._rows // max(1, size)))
        scope = uuid.uuid4().hex

        async def together(group: tuple[int, ...], index: int) -> list[Completion]:
            async with pairs:
                return await self._together([(requests[i], i, prepared[i]) for i in group], index, scope, listener)

        grouped = {i for group in groups for i in group}
        slots = [(i, x) for i, request in enumerate(requests) for x in request.indices if i not in grouped]
        gangs = [(group, x) for group in groups for x in requests[group[0]].indices]
        made = await self._all([self._listed(sample(i, x)) for i, x in slots] + [together(g, x) for g, x in gangs])
        order = [[slot] for slot in slots] + [[(i, x) for i in group] for group, x in gangs]
        done = {slot: c for slots_, cs in zip(order, made, strict=True) for slot, c in zip(slots_, cs, strict=True)}
        return [[done[i, x] for x in request.indices] for i, request in enumerate(requests)]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """One request, piece by piece (see `LanguageModel.stream`)."""
        async with aclosing(stream_of(self.generate, request)) as pieces:
            async for piece in pieces:
                yield piece

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Log-probabilities of continuations (see `LanguageModel.score`).

        One token of the context is needed for the engine's own purposes.
        """
        pairs = [self._tokenizer.continuation(prompt, c) for c in continuations]
        for before, after in pairs:
            self._check_ids(after)
            self._check_length(len(before) + len(after) + 1, "prompt, continuation and one token more")
        return await self._all([self._score(before, after, prompt.cache_salt) for before, after in pairs])

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Distributions of the next tokens (see `LanguageModel.next_token`); entropies are exact unless vLLM drafts."""
        if top < 1:
            raise UserError(f"top must be at least 1, not {top}")
        most = min(top, self._vocabulary)
        if most > MOST_ALTERNATIVES:
            raise CapabilityMissing(f"top_logprobs={top}", self.name)
        made = await self.generate(asking(prompts, most, whole=not self._drafts))
        return [distribution(completion) for [completion] in made]

    async def open_workers(self, opening: Opening) -> VllmWorkers:
        """Workers that read one another's cache (see `SharesCache`); with the setting `vllm.shared_workers` alone."""
        if self._quota is None:
            raise CapabilityMissing("kv_sharing", self.name)
        bounds = Bounds(self.name, self._context, self._context, self._vocabulary)
        host = WorkersHost(self._running, self._all, self._tokenizer, self._eos, bounds, self._seats, self._quota)
        return await open_workers(opening, host)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt with its template and prefix."""
        return len(self._tokenizer.prompt_ids(prompt))

    async def aclose(self) -> None:
        """End the engine and its processes; calls under way are cancelled. Idempotent."""
        engine, self.engine = self.engine, None
        if engine is None:
            return
        work = tuple(self._work)
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work)
        await stop_engine(engine)
        if self._started.events is not None:
            await asyncio.to_thread(self._started.events.close)

    # --- Calls

    def _prepare(self, request: Request) -> list[int]:
        """Tokens of a request, checked before any work."""
        sampling = request.sampling
        ids = self._tokenizer.prompt_ids(request.prompt)
        self._check_ids(ids)
        self._check_length(
            len(ids) + sampling.max_tokens, f"prompt ({len(ids)}) and max_tokens ({sampling.max_tokens})"
        )
        if sampling.top_logprobs > self.capabilities.top_logprobs:
            raise CapabilityMissing(f"top_logprobs={sampling.top_logprobs}", self.name, alternative="")
        if self._drafts:
            refuse_undraftable(sampling, self.name, draws=self._draws)
        make_hooks(sampling.hooks, self.name)
        if sampling.json_schema is not None:
            self._grammars.check(sampling.json_schema)
        return ids

    @staticmethod
    async def _listed(sample: Coroutine[Any, Any, Completion]) -> list[Completion]:
        return [await sample]

    async def _together(
        self,
        members: Sequence[tuple[Request, int, list[int]]],
        index: int,
        scope: str,
        listener: Listener | None,
    ) -> list[Completion]:
        """The samples of a group, one of each request, begun in one step of the engine.

        Under load a step may have no room for all of them: as long as nothing was said, they are begun again.
        """
        for attempt in range(TRIES):
            attempted = Attempt(listener, self._eos)
            names = [_fresh_name() for _ in members]
            tasks: list[asyncio.Task[Completion]] = []

            async def start(
                tasks: list[asyncio.Task[Completion]] = tasks,
                names: list[str] = names,
                attempted: Attempt = attempted,
                scope: str = f"{scope}-{attempt}",
            ) -> None:
                for (request, position, ids), name in zip(members, names, strict=True):
                    sample = self._sample(request, position, index, ids, attempted.hear, name, scope)
                    tasks.append(asyncio.ensure_future(sample))
                await reached(self._running(), names, tasks)

            try:
                await self._admission.admit(start)
                made = list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            lost = any(c.failure is not None and c.failure.code == OutOfStep.code for c in made)
            if not lost or attempted.told or attempt + 1 == TRIES:
                break
        attempted.tell_rest()
        return made

    async def _sample(
        self,
        request: Request,
        position: int,
        index: int,
        ids: list[int],
        listener: Listener | None,
        name: str = "",
        scope: str = "",
    ) -> Completion:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        name = name or _fresh_name()
        arguments = sampling_arguments(request.sampling, index, self._eos)
        schema = request.sampling.json_schema
        ordered = bool(request.sampling.hooks) or schema is not None
        if ordered:
            hooks = [hook.model_dump(mode="json") for hook in request.sampling.hooks]
            order = {"id": name, "sample": index, "hooks": hooks, "eos": sorted(self._eos), "scope": scope or name}
            text = "" if schema is None else json.dumps(schema)
            arguments["extra_args"] = {KEY: order | {"together": bool(scope), "json_schema": text}}
        params = SamplingParams(output_kind=RequestOutputKind.DELTA, **arguments)
        growing = Growing(request, position, index, ids, self._eos, self._tokenizer)
        chunk = Chunk(request=position, sample_index=index)
        salt = request.prompt.cache_salt
        async with aclosing(outputs_of(self._running(), ids, params, name, salt=salt)) as outputs:
            async for output in outputs:
                chunk = growing.take(output)
                if growing.reason is not None:
                    break
                if listener is not None:
                    listener(chunk)
        completion = growing.end(await self._report(name) if ordered else None)
        if completion.finish_reason == "error" and completion.failure is None:
            completion = growing.failed(Failure(code="backend_error", message="vLLM gave the sample up"))
        if listener is not None:
            listener(chunk.model_copy(update={"completion": completion}))
        return completion

    async def _report(self, name: str) -> dict[str, Any]:
        """What the hooks say of a sample.

        Raises:
            BackendError: They say nothing: the engine ran without them.
        """
        answers = await self._running().collective_rpc("reason_take_reports", args=([name],))
        report = next((a[name] for a in answers if name in a), None)
        if report is None:
            raise BackendError(
                f"vLLM ignored the logits hooks of a sample of {self.name}", hint="see docs/hooks.md for where they run"
            )
        found: dict[str, Any] = report
        return found

    async def _score(self, before: list[int], after: list[int], salt: str) -> ScoredContinuation:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not after:
            return ScoredContinuation(token_ids=(), logprobs=(), greedy=True, usage=Usage(prompt_tokens=len(before)))
        ids = [*before, *after]
        for cached in (True, False):
            params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **scoring_arguments(cached))
            last: Any = None
            async with aclosing(outputs_of(self._running(), ids, params, _fresh_name(), salt=salt)) as outputs:
                async for output in outputs:
                    last = output
            if last is not None and last.prompt_logprobs is not None and is_valid(last, len(before)):
                return scored(last, ids, len(before))
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
            told = self._translated(error)
            if told is error:
                raise
            raise told from error
        finally:
            self._work.difference_update(tasks)

    async def _one(self, work: Coroutine[Any, Any, T]) -> T:
        return (await self._all([work]))[0]

    def _translated(self, error: BaseException) -> BaseException:
        """An error of vLLM's as one of ours; any other as it is."""
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.v1.engine.exceptions import EngineDeadError

        if isinstance(error, EngineDeadError):
            return BackendUnavailable(f"vLLM's engine of {self.name} has died", hint="load the model again")
        if isinstance(error, VLLMClientError):
            return UserError(f"vLLM refuses the request: {error}")
        if isinstance(error, VLLMServerError):
            return BackendError(f"vLLM failed: {error.__cause__ or error}")
        return error

    def _running(self) -> Any:
        if self.engine is None:
            raise BackendUnavailable(f"the engine of {self.name} is closed", hint="load the model again")
        return self.engine

    def _make_prefixes(self, place: PrefixPlace, shape: BlockShape) -> VllmPrefixes:
        host = Host(
            engine=self._running,
            run=self._one,
            ids_of=self._tokenizer.prompt_ids,
            encode=self._tokenizer.encode,
            check_ids=self._check_ids,
            context_tokens=self._context,
            block_tokens=self._block_tokens,
            block_bytes=shape.nbytes,
        )
        return VllmPrefixes(PrefixFolder(place, Owner(self.name, self._weights, shape.dtype, shape.layout)), host)

    # --- Checks

    def _check_length(self, tokens: int, what: str) -> None:
        if tokens > self._context:
            raise ContextTooLong(
                f"{what} need {tokens} tokens; {self.name} holds {self._context}",
                tokens=tokens,
                limit=self._context,
                hint="shorten the prompt, lower max_tokens, or raise the setting vllm.max_model_len",
            )

    def _check_ids(self, ids: Sequence[int]) -> None:
        bad = next((i for i in ids if not 0 <= i < self._vocabulary), None)
        if bad is not None:
            raise UserError(f"token {bad} is not in the vocabulary of {self.name} ({self._vocabulary} tokens)")


def _fresh_name() -> str:
    """A name that no other request has."""
    return f"reason-{uuid.uuid4().hex}"


VLLM_PREFIX = "vllm/"


async def open_vllm(name: str, settings: Settings, progress: Progress | None = None) -> VllmModel:
    """Fetch a model's files, start vLLM on them, and check that hooks work.

    Args:
        name: `vllm/<short name>`, `vllm/<hub id>`, `vllm/<folder>` or `vllm/<file.gguf>`: what `local/…` takes.
        settings: Where the files are kept; the section `vllm`.
        progress: Told of the progress, from another thread.

    Raises:
        UserError: vLLM is not installed, or refuses the settings, or the script that starts it has no main guard.
        BackendUnavailable: The engine did not come up, or runs without our hooks.
        UnknownName: No model has that name.
        DataError: A model file is damaged.
    """
    require_vllm()
    require_main_guard()

    def load(cancel: threading.Event) -> VllmModel:
        place = PREFIX + name.removeprefix(VLLM_PREFIX)
        files = find_model(place, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
        prefixes = PrefixPlace(settings.cache_dir / "prefixes", settings.prefix_bytes)
        return VllmModel.load(name, files, settings.vllm, prefixes)

    model = await run_pull(load, lambda model: model.aclose())
    try:
        await model.check_engine()
    except BaseException:
        await model.aclose()
        raise
    return model
