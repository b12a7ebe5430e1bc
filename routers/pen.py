"""`Pen`: one of the two models, as it writes: sends its requests, books what they cost, and keeps to the allowance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

from ..core.errors import BadReply, CapabilityMissing
from ..core.messages import Completion, Prompt, Request
from ..core.run import Run
from ..reasoning.reply_prefix import Continuations
from ..serving.metered import MeteredModel
from ..serving.model import Listener
from .allowance import Allowance
from .routed import Books, Purpose
from .step_rules import Writer

Booked = tuple[int, list[Completion]]
"""The samples of a request, and their entry in the books."""

CONTEXT_SLACK = 64
"""Tokens of the context that are left alone: what a text comes to in a model's tokens is an estimate."""


class Pen:
    """One model within one run.

    Its samples of a prompt are its own: where both roles are played by one model, the two draw from different streams.

    Args:
        writer: Which of the two it is.
        model: The model.
        prompt: The question, perhaps with the beginning of every reply.
        run: The run that pays.
        books: Where its tokens are booked.
        allowance: What may be spent on anything but the answer.
    """

    def __init__(
        self, writer: Writer, model: MeteredModel, prompt: Prompt, run: Run, books: Books, allowance: Allowance
    ) -> None:
        self.writer, self.model, self.base = writer, model, prompt
        self.books, self.allowance = books, allowance
        self.steps = Continuations(model, prompt, run, f"step.{writer}")
        self.probes = Continuations(model, prompt, run, f"probe.{writer}")
        self._run = run
        self._stops = True
        self._prompt_tokens, self._written = 0, 0

    def prompt_after(self, context: str) -> Prompt:
        """The prompt that asks for what follows this beginning of the reply, which is given as text.

        Raises:
            CapabilityMissing: The model cannot be given the beginning of its reply.
        """
        prompt = self.steps.prompt_after(context, None)
        if prompt.prefix and not self.model.capabilities.prefix:
            raise CapabilityMissing("prefix", self.model.name)
        return prompt

    def room(self, wanted: int, written: int) -> int:
        """Tokens that its context has for a request, as far as that is known: `wanted` or fewer, 0 if there is none.

        What a prompt comes to is estimated from the last one that the model was given, and from what was written since;
        a replay, which has no tokenizer, estimates the same.

        Args:
            wanted: As many would be wanted.
            written: Tokens of the reply so far, whoever wrote them.
        """
        context = self.model.capabilities.context_tokens
        if context is None or not self._prompt_tokens:
            return wanted
        since = max(0, written - self._written)
        return max(0, min(wanted, context - self._prompt_tokens - since - since // 4 - CONTEXT_SLACK))

    async def ask(
        self,
        purpose: Purpose,
        requests: Sequence[Request],
        *,
        written: int = 0,
        listener: Listener | None = None,
        enough: asyncio.Event | None = None,
        last: bool = False,
    ) -> list[Booked]:
        """Send requests as one call; they are cut where the time for the answer begins, unless they are the answer.

        Args:
            purpose: What they are for, in the books; the first of two is always a probe.
            requests: The requests.
            written: Tokens of the reply that they follow.
            listener: Hears of what is generated.
            enough: Cuts them off.
            last: Whether this is the answer.

        Raises:
            LimitExceeded: The budget does not cover them, or the time for steps is over.
            BadReply: A sample failed.
            BackendError: The model failed altogether.
        """
        ledger = self._run.ledger
        began = ledger.elapsed_s
        with nullcontext(enough) if last else self.allowance.time.cutting(enough) as cut:
            made = await self._send([self._without_stops(r) for r in requests], listener, cut)
        self.allowance.time.took(ledger.elapsed_s - began)
        booked: list[Booked] = []
        for i, (request, completions) in enumerate(zip(requests, made, strict=True)):
            what: Purpose = "probe" if len(requests) > 1 and i == 0 else purpose
            booked.append((self.books.enter(self.writer, what, completions), completions))
            tokens = completions[0].usage.prompt_tokens
            if tokens and request.prompt.messages == self.base.messages:
                self._prompt_tokens, self._written = tokens, written
        for completion in (c for completions in made for c in completions):
            if completion.failure is not None:
                self.books.book_as("discarded", [n for n, _ in booked if self.books.entries[n].purpose == "step"])
                raise BadReply(f"{self.model.name} gave no sample: {completion.failure.message}")
        return booked

    async def _send(
        self, requests: Sequence[Request], listener: Listener | None, enough: asyncio.Event | None
    ) -> list[list[Completion]]:
        try:
            return await self.model.generate(requests, listener, enough=enough)
        except CapabilityMissing as e:
            if e.feature != "stop" or not self._stops:
                raise
        self._stops = False
        self._run.degrade(
            f"{self.model.name} takes no stop strings; its steps were cut at the separator after they were made"
        )
        return await self.model.generate([self._without_stops(r) for r in requests], listener, enough=enough)

    def _without_stops(self, request: Request) -> Request:
        if self._stops or not request.sampling.stop:
            return request
        return request.model_copy(update={"sampling": request.sampling.model_copy(update={"stop": ()})})
