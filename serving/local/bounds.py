"""`Bounds`: what fits an engine, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.errors import ContextTooLong, UserError


@dataclass(frozen=True)
class Bounds:
    """What a model and its cache hold.

    Attributes:
        model: Name of the model.
        context: Tokens the model holds.
        columns: Tokens the cache holds.
        vocab: Tokens of the vocabulary.
    """

    model: str
    context: int
    columns: int
    vocab: int

    @property
    def tokens(self) -> int:
        """Most tokens of a prompt and its completion."""
        return min(self.context, self.columns)

    def check_length(self, tokens: int, what: str) -> None:
        """Raises `ContextTooLong` if so many tokens do not fit.

        Args:
            tokens: Tokens needed.
            what: What needs them, for the message.
        """
        if tokens <= self.tokens:
            return
        model_is_less = self.context <= self.columns
        raise ContextTooLong(
            f"{what} need {tokens} tokens; {self.model if model_is_less else 'the cache'} holds {self.tokens}",
            tokens=tokens,
            limit=self.tokens,
            hint="shorten the prompt or lower max_tokens" if model_is_less else "give the engine a larger kv_bytes",
        )

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises `UserError` if a token is not in the vocabulary."""
        bad = next((i for i in ids if not 0 <= i < self.vocab), None)
        if bad is not None:
            raise UserError(f"token {bad} is not in the vocabulary of {self.model} ({self.vocab} tokens)")
