"""What every strategy owes its users, as checks for its author: budgets, seeds, cancellation, resuming, replays."""

from .checks import Finding, NotConforming, assert_conforms, check_strategy
from .plain_model import PlainModel

__all__ = ["Finding", "NotConforming", "PlainModel", "assert_conforms", "check_strategy"]
