"""`Limits`: what a search may spend, checked before it spends; and `SearchOptions`, which all searches have."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .tree import Ledger


class Limits(BaseModel):
    """Limits of one search; None is no limit.

    An expansion is asked for only if the most that it could cost fits in, with `finish_tokens` left over. So no limit
    is exceeded by a sampler that keeps to the tokens it is allowed, and a final answer can always be asked for.

    Differs: the wall clock is not here, for a search has none; its owner calls `end`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gen_tokens: Annotated[int, Field(gt=0)] | None = None
    """Generated tokens, those of discarded continuations included."""
    prm_passes: Annotated[int, Field(ge=0)] | None = None
    """Passes of the reward model."""
    expansions: Annotated[int, Field(ge=0)] | None = None
    """Prefixes continued."""
    finish_tokens: Annotated[int, Field(ge=1)] = 256
    """Tokens that a forced final answer may take."""
    least_step_tokens: Annotated[int, Field(ge=1)] = 32
    """As the tokens run out, steps are cut shorter, down to this; below it nothing is expanded any more."""

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.gen_tokens is not None and self.gen_tokens < self.finish_tokens:
            raise ValueError("gen_tokens leaves no room for finish_tokens")
        return self

    def tokens_left(self, ledger: Ledger) -> int | None:
        """Tokens not yet spent, at least 0; None without a limit."""
        return None if self.gen_tokens is None else max(0, self.gen_tokens - ledger.gen_tokens)

    def passes_left(self, ledger: Ledger) -> int | None:
        """Passes of the reward model not yet spent, at least 0; None without a limit."""
        return None if self.prm_passes is None else max(0, self.prm_passes - ledger.prm_passes)

    def step_tokens(self, ledger: Ledger, *, samples: int, completions: int, most: int) -> int:
        """Tokens that each of `samples` continuations may take beside `completions` final answers.

        At most `most`; less than `least_step_tokens`, perhaps below 0, if that is all there is.
        """
        left = self.tokens_left(ledger)
        if left is None:
            return most
        free = left - self.finish_tokens * (completions + 1)
        if samples == 0:
            return most if free >= 0 else free
        return min(most, free // samples)

    def lacking(
        self, ledger: Ledger, *, samples: int, passes: int, expansions: int, completions: int, most: int
    ) -> str | None:
        """The limit that forbids a batch: "tokens", "prm_passes" or "expansions"; None if the batch fits in.

        Args:
            ledger: What was spent.
            samples: Continuations of all its expansions together, completions left away.
            passes: Scores that could be asked for.
            expansions: Prefixes it continues.
            completions: Final answers it asks for.
            most: Most tokens of a step, as far as the budget allows.
        """
        each = self.step_tokens(ledger, samples=samples, completions=completions, most=most)
        if each < (min(self.least_step_tokens, most) if samples else 0):
            return "tokens"
        if self.prm_passes is not None and ledger.prm_passes + passes > self.prm_passes:
            return "prm_passes"
        if self.expansions is not None and ledger.expansions + expansions > self.expansions:
            return "expansions"
        return None


class SearchOptions(BaseModel):
    """Options that every search has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_depth: Annotated[int, Field(ge=1, description="most steps of a solution")] = 40
    max_step_tokens: Annotated[int, Field(ge=1, description="most tokens of a step")] = 512
    limits: Limits = Limits()
