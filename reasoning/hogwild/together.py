"""Workers on one cache, pass by pass: the method itself.

Source: Rodionov, Garipov, Shutova, Yakushev, Schultheis, Egiazarian, Sinitsin, Kuznedelev, Alistarh 2025, "Hogwild!
Inference: Parallel LLM Generation via Concurrent Attention", arXiv:2504.06261, sections 3 and 4, and their program.
"""

from __future__ import annotations

import random
from typing import Literal

from ...core.errors import ContextTooLong, LimitExceeded
from ...core.run import Run
from ...serving.metered_workers import MeteredWorkers
from ...serving.workers import Drawn, Fed, Layout, Pass
from ..answer_time import AnswerTime
from .step_end import ends_step
from .team import Ending, Team
from .wording import CHECK


class Together:
    """Leads workers from their openers to an answer or a limit.

    Workers are looked at in the order of their numbers behind every pass: where two of them finish a step in the same
    one, that is the order of the steps.

    Args:
        workers: They.
        team: Their texts.
        layout: What they see of one another; in a contiguous one nothing is moved.
        most_passes: Passes after which they stop.
        separator: What stands between steps.
        check_every: Tokens, of all workers and with all that they are given to read, after which one is asked whether
            it does what another does; 0 never asks.
        asked: Who is: "next" is the worker that begins a step next, "random" one drawn by lot, as it begins its next.
        kept: Tokens of the budget that are left for the answer.
        run: The run.
    """

    def __init__(
        self,
        workers: MeteredWorkers,
        team: Team,
        *,
        layout: Layout,
        most_passes: int,
        separator: str,
        check_every: int,
        asked: Literal["next", "random"],
        kept: int,
        run: Run,
    ) -> None:
        self._workers, self._team, self._layout = workers, team, layout
        self._most_passes, self._separator, self._check_every, self._kept = most_passes, separator, check_every, kept
        self._run = run
        self._lots = random.Random(run.derive_seed("hogwild", "checks")) if asked == "random" else None  # noqa: S311
        self._since_check = 0
        self._to_be_asked: int | None = None
        self._verdicts: dict[int, str] = {}
        self.passes = 0
        self.checks = 0

    async def work(self) -> Ending:
        """Run passes until there is an answer or a limit is reached."""
        team, clock = self._team, AnswerTime(self._run)
        feeds: list[Fed | None] = [Fed(text=text) for text in team.writing]
        moves: list[int] = []
        while self.passes < self._most_passes:
            left = self._run.ledger.seconds_left()
            if self._run.ledger.left("tokens") < team.workers + self._kept:
                self._run.note_limit(self._run.ledger.refuse("tokens"))
                return "budget"
            if left is not None and left <= clock.kept_s:
                self._run.note_limit(self._run.ledger.refuse("seconds"))
                return "budget"
            try:
                drawn = await self._workers.advance(Pass(feeds=tuple(feeds), moves=tuple(moves)))
            except LimitExceeded as e:
                self._run.note_limit(e)
                return "budget"
            except ContextTooLong:
                return "context"
            self.passes += 1
            moves = []
            for worker, token in enumerate(drawn):
                if token is None:
                    continue
                finished, feeds[worker] = await self._take(worker, token)
                if finished and self._layout != "contiguous":
                    moves.append(worker)
            if team.answered is not None:
                return "answer"
            if any(token is not None and token.ends for token in drawn):
                return "end of text"
        return "passes"

    async def _take(self, worker: int, token: Drawn) -> tuple[bool, Fed | None]:
        """Take what a worker has drawn: whether a step of it is finished, and what it reads next."""
        team = self._team
        self._since_check += token.read
        self._hear_verdict(worker, token.text)
        team.writing[worker] += token.text
        if token.ends:
            await team.finish(worker, self.passes, goes_on=False)
            return True, None
        if not ends_step(team.writing[worker], token.text, self._separator):
            return False, Fed(token=token.token)
        # What closes a step is read with the next one: so each step that is moved begins with its own separator.
        given = await team.finish(worker, self.passes)
        if self._is_asked(worker):
            given += CHECK
            team.writing[worker] = given
            team.note("asked", {"worker": worker, "pass": self.passes, "text": CHECK})
            self._verdicts[worker] = ""
            self.checks += 1
        return True, Fed(token=token.token, text=given)

    def _is_asked(self, worker: int) -> bool:
        """Whether a worker that begins a step is asked what it is about to do."""
        if not self._check_every or self._team.workers == 1:
            return False
        if self._since_check > self._check_every and self._to_be_asked is None:
            self._to_be_asked = worker if self._lots is None else self._lots.randrange(self._team.workers)
        if self._to_be_asked != worker:
            return False
        self._to_be_asked, self._since_check = None, 0
        return True

    def _hear_verdict(self, worker: int, piece: str) -> None:
        """Note the first word behind a question to oneself."""
        if worker not in self._verdicts:
            return
        self._verdicts[worker] += piece
        word = self._verdicts[worker].split()
        if word and (len(word) > 1 or not word[0].isalpha() or self._verdicts[worker][-1].isspace()):
            self._team.note("check", {"worker": worker, "pass": self.passes, "verdict": word[0].strip(".,!*:")})
            del self._verdicts[worker]
