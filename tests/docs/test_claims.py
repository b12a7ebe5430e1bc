"""Claims of README and docs: each is a row of `docs/claims.md`, and says no more than its row and its recorded test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from reason.evals.statistics.intervals import Interval
from reason.evals.statistics.paired import ALPHA, claim_status

ROOT = Path(__file__).parents[2]
CLAIMS = ROOT / "docs" / "claims.md"
COMPARISONS = ROOT / "docs" / "results" / "comparisons"
HEAD = ["id", "claim", "page", "script", "n", "test", "p (Holm)", "status"]
STATUSES = {"shown", "not shown", "refuted", "measured once"}
WITHOUT_CLAIMS = {"judge_base.md", "judge_small.md"}  # cards of models, written from their training runs

MARKER = re.compile(r"<!--\s+claim:\s+(\S+)\s+-->")
CLAIM = re.compile(
    r"\bbeats?\b|\boutperforms?\b|\b(?:better|faster|cheaper|slower|worse|more accurate) than\b|\bahead of\b"
    r"|\btimes (?:as|faster|fewer|more)\b|\bfewer tokens\b|\bas (?:good|accurate) as\b"
    r"|\b(?:is|are|was|were|works?) (?:the )?best\b|\bshown (?:to|that|is)\b|\b(?:is|are) shown(?=[.:*]|$)"
    r"|\bsaves?\b[^.]*?(?:\b(?:tokens|time|calls|samples|seconds)\b|%)",
    re.IGNORECASE,
)
NEGATED = re.compile(
    r"\b(?:no|not|none|nor|never|nothing|neither|hardly|cannot|without|whether|if|would|could)\b|n't", re.IGNORECASE
)
CAVEAT = re.compile(rf"{NEGATED.pattern}|\brefuted\b|\buncertain\b", re.IGNORECASE)
NEUTRAL = (
    # what a method does, not how well it does it
    "the tokens that are at least `plausible` times as probable",  # docs/logits-processors.md
    "saves the run",  # docs/sdk.md
    "The confidence is the best score as a probability",  # docs/strategies.md
    "how often a sample is at least as good as its siblings",  # docs/sampling.md
    "the best answer so far",
    "all passages of one set that suffices are shown",  # docs/results/verification.md
    "the leader beats the runner-up",
    "The goal is less than",
    # what others report
    "Published for RouteLLM's best router",  # docs/results/details/recorded_routing.md
    "Prompted self-evaluation separates hard from easy questions",  # docs/strategies.md
)


class Row(NamedTuple):
    """A row of the table of claims."""

    id: str
    claim: str
    page: str
    script: str
    n: str
    test: str
    p: str
    status: str


def rows() -> list[Row]:
    lines = [line for line in CLAIMS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [Row(*row) for row in cells if len(row) == len(HEAD) and row != HEAD and set(row) != {"---"}]


def pages() -> list[Path]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page not in (CLAIMS, ROOT / "docs" / "cli-reference.md")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def paragraphs(text: str) -> Iterator[str]:
    """Prose without code, headings and tables; a list item is a paragraph."""
    collected: list[str] = []
    for line in [*re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL).splitlines(), ""]:
        plain = line.strip()
        starts_item = re.match(r"(?:[-*]|\d+\.) ", plain)
        if (not plain or plain.startswith(("|", "#")) or starts_item) and collected:
            yield " ".join(collected)
            collected = []
        if plain and not plain.startswith(("|", "#")):
            collected.append(plain)


def sentences(text: str) -> list[str]:
    return [
        sentence
        for paragraph in paragraphs(text)
        for sentence in re.split(r"(?<=[.!?])[*_\")]*\s+(?=[A-Z`*\[(\d])", paragraph)
    ]


def unmarked_claims(text: str) -> list[str]:
    """Sentences that claim something without a marker, a negation before the claim, or an exception."""
    found = []
    for sentence in sentences(text):
        if MARKER.search(sentence) or any(phrase in sentence for phrase in NEUTRAL):
            continue
        plain = re.sub(r"`[^`]*`", "X", sentence)
        for match in CLAIM.finditer(plain):
            clause = re.split(r"[;:]", plain[: match.start()])[-1]
            if not NEGATED.search(clause):
                found.append(sentence)
                break
    return found


def recorded() -> dict[str, dict[str, Any]]:
    """Every recorded comparison by id."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(COMPARISONS.glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            assert entry["id"] not in found, f"{path.name}: {entry['id']} is recorded twice"
            found[entry["id"]] = entry
    return found


def test_a_claim_is_recognised_unless_it_is_negated_or_marked() -> None:
    text = "\n".join([
        "# A is better than B",
        "A is better than B. It is not faster than C; A is *not* shown to be right. A is shown",
        "to be right <!-- claim: a/b -->. Whether it saves tokens is open.",
        "- A needs 3 times fewer tokens, and not more calls.",
        "",
        "| A | is better than B |",
        "```bash",
        "echo A beats B",
        "```",
        "Not slow: it beats B.",
    ])  # fmt: skip
    assert unmarked_claims(text) == [
        "A is better than B.",
        "- A needs 3 times fewer tokens, and not more calls.",
        "Not slow: it beats B.",
    ]


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_a_page_claims_nothing_without_a_row(page: Path) -> None:
    assert unmarked_claims(page.read_text(encoding="utf-8")) == []


def test_markers_and_rows_are_the_same() -> None:
    marked = {(name, name_of(page)) for page in pages() for name in MARKER.findall(page.read_text(encoding="utf-8"))}
    listed = {(row.id, page) for row in rows() for page in row.page.split(", ")}
    assert marked - listed == set(), "markers without a row"
    assert listed - marked == set(), "rows without a marker on their page"
    assert len({row.id for row in rows()}) == len(rows()), "an id is listed twice"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_a_row_agrees_with_its_recorded_comparison(row: Row) -> None:
    assert row.status in STATUSES
    assert (ROOT / row.script).is_file()
    if "/" not in row.id:  # measured before comparisons were recorded; the numbers are on its page
        assert row.status != "shown" or float(row.p.removeprefix("< ")) < ALPHA
        return
    entry = recorded()[row.id]
    assert (row.n, row.test, row.status) == (f"{entry['n']:,}", entry["test"], entry["status"])
    p = entry["p_adjusted"]
    assert row.p == ("< 0.001" if p < 0.001 else f"{p:.3f}")


def test_a_sentence_says_no_more_than_the_status_of_its_row() -> None:
    weak = {row.id for row in rows() if row.status in ("not shown", "refuted")}
    for page in pages():
        for sentence in sentences(page.read_text(encoding="utf-8")):
            if weak & set(MARKER.findall(sentence)):
                assert CAVEAT.search(sentence), f"{name_of(page)}: {sentence}"


def test_recorded_statuses_follow_from_the_recorded_tests() -> None:
    for name, entry in recorded().items():
        low, high, p = entry["low"], entry["high"], entry["p_adjusted"]
        assert entry["p"] <= p + 1e-9, name
        if entry["test"].startswith("non-inferiority"):
            assert (entry["status"] == "shown") == (p < ALPHA), name
        else:
            ends = None if low is None or high is None else Interval(low, high, "")
            assert entry["status"] == claim_status(entry["difference"], ends, p), name


def test_every_page_of_results_has_its_headline_among_the_claims() -> None:
    results = [page for page in (ROOT / "docs" / "results").glob("*.md") if page.name not in WITHOUT_CLAIMS]
    assert [name_of(page) for page in results if not MARKER.search(page.read_text(encoding="utf-8"))] == []
