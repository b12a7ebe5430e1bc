"""`Ensemble`: several models that share the samples of one prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pydantic import JsonValue

from ..core.concurrency import gather
from ..core.errors import BackendError, BudgetExceeded, ReasonError, StoreError
from ..core.messages import Chunk, Completion, Failure, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Question
from ..serving.metered.model import MeteredModel
from ..serving.model import Listener
from .conclude import conclude


class Ensemble:
    """Models that take the samples of a prompt in turn: sample i is one of the i-th of them.

    A model gets its samples as one request, under indices of its own from 0, so that it shares them with other
    strategies. All are called at once. A model that fails, or that the budget does not cover, fails its own samples
    alone.

    Args:
        turns: The model of each sample; a model that takes several appears several times, as one object.
        max_tokens: Maximum tokens of a sample of each turn, thought and answer together; infinite for no such limit.
        max_thinking_tokens: Maximum tokens of each thought.
        run: The run that pays.
    """

    def __init__(
        self, turns: Sequence[MeteredModel], max_tokens: Sequence[float], max_thinking_tokens: float, run: Run
    ) -> None:
        self._turns, self._max_tokens, self._max_thinking_tokens = tuple(turns), tuple(max_tokens), max_thinking_tokens
        self._run = run
        self.members = tuple({id(model): model for model in turns}.values())
        self.name = ", ".join(model.name for model in self.members)

    def writer(self, sample: int) -> MeteredModel:
        """The model of a sample."""
        return self._turns[sample]

    @property
    def key(self) -> JsonValue:
        """What the samples depend on besides their request: the model of each."""
        return [model.identity for model in self._turns]

    def max_sample_tokens(self, prompt: Prompt, sampling: SamplingParams) -> int:
        """Maximum tokens of a sample, its thought included."""
        return max(
            self._bounded(i, Request(prompt=prompt, sampling=sampling)).sampling.total_tokens
            for i in range(len(self._turns))
        )

    def max_samples_of(self, prompt: Prompt, samples: int) -> int:
        """Number of samples of a prompt whose prompt tokens fit the budget, between 1 and `samples`."""
        return min(model.max_samples_of(prompt, samples) for model in self.members)

    @contextmanager
    def held(self, requests: Sequence[Request]) -> Iterator[None]:
        """See `MeteredModel.held`."""
        with ExitStack() as stack:
            for request in requests:
                for model, own, _ in self._parts(request):
                    stack.enter_context(model.held([own]))
            yield

    async def generate(
        self, requests: Sequence[Request], listener: Listener | None = None, *, enough: asyncio.Event | None = None
    ) -> list[list[Completion]]:
        """See `MeteredModel.generate`; the listener gets finished samples alone.

        Raises:
            BackendError: Every model failed.
            BudgetExceeded: The budget covers none of the models.
        """
        return [await self._generate(request, listener, enough) for request in requests]

    async def conclude(
        self, samples: Sequence[tuple[Prompt, Completion]], question: Question, run: Run
    ) -> list[Completion]:
        """See `conclude.conclude`."""
        results = [completion for _, completion in samples]
        for model in self.members:
            own = [i for i, completion in enumerate(results) if self.writer(completion.sample_index) is model]
            for i, concluded in zip(own, await conclude(model, [samples[i] for i in own], question, run), strict=True):
                results[i] = concluded
        return results

    async def _generate(
        self, request: Request, listener: Listener | None, enough: asyncio.Event | None
    ) -> list[Completion]:
        errors: list[ReasonError] = []
        done: dict[int, Completion] = {}

        async def call(model: MeteredModel, own: Request, samples: Sequence[int]) -> None:
            def finish(completion: Completion, sample: int) -> None:
                done[sample] = completion.model_copy(update={"sample_index": sample})
                if listener is not None:
                    listener(Chunk(sample_index=sample, completion=done[sample]))

            def on_chunk(chunk: Chunk) -> None:
                if chunk.completion is not None:
                    finish(chunk.completion, samples[own.indices.index(chunk.sample_index)])

            try:
                (completions,) = await model.generate([own], on_chunk, enough=enough)
            except (BackendError, BudgetExceeded, StoreError) as e:
                # a replay has no response where the run itself got an error
                if isinstance(e, StoreError) and self._run.recording:
                    raise
                if isinstance(e, BudgetExceeded):
                    self._run.record_limit(e)
                errors.append(e)
                failure = Failure(code=e.code, message=e.message)
                for sample in samples:
                    if sample not in done:
                        finish(Completion(text="", finish_reason="error", failure=failure), sample)
            else:
                for completion, sample in zip(completions, samples, strict=True):
                    done[sample] = completion.model_copy(update={"sample_index": sample})

        await gather([call(*part) for part in self._parts(request)])
        if errors and all(not completion.ok for completion in done.values()):
            raise next((e for e in errors if isinstance(e, BackendError)), errors[0])
        return [done[sample] for sample in request.indices]

    def _parts(self, request: Request) -> Iterator[tuple[MeteredModel, Request, list[int]]]:
        """Each model with its request and the samples that are its own."""
        for model in self.members:
            turns = [i for i, one in enumerate(self._turns) if one is model]
            samples = [i for i in turns if i in request.indices]
            if samples:
                own = request.model_copy(update={"sample_indices": tuple(turns.index(i) for i in samples)})
                yield model, self._bounded(samples[0], own), samples

    def _bounded(self, turn: int, request: Request) -> Request:
        return self._turns[turn].within(request, self._max_tokens[turn], self._max_thinking_tokens)
