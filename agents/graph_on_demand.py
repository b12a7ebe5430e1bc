"""`GraphOnDemand`: the pipeline as a graph, made when a run first needs it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..core.store import RunStore

if TYPE_CHECKING:
    from .graph import Graph


class GraphOnDemand:
    """Gives the graph, always the same one. To be called in a thread: the first call imports LangGraph.

    Args:
        store: Where its checkpoints are kept; None keeps them nowhere.
    """

    def __init__(self, store: RunStore | None) -> None:
        self._store = store
        self._graph: Graph | None = None
        self._making = threading.Lock()

    def __call__(self) -> Graph:
        """The graph."""
        with self._making:
            if self._graph is None:
                from .checkpoints import Checkpoints
                from .graph import build_graph

                self._graph = build_graph(None if self._store is None else Checkpoints(self._store))
            return self._graph
