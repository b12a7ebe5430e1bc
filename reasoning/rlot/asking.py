"""`Asker`: puts requests behind a trajectory and sends those that do not depend on each other as one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from ...core.errors import BadReply
from ...core.messages import Completion, Prompt, Request, Sampling
from ...core.run import Run
from ...serving.metered import MeteredModel
from ..answer_time import AnswerTime
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
        time: What is kept of a time limit for the final answer.
    """

    def __init__(self, model: MeteredModel, run: Run, *, system: str, temperature: float, sample_index: int) -> None:
        self.model, self.run = model, run
        self.calls, self.tokens = 0, 0
        self.cut = False
        self.time = AnswerTime(run)
        self.system = system
        self._temperature, self._index = temperature, sample_index

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
        last = any(one.last for one in asked)
        with nullcontext() if last else self.time.cutting() as enough:  # cut where the time for an answer begins
            replies = [reply for (reply,) in await self.model.generate(requests, enough=enough)]
        self.time.took(ledger.elapsed_s - began)
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
