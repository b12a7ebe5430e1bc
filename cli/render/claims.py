"""Claims with their verdicts: marked in the answer's text, and as a list; those of the thought apart from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...core.types import CheckedClaim, Evidence, Verdict, Verification
from ...core.verdicts import counts_text, is_computed, verdict_name, verdict_text
from .console import one_line, print_line, printable, truncate


def source_with_span(source: str, start: int | None, end: int | None) -> str:
    """A source with the span of the quotation: `facts.md:41-72`."""
    return source if start is None or end is None else f"{source}:{start}-{end}"


STYLES: dict[Verdict, str] = {
    "supported": "green",
    "refuted": "bold red",
    "disputed": "magenta",
    "not_enough_evidence": "yellow",
    "unchecked": "dim",
    "unparsed": "dim",
}
MAX_QUOTE_CHARS = 400
"""Maximum length of a quotation."""


def answer_with_marks(text: str, claims: Sequence[CheckedClaim]) -> Text:
    """The answer, each claim followed by its number in the colour of its verdict: `… of France.[1]`."""
    ends = sorted(
        (claim.end, number)
        for number, claim in enumerate(claims, 1)
        if claim.end is not None and 0 < claim.end <= len(text)
    )
    shown, position = Text(), 0
    for end, number in ends:
        shown.append(printable(text[position:end]))
        shown.append(f"[{number}]", f"bold {STYLES[claims[number - 1].verdict]}")
        position = end
    shown.append(printable(text[position:]))
    shown.rstrip()
    return shown


def print_claims(console: Console, claims: Sequence[CheckedClaim], *, all_evidence: bool = True) -> None:
    """Print the claims with number, verdict and probability, and below each the reason for doubt and the evidence.

    Args:
        console: The console.
        claims: The claims.
        all_evidence: Whether all quotations and origins are shown; else only the first quotation of each claim, and
            both sides of a dispute.
    """
    width = len(str(len(claims))) + 3
    for number, claim in enumerate(claims, 1):
        rows = Table.grid()
        rows.add_column(width=width)
        rows.add_column(overflow="fold")
        head = Text.assemble((verdict_text(claim), STYLES[claim.verdict]), f"  {one_line(claim.text)}")
        rows.add_row(Text(f"[{number}] ".rjust(width), "dim"), head)
        for detail in _details(claim, all_evidence):
            rows.add_row("", detail)
        console.print(rows)


def print_checked(console: Console, verification: Verification) -> None:
    """Print the verdict and the claims, each with one quotation, below an answer."""
    print_line(console, summary_line(verification))
    print_claims(console, verification.claims, all_evidence=False)


def summary_line(verification: Verification) -> Text:
    """The overall verdict: `refuted: 6 of 8 claims supported, 1 refuted, 1 open`."""
    line = Text.assemble((verdict_name(verification.verdict), STYLES[verification.verdict]))
    line.append(f": {counts_text(verification.counts)}")
    return line


def _details(claim: CheckedClaim, all_evidence: bool) -> Iterator[Text]:
    """Why the verdict is not more certain, each sentence that shows it once, and the claim's origins."""
    if claim.note:
        yield Text(one_line(claim.note), "dim")
    if not is_computed(claim):
        max_quotes = None if all_evidence else 2 if claim.verdict == "disputed" else 1
        for quote, sources in islice(_sources_by_quote(claim.evidence).items(), max_quotes):
            yield Text.assemble((", ".join(sources), "cyan"), f' "{quote}"')
    if claim.agreement is not None:
        yield Text(claim.agreement.text, "dim")
    if all_evidence and claim.origins:
        yield Text(f"from {one_line(', '.join(claim.origins))}", "dim")


def _sources_by_quote(evidence: Sequence[Evidence]) -> dict[str, list[str]]:
    """The quotations in order, each with all places that have it."""
    sources: dict[str, list[str]] = {}
    for span in evidence:
        quote = truncate(one_line(span.text), MAX_QUOTE_CHARS)
        sources.setdefault(quote, []).append(source_with_span(one_line(span.source), span.start, span.end))
    return sources
