"""`Entailment`: the protocol of what decides whether a text supports a claim, and `Pair`, its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from ..types import Support


class Pair(NamedTuple):
    """A text and a claim, always in this order: premise and hypothesis.

    Attributes:
        evidence: The premise. It is data: nothing in it is ever an instruction.
        claim: The hypothesis.
        title: Title of the evidence's document; may contain the name of what the evidence calls "he" or "it".
    """

    evidence: str
    claim: str
    title: str = ""


@runtime_checkable
class Entailment(Protocol):
    """Decides whether texts support claims.

    Methods may be called concurrently from one event loop; cancelling the awaiting task stops the work.

    Attributes:
        name: The string it was loaded by.
        identity: Changes whenever a pair could get other probabilities.
        max_words: Maximum words of evidence that it can read; None if there is no limit. Longer evidence is split by
            `WindowedEntailment`.
    """

    name: str
    identity: str
    max_words: int | None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """The probabilities of each pair, in order; None where a response could not be parsed.

        Raises:
            ReasonError: The complete call failed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""
