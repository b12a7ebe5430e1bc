"""`LocalModel`: the embedded engine behind the `LanguageModel` protocol.

What a seed promises. A sample draws from a generator of its own, made of (seed, index). A row gets the same bits from
every matrix product whatever rows share the step, and from attention whatever stands beside it or behind it (`plans`,
`kvlog.whole_lanes`); what is left is the order of the columns in a log, in which attention sums. A log belongs to one
call and begins with the prompt, computed now or copied from an earlier call's log. So the same call gives the same text
in every format, whatever was asked before it and runs beside it, as long as its samples begin together.

Asking for some of a call's samples alone, as a resumed run does, puts other columns between theirs: in fp32 that moves
a logit by about 1e-6, and a draw changes with a probability of about that size; in bf16 it moves log-probabilities by
up to 0.2 (`lookahead.guesses.steady`), and tokens change now and then. Lookahead would do the same to calls for several
samples, and by default leaves them alone where it matters.

That holds on a CPU with oneDNN. Other devices' products and attention may give a row other last bits when other rows
share its step, so that there a seed gives the same text only where its call ran beside the same others. Logits come to
the CPU to be drawn from: generators and hooks are the same ones everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import torch

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import Chunk, Completion, NextTokenDistribution, Prompt, Request, ScoredContinuation
from ..devices import choose_device
from ..logits_processors import companions, hook_names, make_hooks
from ..model import Capabilities, Listener, Relevance
from ..model_files.find import ModelFiles
from ..prefix_folder import Owner, PrefixFolder, PrefixPlace
from ..streaming import stream_of
from ..structured_output import SCHEMA, Grammars
from ..tool_calls import Calling
from ..worker_group import Opening
from .config import Bounds, ModelShape
from .engine_thread import Call, Calls
from .hardware import default_kv_bytes, default_threads, native_format
from .kv_store import LAYOUT, LocalPrefixes
from .model import Decoder, Forward
from .relevance import RelevanceTask, place_parts
from .scheduler import Scheduler
from .sequence import SampleTask
from .spec_decode import Counts, Lookahead, Mode
from .tasks import NextTask, ScoreTask
from .tokenizer import Tokenizer, eos_ids
from .weights import PROCESSOR, WeightFormat
from .worker_group import LocalWorkers, open_workers

WINDOW = 1024
"""Requests of one call that are handed to the engine at a time."""


class LocalModel:
    """A language model computed in this process.

    Attributes:
        name: `local/…`.
        identity: Fingerprint of the weights, the number format and, where it is not the CPU, the kind of device.
        weight_format: "fp32", "bf16" or "int4".
        device: Where it is computed.
        threads: Threads a step may use.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        forward: Forward,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        *,
        weight_format: WeightFormat,
        threads: int,
        kv_bytes: int,
        max_rows: int,
        prefixes: PrefixPlace | None = None,
        checkpoint: Path | None = None,
        lookahead: Mode = "auto",
    ) -> None:
        self.name = name
        self.device = forward.device
        elsewhere = "" if self.device.type == "cpu" else f"+{self.device.type}"
        self.identity = f"{fingerprint}+{weight_format}{elsewhere}"
        self.weight_format = weight_format
        self.threads = threads
        self._tokenizer, self._eos = tokenizer, eos
        self._forward = forward
        self._shape, self._decoder = forward.shape, forward if isinstance(forward, Decoder) else None
        self._max_rows, self._checkpoint = max_rows, checkpoint
        # where a guess could move bits, "auto" never guesses (`guesses.steady`): then no texts need be kept for it
        looks = lookahead if forward.steady or lookahead == "on" else "off"
        self._scheduler = Scheduler(forward, kv_bytes, max_rows, Lookahead(eos, looks))
        self._grammars = Grammars(tokenizer, self._shape.vocab, eos, name)
        self._bounds = Bounds(name, self._shape.context, self._scheduler.prefixes.most_columns, self._shape.vocab)
        self._calls = Calls(self._scheduler, threads)
        self._kv_store: LocalPrefixes | None = None
        if prefixes is not None:
            dtype = str(forward.open_log(0).dtype).removeprefix("torch.")
            folder = PrefixFolder(prefixes, Owner(name, self.identity, dtype, LAYOUT))
            self._kv_store = LocalPrefixes(self._calls, self._tokenizer, self._bounds, self._shape, folder)

    @classmethod
    def load(
        cls,
        files: ModelFiles,
        *,
        weight_format: Literal["auto", "fp32", "bf16", "int4"] = "auto",
        threads: int | None = None,
        kv_bytes: int | None = None,
        max_rows: int = 16,
        device: str = "cpu",
        prefixes: PrefixPlace | None = None,
        lookahead: Mode = "auto",
    ) -> LocalModel:
        """Read a model and start its engine.

        Args:
            files: Where it lies.
            weight_format: "auto" is bf16 where the device has it natively, else fp32. "int4" must be asked for: it is
                faster at few rows and changes what small models write; it is computed on the CPU alone.
            threads: Threads a step may use; None chooses (`calibrate.default_threads`).
            kv_bytes: Bytes for keys and values; None is a quarter of the device's free memory.
            max_rows: Samples decoded together.
            device: Where it is computed: "cpu", "cuda", "cuda:1" and the like; "auto" is a GPU if torch sees one
                through CUDA, else the CPU.
            prefixes: Where named prefixes are kept; None is an engine without them.
            lookahead: Whether rows are guessed ahead; changes how fast a text is written and not the text (see
                `lookahead.lookahead.Lookahead`).

        Raises:
            DataError: The files are not a model.
            UserError: A setting is out of range.
            CapabilityMissing: The format cannot be computed here.
            BackendUnavailable: The device is not there.
        """
        for setting, value in (("threads", threads), ("kv_bytes", kv_bytes), ("max_rows", max_rows)):
            if value is not None and value < 1:
                raise UserError(f"{setting} must be at least 1, not {value}")
        if weight_format not in ("auto", "fp32", "bf16", "int4"):
            raise UserError(f"unknown weight format {weight_format!r}", hint="one of auto, fp32, bf16, int4")
        where = choose_device(device, "local.device")
        chosen = native_format(where) if weight_format == "auto" else weight_format
        tokenizer = Tokenizer(files.folder, files.name)
        return cls(
            files.name,
            files.fingerprint,
            _forward(files, chosen, where),
            tokenizer,
            eos_ids(files.folder, tokenizer),
            weight_format=chosen,
            threads=threads or default_threads(),
            kv_bytes=kv_bytes or default_kv_bytes(where),
            max_rows=max_rows,
            prefixes=prefixes,
            checkpoint=files.folder,
            lookahead=lookahead,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        return Capabilities(
            logprobs=True,
            top_logprobs=min(1000, self._shape.vocab),
            full_vocabulary=True,
            scoring=True,
            prefix=True,
            seed=True,
            hooks=hook_names(),
            json_schema=self._grammars.possible,
            forks=True,
            kv_sharing=self._decoder is not None,
            pins=self._kv_store is not None,
            tools=self._tokenizer.tool_forms.shows_tools,
            context_tokens=self._bounds.tokens,
            max_batch=self._max_rows,
        )

    @property
    def kv_store(self) -> LocalPrefixes:
        """Its named prefixes (see `kv_store.KVStore`).

        Raises:
            CapabilityMissing: It was given no place for them.
        """
        if self._kv_store is None:
            raise CapabilityMissing("pins", self.name, alternative="")
        return self._kv_store

    @property
    def rows_under_way(self) -> int:
        """Samples being decoded right now."""
        return self._scheduler.rows

    @property
    def lookahead(self) -> Counts:
        """What guessing ahead has done so far."""
        return self._scheduler.lookahead.counts

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values held right now, in use or stored."""
        return self._scheduler.prefixes.nbytes

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Sample every request in one batch (see `LanguageModel.generate`)."""
        if not any(request.prompt.tools for request in requests):
            return await self._generate(requests, listener)
        calling = Calling(requests, self._tokenizer, self.name, holds=self._grammars.possible)
        return calling.read(await self._generate(calling.requests, calling.hearing(listener)))

    async def _generate(self, requests: Sequence[Request], listener: Listener | None) -> list[list[Completion]]:
        prepared = [self._prepare(r) for r in requests]
        for (_, hooks), request in zip(prepared, requests, strict=True):
            if (schema := request.sampling.json_schema) is not None:
                # behind all hooks, so that none of them undoes it
                hooks.append((SCHEMA, await asyncio.to_thread(self._grammars.of, schema)))
        groups = companions(requests, self.name)
        if (size := max(map(len, groups), default=0)) > self._max_rows:
            raise UserError(f"{size} requests in lock-step need as many rows", hint=f"max_rows is {self._max_rows}")
        results: list[list[Completion]] = []
        window = len(requests) if groups else WINDOW  # a group must not be cut
        for start in range(0, len(requests), max(1, window)):
            stop = min(start + window, len(requests))
            results.extend(await self._sample(requests, prepared, start, stop, listener, groups))
        return results

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """One request, piece by piece (see `LanguageModel.stream`)."""
        async with aclosing(stream_of(self.generate, request)) as pieces:
            async for piece in pieces:
                yield piece

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Log-probabilities of continuations (see `LanguageModel.score`)."""
        if not continuations:
            return []
        pairs = [self._tokenizer.continuation(prompt, c) for c in continuations]
        for before, after in pairs:
            self._bounds.check_ids([*before, *after])
            self._bounds.check_length(len(before) + len(after), "prompt and continuation")
        shared = min(len(before) for before, _ in pairs)
        first = pairs[0][0]
        while any(before[:shared] != first[:shared] for before, _ in pairs):
            shared -= 1
        results: list[ScoredContinuation] = []

        def hear(scored: list[ScoredContinuation]) -> None:
            results.extend(scored)
            call.finish()

        call = Call(hear)
        call.tasks.append(
            ScoreTask(
                ids=first[:shared],
                given=[before[shared:] for before, _ in pairs],
                scored=[after for _, after in pairs],
                told=call.tell,
                failed=call.tell,
                width=self._max_rows,
                salt=prompt.cache_salt,
            )
        )
        await self._calls.run(call)
        return results

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Exact distributions of the next tokens (see `LanguageModel.next_token`)."""
        if top < 1:
            raise UserError(f"top must be at least 1, not {top}")
        if not prompts:
            return []
        listed = [self._tokenizer.prompt_ids(p) for p in prompts]
        for ids in listed:
            self._bounds.check_ids(ids)
            self._bounds.check_length(len(ids), "prompt")
        results: list[NextTokenDistribution | None] = [None] * len(prompts)

        def hear(item: tuple[int, NextTokenDistribution]) -> None:
            results[item[0]] = item[1]
            if all(r is not None for r in results):
                call.finish()

        call = Call(hear)

        def teller(i: int) -> Callable[[NextTokenDistribution], None]:
            return lambda value: call.tell((i, value))

        whose = object()
        for i, (ids, prompt) in enumerate(zip(listed, prompts, strict=True)):
            call.tasks.append(
                NextTask(
                    ids=ids,
                    top=top,
                    tokenizer=self._tokenizer,
                    told=teller(i),
                    failed=call.tell,
                    call=whose,
                    salt=prompt.cache_salt,
                )
            )
        await self._calls.run(call)
        return [r for r in results if r is not None]

    async def relevance(self, prompt: Prompt, parts: Sequence[str], continuation: str) -> Relevance:
        """What a continuation rests on, by the checkpoint's own weights in fp32 (see `ExplainsTokens.relevance`).

        The engine does nothing else meanwhile: it takes about five forward passes that reuse nothing.
        """
        if self._decoder is None or self._checkpoint is None:
            raise CapabilityMissing("relevance", self.name, alternative="")
        placed = place_parts(self._tokenizer, prompt, parts, continuation)
        self._bounds.check_ids(placed.ids)
        self._bounds.check_length(len(placed.ids), "prompt and continuation")
        results: list[Relevance] = []

        def hear(found: Relevance) -> None:
            results.append(found)
            call.finish()

        call = Call(hear)
        task = RelevanceTask(self._shape, self._checkpoint, self.device, placed, told=call.tell, failed=call.tell)
        call.tasks.append(task)
        await self._calls.run(call)
        return results[0]

    async def open_workers(self, opening: Opening) -> LocalWorkers:
        """Workers that read one another's cache (see `SharesCache`)."""
        if self._decoder is None:
            raise CapabilityMissing("kv_sharing", self.name)
        return await open_workers(opening, self._decoder, self._calls, self._tokenizer, self._eos, self._bounds)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt with its template and prefix."""
        return len(self._tokenizer.prompt_ids(prompt))

    async def aclose(self) -> None:
        """End the engine's thread and free cache and weights; calls under way are cancelled. Idempotent."""
        await self._calls.aclose()
        self._scheduler.prefixes.close()
        # By hand: what refers to one another here would keep hundreds of megabytes until Python looks for such rings.
        self._forward.close()

    # --- Calls

    def _prepare(self, request: Request) -> tuple[list[int], list[tuple[str, Any]]]:
        """Tokens and hooks of a request, checked before any work."""
        sampling = request.sampling
        ids = self._tokenizer.prompt_ids(request.prompt)
        self._bounds.check_ids(ids)
        self._bounds.check_length(
            len(ids) + sampling.max_tokens, f"prompt ({len(ids)}) and max_tokens ({sampling.max_tokens})"
        )
        if sampling.top_logprobs > self.capabilities.top_logprobs:
            raise CapabilityMissing(f"top_logprobs={sampling.top_logprobs}", self.name, alternative="")
        return ids, make_hooks(sampling.hooks, self.name)

    async def _sample(
        self,
        requests: Sequence[Request],
        prepared: Sequence[tuple[list[int], list[tuple[str, Any]]]],
        start: int,
        stop: int,
        listener: Listener | None,
        groups: Sequence[tuple[int, ...]],
    ) -> list[list[Completion]]:
        finished: list[dict[int, list[Completion]]] = [{} for _ in range(start, stop)]
        alone = sum(len(r.indices) for r in requests) == 1
        left = sum(len(r.indices) for r in requests[start:stop])

        def hear(chunk: Chunk) -> None:
            nonlocal left
            if chunk.completion is not None:
                finished[chunk.request - start].setdefault(chunk.sample_index, []).append(chunk.completion)
                left -= 1
            if listener is not None:
                listener(chunk)
            if not left:
                call.finish()

        call = Call(hear)
        whose = object()
        made: dict[int, SampleTask] = {}
        for position in in_order(range(start, stop), groups):
            ids, hooks = prepared[position]
            if requests[position].indices:
                made[position] = SampleTask(
                    request=requests[position],
                    position=position,
                    ids=ids,
                    eos=self._eos,
                    hooks=hooks,
                    tokenizer=self._tokenizer,
                    tell=call.tell,
                    failed=call.tell,
                    call=whose,
                    alone=alone,
                )
        for group in groups:
            mates = [made[i] for i in group if i in made]
            for mate in mates:
                mate.mates = mates
        call.tasks.extend(made.values())
        if call.tasks:
            await self._calls.run(call)
        return [[done[index].pop(0) for index in requests[start + i].indices] for i, done in enumerate(finished)]


def in_order(positions: Iterable[int], groups: Sequence[tuple[int, ...]]) -> list[int]:
    """The positions, those of a group one behind the other: so no half of a group keeps the other from its place."""
    group_of = {i: group for group in groups for i in group}
    return list(dict.fromkeys(j for i in positions for j in group_of.get(i, (i,))))


def _forward(files: ModelFiles, weight_format: WeightFormat, device: torch.device = PROCESSOR) -> Forward:
    """The engine's own forward where it knows the family, transformers' modules elsewhere."""
    if ModelShape.is_ours(files.folder):
        return Decoder.load(files.folder, weight_format, device)
    from .transformers_model import TransformersForward

    return TransformersForward.load(files.folder, weight_format, files.name, device)
