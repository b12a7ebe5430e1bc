"""`RecordedEntailment`: an entailment that is not there. The run store knows its verdicts by its identity."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.budget import LimitKind
from ...core.errors import LimitExceeded, StoreError
from ..support import Support
from .protocol import Pair


class RecordedEntailment:
    """Stands for an entailment when a stored run is shown again; the store answers before anything comes here.

    What could not be read is not stored, so a finished run may ask for verdicts that the store does not have: those are
    told as unread again.

    Args:
        name: The string of the recorded run.
        identity: The identity of what judged.
        max_words: The limit of what judged: it decides how long evidence was cut.
        finished: Whether the run came to its end: what it has no verdict for could not be read.
        spent: The limit that ended the run, if one did: what it has no verdict for, it did not get to.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        max_words: int | None,
        *,
        finished: bool = True,
        spent: LimitKind | None = None,
    ) -> None:
        self.name, self.identity, self.max_words = name, identity, max_words
        self._finished, self._spent = finished, spent

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """Tell that these pairs have no verdict.

        Raises:
            LimitExceeded: A limit ended the recorded run.
            StoreError: The recorded run did not come to its end.
        """
        if self._spent is not None:
            raise LimitExceeded(self._spent, 0, 0)
        if not self._finished:
            raise StoreError(
                f"the store holds no verdict that this run asks of {self.name}",
                hint="the run was not finished, or another version of reason made it: resume it instead",
            )
        return [None] * len(pairs)

    async def aclose(self) -> None:
        """Do nothing."""
