"""`Knowledge`: what a run may know beside its models: external brains, a lasting memory, and what compares texts."""

from __future__ import annotations

from dataclasses import dataclass

from ..serving.embeddings import EmbeddingModel
from .brains.brain import Brain
from .memory.named import NamedMemory


@dataclass(frozen=True)
class Knowledge:
    """What a run may know.

    Attributes:
        brains: What is asked for snippets; a memory that is to be recalled is among them.
        memory: Where what the answer rests on is kept for other runs; None keeps nothing.
        embedding: Compares texts, metered; None where no embedding model can be had.
    """

    brains: tuple[Brain, ...] = ()
    memory: NamedMemory | None = None
    embedding: EmbeddingModel | None = None
