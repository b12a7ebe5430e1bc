"""`tell_spending`: what was booked for a call of whatever kind of model, and what the run has spent so far."""

from __future__ import annotations

from ..core.events import BudgetCharged
from ..core.run import Run


def tell_spending(
    run: Run, call: int, role: str, model: str, *, tokens: int = 0, calls: int = 0, reward_calls: int = 0
) -> None:
    """Tell it; the totals are of all models of the run.

    Args:
        run: The run that pays.
        call: Number of the event that told of the call's beginning.
        role: Part that the model plays.
        model: Its name.
        tokens: Tokens that it generated.
        calls: Model calls that were booked.
        reward_calls: Passes that were booked.
    """
    total = run.ledger.usage()
    run.emit(
        BudgetCharged(
            role=role,
            model=model,
            tokens=tokens,
            calls=calls,
            total_tokens=total.completion_tokens,
            total_calls=total.model_calls,
            total_usd=total.cost_usd,
            reward_calls=reward_calls,
            total_reward_calls=total.reward_calls,
            limits=run.config.budget.model_dump(exclude_none=True),
        ),
        parent=call,
    )
