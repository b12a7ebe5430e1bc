"""`Asker`: puts requests behind a trajectory and sends those that do not depend on each other as one call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import BadReply
from ...core.messages import Completion, Prompt, Request, Sampling
from ...core.run import Run
from ...serving.metered import MeteredModel
from ..prompts import ask
from .trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the model.

    Attributes:
        trajectory: The problem and its steps, which come first.
        parts: What stands behind them, the request itself last.
        tokens: Most tokens of the reply.
        begin: How the reply begins, for models that can be given that.
        stop: Strings that end it.
        creative: Whether it is sampled at the attempt's temperature; what is judged or read is greedy.
        last: Whether it is the final answer, which may take all of the time that is left.
    """

    trajectory: Trajectory
    parts: Sequence[str]
    tokens: int
    begin: str = ""
    stop: tuple[str, ...] = ()
    creative: bool = False
    last: bool = False


class Asker:
    """Asks one model about trajectories, for one attempt at a problem.

    Args:
        model: The model.
        run: The run.
        system: System message; empty leaves it to the model.
        temperature: Sampling temperature of steps, subtasks and plans; 0 is greedy.
        sample_index: Which sample of each request is wanted: attempts with different ones are independent, and each is
            found again in the run store.

    Attributes:
        calls: Requests so far.
        tokens: Tokens generated so far.
        cut: Whether the budget has cut a reply short.
    """

    def __init__(self, model: MeteredModel, run: Run, *, system: str, temperature: float, sample_index: int) -> None:
        self.model, self.run = model, run
        self.calls, self.tokens = 0, 0
        self.cut = False
        self._slowest_s = 0.0
        self.system = system
        self._temperature, self._index = temperature, sample_index

    @property
    def kept_back_s(self) -> float:
        """Seconds kept back for the final answer: a tenth of the time limit, or what the slowest call so far took."""
        return max(self._slowest_s, (self.run.ledger.budget.seconds or 0.0) / 10)

    async def ask(self, *asked: Asked) -> list[Completion]:
        """Send requests as one call.

        Returns:
            A reply for each; its text has the given beginning in front.

        Raises:
            LimitExceeded: The budget does not cover them, or the time for everything but the final answer is over.
            BadReply: The model gave no sample.
            BackendError: It failed altogether.
        """
        requests = [self._request(one) for one in asked]
        ledger = self.run.ledger
        began = ledger.elapsed_s
        replies = await self._generate(requests, last=any(one.last for one in asked))
        self._slowest_s = max(self._slowest_s, ledger.elapsed_s - began)
        self.calls += len(requests)
        self.tokens += sum(reply.usage.completion_tokens for reply in replies)
        self.cut = self.cut or any(reply.finish_reason == "budget" for reply in replies)
        if any(reply.finish_reason == "cancelled" for reply in replies):  # likewise when it is replayed
            raise ledger.refuse("seconds")
        for reply in replies:
            if reply.failure is not None:
                raise BadReply(f"the model gave no sample: {reply.failure.message}")
        return [
            reply.model_copy(update={"text": f"{request.prompt.prefix}{reply.text}"})
            for request, reply in zip(requests, replies, strict=True)
        ]

    async def _generate(self, requests: Sequence[Request], *, last: bool) -> list[Completion]:
        """The replies; unless it is the last call, they are cut where the time for an answer begins."""
        seconds = self.run.ledger.seconds_left()
        if last or seconds is None:
            return [reply for (reply,) in await self.model.generate(requests)]
        if seconds <= self.kept_back_s:
            raise self.run.ledger.refuse("seconds")
        enough = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(seconds - self.kept_back_s, enough.set)
        try:
            return [reply for (reply,) in await self.model.generate(requests, enough=enough)]
        finally:
            timer.cancel()

    def _request(self, asked: Asked) -> Request:
        sampling = Sampling(
            temperature=self._temperature if asked.creative else 0.0,
            max_tokens=asked.tokens,
            stop=asked.stop,
            logprobs=False,
        )
        return Request(prompt=self._prompt(asked), sampling=sampling, samples=(self._index,))

    def _prompt(self, asked: Asked) -> Prompt:
        written = asked.trajectory.written
        behind = "\n\n".join([*([written] if written else []), *asked.parts])
        begin = asked.begin if self.model.capabilities.prefix else ""
        return ask(asked.trajectory.question, behind, system=self.system, prefix=begin)
