"""A sample's text on the trace page, every token shaded by how sure the model was of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ..core.events import TextDelta
from ..core.messages import Completion

SHADES = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Probabilities below which a token takes the next darker shade, 1 to 5."""


class Piece(NamedTuple):
    """A stretch of text and the log-probabilities (in nats) of the tokens that made it."""

    text: str
    logprobs: tuple[float, ...]


def sample_html(completion: Completion, deltas: Sequence[TextDelta]) -> str:
    """The text of a sample.

    Args:
        completion: The sample.
        deltas: Its text as it was generated, which tells which tokens made which text; may be empty (a stored trace
            has none), and then the shades stand below the text.
    """
    parts: list[str] = []
    if completion.failure is not None:
        parts.append(f'<div class="text">{_text(completion.failure.code)}: {_text(completion.failure.message)}</div>')
    if completion.reasoning:
        parts.append(f'<div class="soft">thoughts</div><div class="text soft">{_text(completion.reasoning)}</div>')
    pieces = align(completion, deltas)
    if pieces is not None:
        parts.append(f'<div class="text">{"".join(_piece_html(p) for p in pieces)}</div>')
    elif completion.ok:
        parts.append(f'<div class="text">{_text(completion.text)}</div>')
        if completion.logprobs:
            cells = (
                f'<span class="{_shade(lp)}" title="token {i}: {_told((lp,))}"></span>'
                for i, lp in enumerate(completion.logprobs, 1)
            )
            parts.append(f'<div class="strip">{"".join(cells)}</div>')
    return "".join(parts)


def align(completion: Completion, deltas: Sequence[TextDelta]) -> list[Piece] | None:
    """The text cut where its tokens end, each piece with its tokens' log-probabilities; None if that is not known."""
    if completion.logprobs is None:
        return None
    pieces: list[Piece] = []
    used = 0
    for delta in deltas:
        logprobs = completion.logprobs[used : used + delta.tokens]
        used += delta.tokens
        pieces.append(Piece(delta.text, tuple(logprobs)))
    if "".join(p.text for p in pieces) != completion.text or used > len(completion.logprobs):
        return None
    return pieces if pieces else None


def legend_html() -> str:
    """What the shades mean."""
    shades = "".join(f'<span class="p{i}">below {p:g}</span>' for i, p in enumerate(SHADES, 1))
    return f'<p class="legend">Shade of a token: the model\'s probability for it is {shades}</p>'


def _piece_html(piece: Piece) -> str:
    text = _text(piece.text)
    if not piece.logprobs or not piece.text:
        return text
    shade = _shade(min(piece.logprobs))
    attribute = f' class="{shade}"' if shade else ""
    return f'<span{attribute} title="{_told(piece.logprobs)}">{text}</span>'


def _shade(logprob: float) -> str:
    p = math.exp(min(logprob, 0.0))
    darkness = sum(p < bound for bound in SHADES)
    return f"p{darkness}" if darkness else ""


def _told(logprobs: Sequence[float]) -> str:
    return ", ".join(f"p = {math.exp(min(lp, 0.0)):.3g} (log {lp:.2f})" for lp in logprobs)


def _text(text: str) -> str:
    return escape(text)
