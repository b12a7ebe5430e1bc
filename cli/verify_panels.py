"""The evidence for one claim as a panel of the verification page: verdict, probabilities, passages, origins."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple

from ..core.answer import CheckedClaim, Evidence
from ..verify.evidence import Passage, Span
from ..verify.reports import ClaimReport, PairVerdict
from .claim_marks import SIGNS, placed_source, word_of

AROUND = 600
"""Characters of a passage that are shown on each side of what is quoted of it."""
WARNINGS = {
    "unfitted": "the passages were combined by parameters that were fitted to no data of this judge",
    "no_evidence": "no passage was found",
    "verifier_failed": "what judges failed on every passage",
    "passage_left_out": "what judges failed on a passage, which was left out",
    "hard_labels": "a verdict on a passage was a bare label without a probability",
    "duplicates_unfinished": "the search for copies among the passages was ended",
}


class _Quoted(NamedTuple):
    """A passage with what is quoted of it."""

    passage: Passage
    span: Span | None
    pair: PairVerdict | None


def panel_html(number: int, claim: CheckedClaim, report: ClaimReport | None) -> str:
    """The panel of a claim.

    Args:
        number: Its number, from 1.
        claim: The claim in short.
        report: Its whole record; None if there is none.
    """
    sure = "" if not claim.confidence else f' <span class="soft">confidence {claim.confidence:.2f}</span>'
    badge = f'<span class="badge">{number} {SIGNS[claim.verdict]} {word_of(claim.verdict)}</span>'
    parts = [f"<h3>{badge}{escape(claim.text)}</h3>{sure}"]
    if report is not None and report.program:
        parts.append(f'<h4>checked by a program</h4><div class="mono">{escape(report.program)}</div>')
    elif claim.note:
        parts.append(f"<p>{escape(claim.note)}</p>")
    if claim.probs is not None:
        calibrated = report is not None and bool(report.calibrator)
        parts.append(_bars(claim.probs, calibrated=calibrated))
    parts += _evidence(claim, report)
    if report is None:
        parts.append(_origins((name, "", "") for name in claim.origins))
    else:
        parts.append(_origins(_told(report)))
        parts.append(_remarks(report))
    return (
        f'<li class="panel {claim.verdict}" id="claim-{number}" tabindex="-1" '
        f'aria-label="Evidence for claim {number}">{"".join(parts)}</li>'
    )


def _bars(probs: tuple[float, float, float], *, calibrated: bool) -> str:
    head = "calibrated probabilities" if calibrated else "probabilities, not calibrated"
    rows = "".join(
        f'<dt>{name}</dt><dd class="track"><div class="fill {kind}" style="width:{100 * p:.1f}%"></div></dd>'
        f'<dd class="n">{p:.2f}</dd>'
        for name, kind, p in zip(("supports", "refutes", "says nothing"), "srz", probs, strict=True)
    )
    return f'<h4>{head}</h4><dl class="bars">{rows}</dl>'


def _evidence(claim: CheckedClaim, report: ClaimReport | None) -> list[str]:
    """Quotations within their passages; without a record the quotations alone."""
    if report is None or not report.passages:
        shown = [e for e in claim.evidence if e.source != "program"]
        return [f"<h4>evidence</h4>{''.join(map(_bare, shown))}"] if shown else []
    pairs = {pair.passage: pair for pair in report.pairs}
    looked = [_Quoted(p, pairs[p.id].span if p.id in pairs else None, pairs.get(p.id)) for p in report.passages]
    quoted = [one for one in looked if one.span is not None]
    others = [one for one in looked if one.span is None]
    parts = [f"<h4>evidence</h4>{''.join(map(_passage, quoted))}"] if quoted else []
    known = {e.text for e in claim.evidence}
    if not quoted and known:
        parts.append(f"<h4>evidence</h4>{''.join(map(_bare, claim.evidence))}")
    if others:
        head = f"{len(others)} {'other ' if quoted else ''}passage{'s' if len(others) > 1 else ''} looked at"
        parts.append(f"<details><summary>{head}</summary>{''.join(map(_passage, others))}</details>")
    return parts


def _bare(evidence: Evidence) -> str:
    source = escape(placed_source(evidence.source, evidence.start, evidence.end))
    return f'<div class="source">{source}</div><blockquote><mark>{escape(evidence.text)}</mark></blockquote>'


def _passage(quoted: _Quoted) -> str:
    passage, span, pair = quoted
    start, end = (0, 0) if span is None else (span.start, span.end)
    before, after = passage.text[:start], passage.text[end:]
    before = before if len(before) <= AROUND else "…" + before[-AROUND:]
    after = after if len(after) <= AROUND else after[:AROUND] + "…"
    marked = f"<mark>{escape(span.text)}</mark>" if span is not None else ""
    first = None if passage.start is None else passage.start + start
    last = None if first is None else first + (end - start if span is not None else len(passage.text))
    title = f' <span class="soft">· {escape(passage.title)}</span>' if passage.title else ""
    said = ""
    if pair is not None:
        verdict = "no readable verdict"
        if pair.probs is not None:
            s, r, z = pair.probs
            verdict = f"supports {s:.2f}, refutes {r:.2f}, says nothing {z:.2f}"
        said = f' <span class="soft">· {verdict}; weight {pair.weight:.2f}</span>'
    source = escape(placed_source(passage.source, first, last))
    return (
        f'<div><span class="source">{source}</span>{title}{said}</div>'
        f"<blockquote>{escape(before)}{marked}{escape(after)}</blockquote>"
    )


def _told(report: ClaimReport) -> Iterable[tuple[str, str, str]]:
    """Name, kind and weight of each part of the run that the claim came from."""
    return ((o.component, o.kind, f"{o.weight:.2f}") for o in report.internal if o.weight != 0)


def _origins(origins: Iterable[tuple[str, str, str]]) -> str:
    rows = "".join(
        f'<li>{escape(name)} <span class="soft">{escape(" ".join((kind, weight)).strip())}</span></li>'
        for name, kind, weight in origins
    )
    return f"<h4>where it comes from</h4><ul>{rows}</ul>" if rows else ""


def _remarks(report: ClaimReport) -> str:
    """What a reader should know of how the verdict was reached."""
    told = [WARNINGS.get(warning, warning.replace("_", " ")) for warning in report.warnings]
    told += [f"{o.kind}: {o.detail['left_out']}" for o in report.internal if "left_out" in o.detail]
    if report.downgraded:
        told.append(f"taken back: under the threshold of {report.threshold:.2f}")
    if report.conflict >= 0.5 and report.verdict in ("disputed", "not_enough_evidence"):
        told.append(f"the evidence contradicts itself (conflict {report.conflict:.2f} of 1)")
    rows = "".join(f"<li>{escape(what)}</li>" for what in told)
    return f"<h4>remarks</h4><ul>{rows}</ul>" if rows else ""
