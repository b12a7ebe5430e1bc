"""`Panel`: several jurors asked at once, none of whom can hold up the others.

Requests to one and the same model go as one batch, those to different models side by side. A stage ends when everybody
has replied, or at its deadline; a round of it when as many have replied as make a quorum. Who is not done by then is
cancelled, and charged for what it used. Who failed is noted in the run store beside the replies, so that a replay, with
neither a clock nor a model, takes the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from pydantic import JsonValue

from ...core.answer import RunUsage
from ...core.errors import BackendTimeout, BadReply
from ...core.events import StageFinished, StageStarted
from ...core.jury_events import JuryStageEnded
from ...core.run import Run
from ...reasoning.decisions import keep, recall
from .opinions import Stage, StageCost
from .panel_round import LATE, Ask, Reply, Round

Needed = Literal["somebody", "nobody"]


class Panel:
    """One stage of a jury, from its beginning to its end.

    Args:
        run: The run that pays.
        stage: Which.
        deadline_s: Seconds after which nobody is waited for any more; None waits for all.
        quorum: Replies of a round that are enough; None is all.

    Attributes:
        limited: Whether a budget kept somebody from being asked, or cut a reply short.
        cost: What the stage cost, once it has ended.
    """

    def __init__(self, run: Run, stage: Stage, *, deadline_s: float | None = None, quorum: int | None = None) -> None:
        self.limited = False
        self.cost = StageCost(stage=stage)
        self._run, self._stage = run, stage
        self._deadline_s, self._quorum = deadline_s, quorum
        self._late = False
        self._enough = asyncio.Event()
        self._asked: set[int] = set()
        self._replied: set[int] = set()
        self._before, self._began_s = run.ledger.usage(), run.ledger.elapsed_s

    @contextmanager
    def sitting(self) -> Iterator[None]:
        """The stage: what happens in it belongs under its event, and its deadline runs, but not in a replay."""
        run, name = self._run, f"jury: {self._stage}"
        number = run.emit(StageStarted(stage=name))
        timer = None
        if self._deadline_s is not None and run.recording:  # in a replay the store tells what was late
            timer = asyncio.get_running_loop().call_later(self._deadline_s, self._end)
        try:
            with run.under(number):
                yield
                self.cost = self._costs()
                cost = self.cost.model_dump(mode="json")
                asked, replied = len(self._asked), len(self._replied)
                run.emit(JuryStageEnded(stage=self._stage, asked=asked, replied=replied, report=cost))
        finally:
            if timer is not None:
                timer.cancel()
            run.emit(StageFinished(stage=name, seconds=self._elapsed_s()), parent=number)

    @property
    def over(self) -> bool:
        """Whether its deadline is, so that nobody is asked any more."""
        return self._late

    async def ask(self, asks: Sequence[Ask], *, needs: Needed = "nobody") -> list[Reply]:
        """Ask, and wait as long as the stage allows.

        A token budget that does not cover all requests is shared out equally, whatever model is asked first.

        Args:
            asks: Whom and what.
            needs: Whether somebody must reply.

        Returns:
            A reply each, in order, also of those that failed or were late.

        Raises:
            BackendError: Somebody must reply and nobody did, and no budget is the reason.
        """
        if not asks:
            return []
        run = self._run
        self._asked |= {ask.who for ask in asks}
        share = run.ledger.left("tokens") / len(asks)
        fitted = [ask.with_most_tokens(share) for ask in asks]
        bounded = frozenset(a.who for a, b in zip(asks, fitted, strict=True) if a is not b)
        what: dict[str, JsonValue] = {"jury": self._stage, "asks": [ask.named for ask in fitted]}
        noted = await recall(run, asks[0].model, what)
        self._enough = asyncio.Event()
        if self._late:
            self._enough.set()
        heard: set[int] = set()

        def hear(who: int) -> None:
            heard.add(who)
            if self._quorum is not None and len(heard) >= self._quorum:
                self._enough.set()

        round_ = Round(run, self._enough, bounded, hear, self._elapsed_s, noted)
        replies = await round_.go(fitted)
        if bounded and round_.limited and run.ledger.exhausted is None:
            run.note_limit(run.ledger.refuse("tokens"))
        self._replied |= heard
        self.limited = self.limited or round_.limited
        if needs == "somebody" and not round_.limited and not any(reply.ok for reply in replies):
            failure = replies[0].failure
            late = all(reply.failure == LATE for reply in replies)
            raise round_.error or (BackendTimeout if late else BadReply)(f"no juror gave an opinion: {failure}")
        if noted is None:
            await keep(run, asks[0].model, what, {**round_.to_note(), "late": self._late})
        elif noted.get("late") is True:
            self._end()
        return replies

    def _end(self) -> None:
        self._late = True
        self._enough.set()

    def _elapsed_s(self) -> float:
        return max(0.0, self._run.ledger.elapsed_s - self._began_s)

    def _costs(self) -> StageCost:
        before, now = self._before, self._run.ledger.usage()
        return StageCost(
            stage=self._stage,
            calls=now.model_calls - before.model_calls,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            completion_tokens=now.completion_tokens - before.completion_tokens,
            latency_ms=1000 * self._elapsed_s(),
            cost_usd=_spent(before, now),
        )


def _spent(before: RunUsage, now: RunUsage) -> float | None:
    if before.cost_usd is None or now.cost_usd is None:
        return None
    return max(0.0, now.cost_usd - before.cost_usd)
