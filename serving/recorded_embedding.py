"""`RecordedEmbedding`: an embedding model that is not there. What was compared with it is in the run store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import StoreError
from .embeddings import Charged, Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RecordedEmbedding:
    """Stands for an embedding model when a stored run is shown again.

    Args:
        name: The string that the recorded run's model was opened by.
        identity: Its identity.
        dimension: Numbers of its vectors.
        max_tokens: Tokens of a text that it looked at.
    """

    price_known = True

    def __init__(self, name: str, identity: str, dimension: int, max_tokens: int | None) -> None:
        self.name, self.identity, self.dimension, self.max_tokens = name, identity, dimension, max_tokens

    @classmethod
    def described(cls, known: Mapping[str, Any]) -> RecordedEmbedding:
        """One of what a run's record says.

        Raises:
            KeyError: Something is missing there.
        """
        most = known["max_tokens"]
        return cls(
            str(known["name"]),
            str(known["identity"]),
            int(known["dimension"]),
            None if most is None else int(most),
        )

    async def embed(
        self, texts: Sequence[str], *, kind: Kind = "text", unit: bool = True, charged: Charged | None = None
    ) -> NDArray[np.float32]:
        """Fail.

        Raises:
            StoreError: Always.
        """
        raise StoreError(
            f"the store holds no comparison by {self.name} that this run asks for",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """None: nothing is here to count with."""
        return None

    def most_usd(self, texts: Sequence[str]) -> float:
        """Nothing: it is never asked."""
        return 0.0

    async def aclose(self) -> None:
        """Do nothing."""
