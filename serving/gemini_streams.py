"""Whether a stream of Gemini's has ended in order, which LiteLLM does not tell.

A response is complete if its last chunk has a `finishReason`; a proxy or an aborted generation ends it without one
(strands-agents/sdk-typescript#717). LiteLLM gives every chunk without a reason the reason "stop".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

_FORMAT: Final = "vertex_ai_beta"
"""LiteLLM's name of the format of Gemini's streams, of both its services."""


def finish_watcher(stream: Any) -> Callable[[], bool] | None:
    """A function that says whether the chunks read so far have a finish reason; None for a stream of another format.

    Args:
        stream: LiteLLM's stream, of which no chunk was read.
    """
    connect = getattr(stream, "make_call", None)
    if connect is None or stream.custom_llm_provider != _FORMAT:
        return None
    is_finished = False

    async def watched(**options: Any) -> Any:
        chunks = await connect(**options)
        parse = chunks.chunk_parser

        def noted(chunk: Mapping[str, Any]) -> Any:
            nonlocal is_finished
            is_finished = is_finished or _has_finish(chunk)
            return parse(chunk)

        chunks.chunk_parser = noted
        return chunks

    stream.make_call = watched
    return lambda: is_finished


def _has_finish(chunk: Mapping[str, Any]) -> bool:
    """Whether a chunk ends the response, or says that the prompt was blocked."""
    is_blocked = bool((chunk.get("promptFeedback") or {}).get("blockReason"))
    return is_blocked or any(candidate.get("finishReason") for candidate in chunk.get("candidates") or ())
