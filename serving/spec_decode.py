"""`SpecDecodeCounters`: what speculative decoding did, counted alike by the embedded engine and by vLLM."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecDecodeCounters:
    """What speculative decoding did since the engine was started, over all its requests.

    Without drafts, a token is a pass.

    Attributes:
        passes: Steps of samples, that of the prompt excluded: a step of three samples is three.
        drafted: Draft tokens.
        accepted: Draft tokens that were accepted; vLLM counts them past the end of a text too.
        tokens: Tokens sampled; each sample's first, which comes with its prompt, is not among them.
    """

    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens for each pass; 1 without drafts."""
        return self.tokens / self.passes if self.passes else 1.0

    def __add__(self, other: SpecDecodeCounters) -> SpecDecodeCounters:
        return SpecDecodeCounters(
            passes=self.passes + other.passes,
            drafted=self.drafted + other.drafted,
            accepted=self.accepted + other.accepted,
            tokens=self.tokens + other.tokens,
        )

    def __sub__(self, before: SpecDecodeCounters) -> SpecDecodeCounters:
        """What happened since `before`."""
        return SpecDecodeCounters(
            passes=self.passes - before.passes,
            drafted=self.drafted - before.drafted,
            accepted=self.accepted - before.accepted,
            tokens=self.tokens - before.tokens,
        )
