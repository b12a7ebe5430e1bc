"""A verification as one page of HTML: the text with its claims marked, and a panel of evidence for each.

Nothing is loaded from elsewhere and every text is escaped. Without its script the page is a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from ..agents.verify_text import TextVerification
from ..core.answer import CheckedClaim, Verdict
from ..core.version import __version__
from .claim_marks import MEANINGS, SIGNS, counted, pieces_of, word_of
from .trace_style import STYLE
from .verify_panels import panel_html
from .verify_script import VERIFY_SCRIPT, VERIFY_SCRIPT_SOURCE
from .verify_style import VERIFY_STYLE

_CHIPS: dict[Verdict, str] = {"supported": "good", "refuted": "bad", "disputed": "warn"}
_DIGEST = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{8,}\b")
_STEPS = (
    '<div class="steps" hidden><button type="button" value="before">previous</button>'
    '<button type="button" value="after">next</button><button type="button" value="all">all</button></div>'
)
_HINT = (
    '<p class="legend hint" hidden>Click a claim, or go to its number with Tab and press Enter. '
    "Arrows go from panel to panel, Escape goes back to the text.</p>"
)


def render_verification(found: TextVerification) -> str:
    """The page.

    Args:
        found: What was found of a text.

    Returns:
        A complete HTML document.
    """
    claims = found.verification.claims
    title = found.question or "A text, verified"
    reports = found.reports if len(found.reports) == len(claims) else (None,) * len(claims)
    panels = "".join(
        panel_html(number, claim, report) for number, (claim, report) in enumerate(zip(claims, reports, strict=True), 1)
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        _summary(found),
        *(f'<p class="soft">Note: {escape(what)}</p>' for what in found.degraded),
        "<h2>Text</h2>",
        f'<div class="given">{_marked(found.answer, claims)}</div>',
        _legend(claims),
        "<h2>Claims</h2>",
        _STEPS if len(claims) > 1 else "",
        f'<ol class="panels">{panels}</ol>' if claims else "<p>No claim was found that could be checked.</p>",
        "<h2>Cost</h2>",
        f"<p>{escape(_cost(found))}</p>",
    ]
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {VERIFY_SCRIPT_SOURCE}"
    short = title if len(title) <= 80 else title[:79] + "…"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(short)} · reason</title>\n<style>{STYLE}{VERIFY_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<footer>run {escape(found.run_id)} · reason {escape(__version__)}</footer>\n</main>\n"
        f"<script>{VERIFY_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _summary(found: TextVerification) -> str:
    verification = found.verification
    chips = [f'<span class="chip {_CHIPS.get(verification.verdict, "")}"><b>{word_of(verification.verdict)}</b></span>']
    if verification.confidence is not None:
        chips.append(_chip("confidence", f"{verification.confidence:.2f}"))
    chips += [_chip("verifier", name) for name in verification.verifiers]
    judges = dict.fromkeys(r.backend for r in found.reports if r.backend and r.backend != "program")
    chips += [_chip("judged by", _DIGEST.sub(r"\1…", name), whole=name) for name in judges]
    return (
        f'<div class="card"><div class="answer">{escape(counted(verification))}</div>'
        f'<div class="chips">{"".join(chips)}</div></div>'
    )


def _chip(label: str, value: str, whole: str = "") -> str:
    """A small label; `whole` is what is told of a shortened value where somebody points at it."""
    title = f' title="{escape(whole)}"' if whole and whole != value else ""
    return f'<span class="chip"{title}>{escape(label)} <b>{escape(value)}</b></span>'


def _marked(text: str, claims: Sequence[CheckedClaim]) -> str:
    """The text: each claim underlined in the manner of its verdict, and followed by its number, which is a link."""
    parts: list[str] = []
    for piece in pieces_of(text, claims):
        shown = escape(piece.text)
        if piece.claims:
            first = piece.claims[0]
            parts.append(f'<span class="claim {claims[first].verdict}" data-n="{first}">{shown}</span>')
        else:
            parts.append(shown)
        parts += [_number(n, claims[n]) for n in piece.ends]
    return "".join(parts)


def _number(n: int, claim: CheckedClaim) -> str:
    said = f"claim {n + 1}: {word_of(claim.verdict)}"
    return (
        f'<a class="number {claim.verdict}" href="#claim-{n + 1}" id="at-{n + 1}" data-n="{n}" '
        f'aria-label="{said}" title="{said}">{n + 1}{SIGNS[claim.verdict]}</a>'
    )


def _legend(claims: Sequence[CheckedClaim]) -> str:
    """What the marks of this page mean."""
    there: Iterable[Verdict] = (verdict for verdict in MEANINGS if any(c.verdict == verdict for c in claims))
    items = "".join(
        f'<li><span class="claim {verdict}">{word_of(verdict)}</span> {SIGNS[verdict]} {MEANINGS[verdict]}</li>'
        for verdict in there
    )
    return f'<div class="legend"><ul>{items}</ul></div>{_HINT}' if items else ""


def _cost(found: TextVerification) -> str:
    usage = found.usage
    parts = [f"{usage.reward_calls:,} passes of what judges"] if usage.reward_calls else []
    if usage.model_calls:
        parts.append(f"{usage.model_calls:,} model calls, {usage.completion_tokens:,} tokens")
    if usage.cost_usd:
        parts.append(f"{usage.cost_usd:.4f} USD")
    return ", ".join([*parts, f"{usage.wall_seconds:.1f} s"])
