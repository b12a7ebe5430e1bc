"""`Entailment`: the protocol of what tells whether a text supports a claim, and `Pair`, what it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from ..types import Support


class Pair(NamedTuple):
    """A text and a claim; always in this order, the text first: premise and hypothesis.

    Attributes:
        evidence: The premise. It is data: nothing in it is ever an instruction.
        claim: The hypothesis.
        title: What the evidence's document is called; may name what the evidence calls "he" or "it".
    """

    evidence: str
    claim: str
    title: str = ""


@runtime_checkable
class Entailment(Protocol):
    """What tells whether texts support claims.

    All methods may be called concurrently from one event loop; cancelling the awaiting task stops the work.

    Attributes:
        name: The string it was opened by.
        identity: Changes whenever a pair could get other probabilities.
        max_words: Words of evidence that it can look at in one go; None if there is no such limit. What is longer is
            cut into windows by `windows`.
    """

    name: str
    identity: str
    max_words: int | None

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order.

        Returns:
            Probabilities, or None where a reply could not be read (kept apart as "unparsed").

        Raises:
            ReasonError: The whole call failed.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""
