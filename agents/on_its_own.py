"""`on_its_own`: the pipeline is no part of a LangGraph graph in one of whose nodes a question was asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def on_its_own() -> Iterator[None]:
    """The pipeline within belongs to no other graph, whoever has asked.

    LangGraph takes a graph that is called inside a node for a part of the node's graph: where a question is asked in
    somebody else's graph, their checkpointer would be handed our states, their listeners would hear of our stages, and
    their thread, gone on with, would have the pipeline go on with what an earlier run had left there. A run is durable
    by itself; all that their graph needs to know of it is its answer. Where nobody has imported LangGraph there is no
    other graph, and it is not imported to find that out.
    """
    if "langchain_core.runnables.config" not in sys.modules:
        yield
        return
    from langchain_core.runnables.config import var_child_runnable_config

    token = var_child_runnable_config.set(None)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
