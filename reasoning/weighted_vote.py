"""The weighted vote: many sampled chains, each vote weighs what the chain scores (see `best_of_n`)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .best_of_n import BestOfN


class WeightedVote(BestOfN):
    """`best-of-n` with `select="weighted"`: the answer with the largest sum of scores wins."""

    name: ClassVar[str] = "weighted-vote"
    summary: ClassVar[str] = "many sampled chains, votes weighed by their scores"
    paper: ClassVar[str] = "Li et al. 2023, arXiv:2206.02336"

    class Config(BestOfN.Config):
        """Parameters of `weighted-vote`."""

        select: Annotated[Literal["weighted"], Field(description="always weighted")] = "weighted"
