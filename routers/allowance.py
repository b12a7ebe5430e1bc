"""What steps may spend, so that the answer can still be asked for behind them."""

from __future__ import annotations

from ..core.run import Run
from ..reasoning.answer_time import AnswerTime

ANSWER_CALLS = 1


class Allowance:
    """A run's budget, less what is kept for the answer.

    Args:
        run: The run.
        answer_tokens: Most tokens of the answer; of a small budget a quarter is kept instead.

    Attributes:
        time: The same of its time.
        kept_tokens: Tokens kept for the answer.
    """

    def __init__(self, run: Run, answer_tokens: int) -> None:
        limit = run.ledger.budget.tokens
        self._run = run
        self.time = AnswerTime(run)
        self.kept_tokens = 0 if limit is None else min(answer_tokens, limit // 4)

    def tokens(self, wanted: int, *, calls: int = 1, beside: int = 0) -> int:
        """The most tokens that a request may have.

        Args:
            wanted: As many would be wanted.
            calls: Requests that go together.
            beside: Tokens of the others of them.

        Raises:
            LimitExceeded: There are no calls or tokens left for it.
        """
        ledger = self._run.ledger
        if ledger.left("calls") < calls + ANSWER_CALLS:
            raise ledger.refuse("calls")
        left = ledger.left("tokens") - self.kept_tokens - beside
        if left < 1:
            raise ledger.refuse("tokens")
        return wanted if left >= wanted else int(left)

    def covers_together(self, most: int, others: int) -> bool:
        """Whether a request of `most` tokens and `others` samples of one token may be sent as one call.

        A call's samples share the budget equally, so that a nearly spent one would cut the long sample short; and where
        dollars are limited, nothing is generated that may be thrown away.
        """
        ledger = self._run.ledger
        enough_calls = ledger.left("calls") >= 2 + ANSWER_CALLS
        return enough_calls and ledger.budget.usd is None and ledger.left("tokens") >= most * (1 + others)
