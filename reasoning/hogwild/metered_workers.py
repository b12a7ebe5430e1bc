"""`MeteredWorkers`: a worker group as a strategy uses it, with the run's budget, store and trace."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from pydantic import JsonValue

from ...core.budget import CostBound
from ...core.clock import monotonic
from ...core.concurrency import shielded
from ...core.errors import CapabilityMissing, UserError
from ...core.events import TextDelta
from ...core.messages import Frozen, Usage
from ...core.store.records import call_key
from ...serving.metered.calls import CallInFlight, RecordedCalls
from ...serving.metered.model import MeteredModel
from ...serving.worker_group import GroupStep, SupportsWorkers, WorkerGroup, WorkerGroupConfig, WorkerToken

STEPS_PER_RECORD = 32
"""Steps of one stored record. Up to this many are repeated if the process is killed, none if it is cancelled."""


class _RecordedStep(Frozen):
    """A step as the store keeps it."""

    step: GroupStep
    tokens: tuple[WorkerToken | None, ...]


class _StepBatch(Frozen):
    """Consecutive steps, and the prompt tokens that were charged with them."""

    steps: tuple[_RecordedStep, ...]
    prompt_tokens: int = 0


def open_workers(model: MeteredModel, config: WorkerGroupConfig) -> MeteredWorkers:
    """Workers of a run's model that read one another's cache; they start with their first step.

    Raises:
        CapabilityMissing: The model's workers cannot share a cache.
    """
    if not model.capabilities.kv_sharing or not isinstance(model.backend, SupportsWorkers):
        raise CapabilityMissing("kv_sharing", model.name)
    limits_prompts = model.run.ledger.budget.prompt_tokens is not None
    prompt_tokens = model.max_prompt_tokens(config.prompt) if limits_prompts else 0
    return MeteredWorkers(model.backend, config, model.calls, prompt_tokens)


class MeteredWorkers:
    """Workers of a model in one role of one run. It is a `WorkerGroup` itself, with the differences named here.

    The group is one model call. Before a step its tokens, one for each worker that reads, are fitted into the budget.
    Sampled tokens are stored, some steps at a time: a resumed run takes them from there without computing, as long as
    it requests the same steps. At the first step that is not stored, the group is opened and led through all steps so
    far once more, which is not charged again.

    Args:
        model: The model.
        config: How the workers start.
        calls: The model's calls in the run.
        max_prompt_tokens: Upper bound on the tokens of the prompt, where the budget limits them; else 0.

    Raises:
        BudgetExceeded: By `advance`, if a step does not fit the budget, the time is over, or the user wants the answer
            now.
    """

    def __init__(
        self, model: SupportsWorkers, config: WorkerGroupConfig, calls: RecordedCalls, max_prompt_tokens: int = 0
    ) -> None:
        self._model, self._config, self._calls = model, config, calls
        self._max_prompt_tokens = max_prompt_tokens
        self._run = calls.run
        self._group: WorkerGroup | None = None
        self._call: CallInFlight | None = None
        self._past: list[_RecordedStep] = []
        self._stored: list[_RecordedStep] = []
        self._unsaved: list[_RecordedStep] = []
        self._unsaved_key = ""
        self._digest = hashlib.sha256()
        self._prompt_tokens = self._tokens = self._replayed_tokens = self._emitted_tokens = 0
        self._working_s = self._charged_s = 0.0
        self._closed = False
        thought = config.prompt.thought
        self._is_thought = thought is not None and not thought.closed

    @property
    def num_workers(self) -> int:
        return self._config.num_workers

    @property
    def usage(self) -> Usage:
        """What was charged so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._tokens,
            thinking_tokens=self._tokens if self._is_thought else 0,
        )

    async def advance(self, step: GroupStep) -> list[WorkerToken | None]:
        """One step (see `WorkerGroup.advance`)."""
        if self._closed:
            raise UserError("the worker group is closed", hint="open another one")
        run, reading = self._run, sum(fed is not None for fed in step.inputs)
        even_closed = run.conclusion is not None
        if self._call is None:
            with run.ledger.reserve(
                self._max_cost(reading, calls=1, prompt_tokens=self._max_prompt_tokens), even_closed=even_closed
            ):
                self._call = self._calls.start("workers", requests=self.num_workers, samples=self.num_workers)
                self._charge(Usage(), calls=1)
        with run.ledger.reserve(self._max_cost(reading), even_closed=even_closed):
            tokens = await self._lookup(step)
            is_replayed = tokens is not None
            if tokens is None:
                run.require_open()
                tokens = await self._compute(step)
                if not self._unsaved:
                    self._unsaved_key = self._key()
                self._unsaved.append(_RecordedStep(step=step, tokens=tuple(tokens)))
            self._past.append(_RecordedStep(step=step, tokens=tuple(tokens)))
            self._digest.update(step.model_dump_json().encode())
            sampled = sum(token is not None for token in tokens)
            self._tokens += sampled
            replayed = sampled if is_replayed else 0
            self._replayed_tokens += replayed
            thinking = sampled if self._is_thought else 0
            self._charge(Usage(completion_tokens=sampled, thinking_tokens=thinking), replayed_tokens=replayed)
        if run.stream_text:
            for worker, token in enumerate(tokens):
                if token is not None:
                    text, thought = ("", token.text) if self._is_thought else (token.text, "")
                    delta = TextDelta(request=worker, sample=0, text=text, thought=thought, tokens=1)
                    run.emit(delta, parent=self._call.number)
        if len(self._unsaved) >= STEPS_PER_RECORD:
            await self._save()
        return tokens

    async def aclose(self) -> None:
        """Store the last steps, emit the end of the call, and free what the workers hold; idempotent."""
        if not self._closed:
            self._closed = True
            await shielded(self._end())

    # -- run store

    async def _lookup(self, step: GroupStep) -> list[WorkerToken | None] | None:
        """The stored tokens of a step; None if there are none, or if another step is stored here."""
        if self._group is not None or self._unsaved:
            return None  # steps after one that was not stored are not stored either
        if not self._stored or self._stored[0].step != step:
            stored = await self._run.lookup_calls([key := self._key()])
            batch = _StepBatch.model_validate(stored[key].response) if key in stored else _StepBatch(steps=())
            self._stored = list(batch.steps)
            if not self._stored or self._stored[0].step != step:
                self._stored = []
                return None
            self._charge_prompt(batch.prompt_tokens)
        return list(self._stored.pop(0).tokens)

    def _key(self) -> str:
        """Key of the steps that follow those so far."""
        request: JsonValue = {
            "workers": self._config.model_dump(mode="json", exclude={"seed"}),
            "after": self._digest.hexdigest(),
        }
        return call_key(self._calls.identity, request, self._config.seed, len(self._past))

    async def _save(self) -> None:
        if not self._unsaved:
            return
        uncharged = self._group.usage.prompt_tokens - self._prompt_tokens if self._group is not None else 0
        self._charge_prompt(uncharged)
        batch = _StepBatch(steps=tuple(self._unsaved), prompt_tokens=max(0, uncharged))
        first = len(self._past) - len(self._unsaved)
        request: dict[str, JsonValue] = {"workers": self._config.model_dump(mode="json"), "first": first}
        record = self._calls.record(self._unsaved_key, request, batch.model_dump(mode="json"))
        await self._run.save_calls([record])
        self._unsaved = []
        self._emit_charged()
        await self._run.save()

    # -- model

    async def _compute(self, step: GroupStep) -> list[WorkerToken | None]:
        """Run the step; before the first one, all steps that were taken from the store."""
        started = monotonic()
        try:
            with self._calls.shown_errors():
                async with self._calls.time_limit():
                    if self._group is None:
                        self._group = await self._model.start_workers(self._config)
                        for past in self._past:
                            await self._group.advance(past.step)
                    return await self._group.advance(step)
        finally:
            self._working_s += monotonic() - started

    # -- budget and trace

    def _max_cost(self, tokens: int, *, calls: int = 0, prompt_tokens: int = 0) -> CostBound:
        thinking = tokens if self._is_thought else 0
        return CostBound(tokens=tokens, calls=calls, thinking_tokens=thinking, prompt_tokens=prompt_tokens)

    def _charge_prompt(self, tokens: int) -> None:
        if tokens > 0:
            self._prompt_tokens += tokens
            self._charge(Usage(prompt_tokens=tokens))

    def _charge(self, usage: Usage, *, calls: int = 0, replayed_calls: int = 0, replayed_tokens: int = 0) -> None:
        number = self._call.number if self._call is not None else 0
        spent = CallInFlight(number, usage, calls=calls, replayed_calls=replayed_calls, replayed_tokens=replayed_tokens)
        self._calls.charge(spent, working_s=self._working_s - self._charged_s)
        self._charged_s = self._working_s

    def _emit_charged(self) -> None:
        if self._call is not None:
            calls = 0 if self._emitted_tokens else 1
            self._calls.emit_charged(self._call, tokens=self._tokens - self._emitted_tokens, calls=calls)
            self._emitted_tokens = self._tokens

    async def _end(self) -> None:
        try:
            await self._save()
        finally:
            group, self._group = self._group, None
            if group is not None:
                with suppress(Exception):  # its engine may be closed, and then nothing is held
                    await group.aclose()
            if self._call is not None:
                self._charge(Usage(), replayed_calls=1 if self._tokens == self._replayed_tokens else 0)
                self._call.usage = self.usage
                self._calls.emit_finished(self._call, self._working_s)
                self._emit_charged()
                await self._run.save()
