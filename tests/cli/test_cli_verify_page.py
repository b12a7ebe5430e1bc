"""The verification page as HTML: complete, escaped, safe whatever the texts, and a list without its script."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st
from page_reader import Read
from reason.cli.claim_marks import MEANINGS, SIGNS, pieces_of
from reason.cli.verify_page import render_verification
from reason.cli.verify_panels import AROUND
from reason.core.answer import CheckedClaim, Verdict, Verification
from verified_text import ANSWER, PLACES, verified

TAGS = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "div", "span", "p", "a", "b"}
TAGS |= {"ul", "ol", "li", "dl", "dt", "dd", "blockquote", "mark", "details", "summary", "button", "footer", "script"}
EVIL = "</script></style><script>window.pwned = 1</script><img src=x onerror='pwned()'>\u2028'\"`${1}<!--"


def test_everything_is_on_the_page() -> None:
    page = Read(render_verification(verified()))
    panels = page.of_class("panel")
    assert [p["id"] for p in panels] == [f"claim-{n}" for n in range(1, 7)]
    assert page.texts["h1"] == ["What is weather?"]
    assert page.texts["mark"] == ["Rain is wet.", "Snow is warm", "ice is soft."]
    quotes = page.texts["blockquote"]
    assert "Before it. It says: " in quotes
    assert " After it." in quotes
    assert page.texts["div"].count("2 + 2 = 4") == 1
    listed = " ".join(page.texts["li"])
    assert "document «log»" in listed
    assert "context: no model to ask" in listed
    assert "fitted to no data" in listed
    shown = " ".join(chain.from_iterable(page.texts.values()))
    assert "2 of 6 claims supported, 1 refuted, 1 disputed, 1 unchecked, 1 not enough evidence" in shown
    assert "provenance 0.75" in shown
    assert "supports 0.10, refutes 0.85, says nothing 0.05; weight 1.00" in shown
    assert "weather.md:120-132" in shown  # the place in the document, not in the passage
    assert "6 passes of what judges" in shown
    assert "Note: a note" in shown
    widths = [a["style"] for a in page.of_class("fill")]
    assert widths[:3] == ["width:80.0%", "width:15.0%", "width:5.0%"]
    assert len(widths) == 3 * 5  # nothing was judged of the unchecked one


def test_a_long_digest_is_shortened_and_whole_where_one_points() -> None:
    judge = "embedded-1:" + "0123456789abcdef" * 4 + "+float32"
    found = verified()
    reports = tuple(r.model_copy(update={"backend": judge}) for r in found.reports)
    found = found.model_copy(update={"reports": reports})
    page = render_verification(found)
    assert f'<span class="chip" title="{judge}">judged by <b>embedded-1:01234567…+float32</b></span>' in page


def test_the_text_is_whole_and_its_claims_are_links_to_their_panels() -> None:
    page = Read(render_verification(verified()))
    source = render_verification(verified())
    given_text = re.search(r'<div class="given">(.*?)</div>', source, re.S)
    assert given_text is not None
    without_numbers = re.sub(r"<a [^>]*>[^<]*</a>", "", given_text[1])
    assert re.sub(r"<[^>]+>", "", without_numbers) == ANSWER
    numbers = page.of_class("number")
    assert [n["href"] for n in numbers] == [f"#claim-{i}" for i in range(1, 7)]
    assert numbers[1]["aria-label"] == "claim 2: refuted"


def test_verdicts_differ_by_more_than_colour() -> None:
    source = render_verification(verified())
    decorations = dict(re.findall(r"\.claim\.(\w+)[^{]*\{ text-decoration-style: (\w+)", source))
    assert len({decorations[v] for _, v, _ in PLACES}) == 5
    assert len({SIGNS[v] for _, v, _ in PLACES}) == 5
    page = Read(source)
    legend = [e for e in page.of_class("claim") if "data-n" not in e]
    assert len(legend) == 5  # those that are on the page
    assert all(MEANINGS[v] in source for _, v, _ in PLACES)
    assert MEANINGS["unparsed"] not in source


def test_the_policy_allows_the_one_script_and_nothing_else() -> None:
    source = render_verification(verified())
    page = Read(source)
    (running,), data = page.scripts()
    assert data == []
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(running.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not {"src", "onclick", "onerror", "onload"} & {name for _, attrs in page.elements for name in attrs}
    assert all((a.get("href") or "#").startswith("#") for _, a in page.elements)
    assert "url(" not in source
    assert "@import" not in source
    assert "innerHTML" not in running


def test_without_the_script_it_is_a_plain_list() -> None:
    page = Read(render_verification(verified()))
    assert all("hidden" not in panel for panel in page.of_class("panel"))
    assert all("hidden" in steps for steps in page.of_class("steps"))
    assert all("hidden" in hint for hint in page.of_class("hint"))


def test_light_and_dark_and_phones() -> None:
    source = render_verification(verified())
    assert "prefers-color-scheme: dark" in source
    assert "@media (max-width: 40rem)" in source
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in source


def test_hostile_texts_stay_texts() -> None:
    page = Read(render_verification(verified(text=EVIL, source=EVIL, question=EVIL, detail=EVIL)))
    assert {tag for tag, _ in page.elements}.isdisjoint({"img", "iframe", "object"})
    running, _ = page.scripts()
    assert len(running) == 1
    assert "pwned" not in running[0]
    assert page.texts["h1"] == [EVIL]
    assert page.texts["mark"][0] == "Rain is wet." + EVIL


@given(st.text(min_size=1))
def test_any_text_gives_a_well_formed_page(text: str) -> None:
    found = verified(text=text, source=text, question=text, detail=text)
    page = Read(render_verification(found.model_copy(update={"answer": ANSWER + text})))
    assert {tag for tag, _ in page.elements} <= TAGS
    assert len(page.of_class("panel")) == 6


def test_long_passages_are_cut_around_what_is_quoted() -> None:
    found = verified()
    report = found.reports[0]
    long = "x" * 5000 + report.claim.text + "y" * 5000
    passage = report.passages[0].model_copy(update={"text": long})
    span = report.pairs[0].span
    assert span is not None
    pair = report.pairs[0].model_copy(update={"span": span.model_copy(update={"start": 5000, "end": 5012})})
    changed = report.model_copy(update={"passages": (passage,), "pairs": (pair,)})
    page = Read(render_verification(found.model_copy(update={"reports": (changed, *found.reports[1:])})))
    assert "…" + "x" * AROUND in page.texts["blockquote"]
    assert "y" * AROUND + "…" in page.texts["blockquote"]


def test_a_verifier_without_records_and_a_text_without_claims() -> None:
    found = verified()
    page = Read(render_verification(found.model_copy(update={"reports": ()})))
    assert page.texts["mark"] == ["Rain is wet.", "Snow is warm", "ice is soft."]
    assert "document «log»" in " ".join(page.texts["li"])
    nothing = found.model_copy(update={"reports": (), "verification": Verification(verifiers=("davinci",))})
    page = Read(render_verification(nothing))
    assert "No claim was found that could be checked." in page.texts["p"]
    assert page.of_class("panel") == []


def claim(start: int | None, end: int | None, verdict: Verdict = "not_enough_evidence") -> CheckedClaim:
    return CheckedClaim(text="c", verdict=verdict, start=start, end=end)


def test_overlapping_claims_are_cut_where_they_begin_and_end() -> None:
    pieces = pieces_of("abcdefgh", [claim(0, 6), claim(2, 4, "disputed"), claim(2, 8), claim(None, None), claim(5, 99)])
    assert [(p.text, p.claims, p.ends) for p in pieces] == [
        ("ab", (0,), ()),
        ("cd", (1, 0, 2), (1,)),
        ("ef", (0, 2), (0,)),
        ("gh", (2,), (2,)),
    ]
    assert [(p.text, p.claims) for p in pieces_of("abc", [])] == [("abc", ())]
    assert pieces_of("", []) == []


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-2, 32), st.integers(-2, 32)), max_size=6))
def test_pieces_are_the_text_again_and_every_placed_claim_ends_once(text: str, places: list[tuple[int, int]]) -> None:
    claims = [claim(start, end) for start, end in places]
    pieces = pieces_of(text, claims)
    assert "".join(p.text for p in pieces) == text
    placed = [n for n, (start, end) in enumerate(places) if 0 <= start < end <= len(text)]
    assert sorted(n for p in pieces for n in p.ends) == placed
    for n in placed:
        start, end = places[n]
        assert "".join(p.text for p in pieces if n in p.claims) == text[start:end]
