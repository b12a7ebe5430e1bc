"""Claims with their verdicts on a terminal: within the answer's text, and as a list under it.

An answer cut where its claims begin and end, and how a verdict is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text

from ...core.types import CheckedClaim, Verdict, Verification
from .console import out, printable

if TYPE_CHECKING:
    from ...agents.verification import TextVerification

_GRAVITY: tuple[Verdict, ...] = (
    "supported",
    "not_enough_evidence",
    "unparsed",
    "unchecked",
    "disputed",
    "refuted",
)


class Piece(NamedTuple):
    """A stretch of the answer.

    Attributes:
        text: The stretch.
        claims: Places of the claims that it is part of, the gravest verdict first; empty outside of claims.
        ends: Places of the claims that end with it, in order.
    """

    text: str
    claims: tuple[int, ...]
    ends: tuple[int, ...]


def word_of(verdict: Verdict) -> str:
    """A verdict as people read it."""
    return verdict.replace("_", " ")


def pieces_of(text: str, claims: Sequence[CheckedClaim]) -> list[Piece]:
    """The answer as stretches, each within the same claims from its beginning to its end.

    Claims without a place, or with one that is none of the text's, are part of no stretch.
    """
    placed = [
        (claim.start, claim.end, number)
        for number, claim in enumerate(claims)
        if claim.start is not None and claim.end is not None and 0 <= claim.start < claim.end <= len(text)
    ]
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for start, end, number in placed:
        begins.setdefault(start, []).append(number)
        ends.setdefault(end, []).append(number)
    cuts = sorted({0, len(text), *begins, *ends})
    pieces: list[Piece] = []
    inside: set[int] = set()
    for start, end in pairwise(cuts):
        inside = inside.difference(ends.get(start, ())).union(begins.get(start, ()))
        gravest = sorted(inside, key=lambda n: (-_GRAVITY.index(claims[n].verdict), n))
        pieces.append(Piece(text[start:end], tuple(gravest), tuple(sorted(ends.get(end, ())))))
    return pieces


def counted(verification: Verification) -> str:
    """How many claims have which verdict: `2 of 3 claims supported, 1 refuted`."""
    total = len(verification.claims)
    if not total:
        return "no claim was found that could be checked"
    counts = {v: sum(c.verdict == v for c in verification.claims) for v in _GRAVITY}
    others = [f"{count} {word_of(v)}" for v, count in reversed(counts.items()) if count and v != "supported"]
    plural = "claim" if total == 1 else "claims"
    return ", ".join([f"{counts['supported']} of {total} {plural} supported", *others])


def placed_source(source: str, start: int | None, end: int | None) -> str:
    """A source with the place of the quotation in it: `facts.md:41-72`."""
    return source if start is None or end is None else f"{source}:{start}-{end}"


STYLES: dict[Verdict, str] = {
    "supported": "green",
    "refuted": "bold red",
    "disputed": "magenta",
    "not_enough_evidence": "yellow",
    "unchecked": "dim",
    "unparsed": "dim",
}
LONGEST_QUOTE = 400
"""Characters of a quotation that are shown."""
_LEAST_WIDTH = 24
"""Columns from which the list is indented."""


def answer_with_marks(text: str, claims: Sequence[CheckedClaim]) -> Text:
    """The answer, each claim underlined in the colour of its verdict and followed by its number: `… of France.[1]`."""
    shown = Text()
    for piece in pieces_of(text, claims):
        style = f"underline {STYLES[claims[piece.claims[0]].verdict]}" if piece.claims else ""
        shown.append(printable(piece.text), style)
        for number in piece.ends:
            shown.append(f"[{number + 1}]", f"bold {STYLES[claims[number].verdict]}")
    shown.rstrip()
    return shown


def print_claims(console: Console, claims: Sequence[CheckedClaim], *, whole: bool = True) -> None:
    """Print the list of claims: number, verdict, confidence, claim; below each, what shows it.

    Args:
        console: Where to.
        claims: The claims.
        whole: Whether every quotation is shown; otherwise the first of each claim that did not pass.
    """
    width = len(str(len(claims))) + 3
    indent = width if console.width >= _LEAST_WIDTH else 0
    for number, claim in enumerate(claims, 1):
        head = Text(word_of(claim.verdict), STYLES[claim.verdict])
        if claim.confidence and claim.verdict not in ("unchecked", "unparsed"):
            head.append(f" {claim.confidence:.2f}", "dim")
        head.append(f"  {_line(claim.text)}")
        first = f"{f'[{number}]':>{width - 1}} "
        if not indent:
            head = Text.assemble((first, "dim"), head)
        for text in (head, *_below(claim, whole)):
            for line in text.wrap(console, max(1, console.width - indent)):
                line.rstrip()
                console.print(Text.assemble((first if indent else "", "dim"), line), soft_wrap=True)
                first = " " * indent


def print_verification(verified: TextVerification) -> None:
    """Print a verified text with its claims marked, the claims, and the verdict."""
    console, claims = out(), verified.verification.claims
    console.print(answer_with_marks(verified.answer, claims), soft_wrap=True)
    console.print()
    if claims:
        print_claims(console, claims)
        console.print()
    line = summary_line(verified.verification)
    if verified.usage.reward_calls:
        line.append(f"; {verified.usage.reward_calls:,} passes", "dim")
    if verified.usage.completion_tokens:
        line.append(f"; {verified.usage.completion_tokens:,} tokens", "dim")
    line.append(f"; run {verified.run_id}", "dim")
    console.print(line, soft_wrap=True)


def print_checked(console: Console, verification: Verification) -> None:
    """Print what a verification says of an answer that is printed already: its verdict and its claims, in short."""
    console.print(summary_line(verification), soft_wrap=True)
    print_claims(console, verification.claims, whole=False)


def summary_line(verification: Verification) -> Text:
    """The verdict on the whole: `refuted: 1 of 3 claims supported, 1 refuted, 1 not enough evidence`."""
    line = Text(word_of(verification.verdict), STYLES[verification.verdict])
    line.append(f": {counted(verification)}")
    if verification.confidence is not None:
        line.append(f"; confidence {verification.confidence:.2f}")
    return line


def _below(claim: CheckedClaim, whole: bool) -> Iterator[Text]:
    shown = claim.evidence if whole else claim.evidence[: claim.verdict != "supported"]
    by_program = claim.evidence[:1] and claim.evidence[0].source == "program"
    for evidence in () if by_program else shown:
        quote = _line(evidence.text)
        quote = quote if len(quote) <= LONGEST_QUOTE else quote[: LONGEST_QUOTE - 1] + "…"
        source = placed_source(_line(evidence.source), evidence.start, evidence.end)
        yield Text.assemble((source, "cyan"), f' "{quote}"')
    if claim.note and (whole or claim.verdict != "supported"):
        yield Text(f"program: {_line(claim.note)}" if by_program else _line(claim.note), "dim")
    if whole and claim.origins:
        yield Text(f"from {_line(', '.join(claim.origins))}", "dim")


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
