"""Anthropic's Messages API, answered by reasoning strategies; the runs are those of `sidecar/openai`."""

from __future__ import annotations

from .messages import messages as router

__all__ = ["router"]
