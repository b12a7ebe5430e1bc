"""Workers without a shared cache: each of them writes one step at a time and sees the finished steps of all.

What is lost against `together`: the sight of unfinished steps, and with it nearly all that makes workers react to one
another while they write; redundancy checks are not asked. What is kept: they are told the same, share one history, and
write at the same time. The history is a common prefix, so an engine with a prefix cache computes it once.
"""

from __future__ import annotations

from collections.abc import Callable

from ...core.errors import BadReply, ContextTooLong, LimitExceeded
from ...core.messages import Completion, Prompt, Request, Sampling
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from ..answer_time import AnswerTime
from ..prompts import ask
from .step_end import ends_step
from .team import Ending, Team
from .wording import PAST, next_step, told_to_all

Asking = Callable[[int], Prompt]
"""What a worker is asked with, for the rest of its step."""


class InRounds:
    """Leads workers in rounds, in each of which every one of them writes one step or the rest of it.

    A round ends with its slowest worker. Steps join the history in the order of the workers, so that a run repeats
    itself.

    Args:
        model: Who writes.
        team: The workers' texts.
        asking: What each is asked with.
        sampling: How they sample; its `max_tokens` bounds a step.
        most_passes: Tokens, one behind the other, after which they stop: of each round those of its longest step.
        separator: What stands between steps; empty where a reply is a step.
        kept: Tokens of the budget that are left for the answer.
        run: The run.
    """

    def __init__(
        self,
        model: MeteredModel,
        team: Team,
        asking: Asking,
        sampling: Sampling,
        *,
        most_passes: int,
        separator: str,
        kept: int,
        run: Run,
    ) -> None:
        self._model, self._team, self._asking, self._sampling = model, team, asking, sampling
        self._most_passes, self._separator, self._kept, self._run = most_passes, separator, kept, run
        self.passes = 0
        self.rounds = 0

    async def work(self) -> Ending:
        """Run rounds until there is an answer or a limit is reached."""
        team, clock = self._team, AnswerTime(self._run)
        while self.passes < self._most_passes:
            left = self._run.ledger.left("tokens") - self._kept
            if left < team.workers:
                self._run.note_limit(self._run.ledger.refuse("tokens"))
                return "budget"
            most = min(self._sampling.max_tokens, self._most_passes - self.passes)
            if left != float("inf"):
                most = min(most, int(left) // team.workers)
            sampling = self._sampling.model_copy(
                update={"max_tokens": most, "stop": (self._separator,) if self._separator else ()}
            )
            try:
                asked = [Request(prompt=self._asking(worker), sampling=sampling) for worker in range(team.workers)]
                with clock.cutting() as enough:  # cut where the time for an answer begins
                    replies = await self._model.generate(asked, enough=enough)
            except LimitExceeded as e:
                self._run.note_limit(e)
                return "budget"
            except ContextTooLong:
                return "context"
            self.rounds += 1
            self.passes += max(reply.usage.completion_tokens for (reply,) in replies)
            ended = [await self._take(worker, reply) for worker, (reply,) in enumerate(replies)]
            if team.answered is not None:
                return "answer"
            if any(reply.finish_reason == "cancelled" for (reply,) in replies):  # likewise when it is replayed
                self._run.note_limit(self._run.ledger.refuse("seconds"))
                return "budget"
            if any(reply.finish_reason == "budget" for (reply,) in replies):
                return "budget"
            if any(ended):
                return "end of text"
        return "passes"

    async def _take(self, worker: int, reply: Completion) -> bool:
        """Take what a worker has written; whether it has ended its whole text."""
        if reply.failure is not None:
            raise BadReply(f"the model gave no sample: {reply.failure.message}")
        team = self._team
        team.writing[worker] += reply.text
        if not self._separator:
            if reply.text.strip():
                await team.finish(worker, self.passes)
            return not reply.text.strip()
        if reply.finish_reason != "stop":
            return False  # cut: it goes on with the same step
        if not reply.stopped_by:
            await team.finish(worker, self.passes, goes_on=False)
            return True
        team.writing[worker] += self._separator
        if ends_step(team.writing[worker], self._separator, self._separator):
            await team.finish(worker, self.passes)
        return False


def by_prefix(prompt: Prompt, team: Team) -> Asking:
    """Workers that go on with the beginning of a reply: the finished steps, then their own."""

    def asked(worker: int) -> Prompt:
        steps = "".join(step.text.strip() + "\n\n" for step in team.finished)
        return prompt.model_copy(update={"prefix": PAST + steps + team.writing[worker]})

    return asked


def by_message(question: Question, team: Team) -> Asking:
    """Workers that are asked for one step each, with the finished steps in the question."""
    system = told_to_all(team.names)

    def asked(worker: int) -> Prompt:
        steps = [step.text.strip() for step in team.finished]
        return ask(question, next_step(team.names[worker], team.number(worker), steps), system=system)

    return asked
