"""Claims on a page: marked in the text, opened by click and keyboard, with the details of their reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reason.core.events import ClaimChecked, ClaimLabelled, Event, RunFinished, StageStarted, VerificationFinished
from reason.core.types import Agreement, CheckedClaim, Evidence, Verdict, Verification
from reason.sidecar.viewer.page import trace_html, verification_html
from support.verified_text import ANSWER, verified
from support.viewer_runs import answer_of, numbered

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
OPEN = "[...document.querySelectorAll('.panels > li')].map((p) => p.id)"


@pytest.fixture
def shown(look: Look, tmp_path: Path) -> Any:
    tab = look()
    tab.show(verification_html(verified()), tmp_path)
    yield tab
    tab.check()
    assert tab.requests == [(tmp_path / "page.html").as_uri()]


def open_all(tab: Any) -> None:
    tab.page.click(".steps button[value=all]")


def test_everything_is_on_the_page(shown: Any) -> None:
    open_all(shown)
    assert shown.js(OPEN) == [f"claim-{n}" for n in range(1, 7)]
    assert shown.text("h1") == "What is weather?"
    assert shown.texts("mark") == ["Rain is wet.", "Snow is warm", "ice is soft."]
    assert shown.texts("blockquote")[0] == "Before it. It says: Rain is wet. After it."
    assert shown.texts(".panels .mono") == ["2 + 2 = 4"]
    listed = " ".join(shown.texts(".panels li"))
    for part in ("document «log» provenance 0.75", "context: no model to ask", "fitted to no data"):
        assert part in listed
    page = shown.text("#app")
    for part in (
        "2 of 6 claims supported, 1 refuted, 3 open",
        "supports 0.10, refutes 0.85, says nothing 0.05; weight 1.00",
        "weather.md:120-132",  # the position in the document, not in the passage
        "6 passes of what judges",
        "Note: a note",
        "1 passage looked at",
        "1 ✓ supported (80% sure)",
        "4 ? not enough evidence (60% sure)",
        "6 ✓ supported (computed)",
        "“93% sure” is the probability that the verdict is right.",
    ):
        assert part in page, part
    widths = shown.js("[...document.querySelectorAll('.bars .fill')].map((e) => e.style.width)")
    assert widths[:3] == ["80%", "15%", "5%"]
    assert len(widths) == 3 * 4  # the unchecked claim and the computed one have no scores
    assert shown.texts(".bars .n")[:3] == ["80%", "15%", "5%"]


def test_the_text_is_whole_and_its_claims_are_links_to_their_panels(shown: Any) -> None:
    without = (
        "(() => { const e = document.querySelector('.given').cloneNode(true);"
        "e.querySelectorAll('a').forEach((a) => a.remove()); return e.textContent; })()"
    )
    assert shown.js(without) == ANSWER
    numbers = shown.page.locator("a.number")
    places = numbers.evaluate_all("(all) => all.map((a) => a.getAttribute('href'))")
    assert places == [f"#claim-{i}" for i in range(1, 7)]
    assert numbers.nth(1).get_attribute("aria-label") == "claim 2: refuted (85% sure)"


def test_a_click_on_a_claim_opens_its_panel(shown: Any) -> None:
    shown.page.click(".given .claim[data-n='0']")
    assert shown.js(OPEN) == ["claim-1"]
    assert shown.page.get_attribute(".number[aria-current='true']", "id") == "at-1"


def test_the_keyboard_alone_is_enough(shown: Any) -> None:
    keyboard = shown.page.keyboard
    shown.page.focus("#at-1")
    keyboard.press("Tab")
    assert shown.js("document.activeElement.id") == "at-2"
    keyboard.press("Tab")
    keyboard.press("Enter")
    assert shown.js(OPEN) == ["claim-3"]
    assert shown.js("document.activeElement.id") == "claim-3"
    keyboard.press("ArrowRight")
    assert shown.js(OPEN) == ["claim-4"]
    keyboard.press("ArrowLeft")
    assert shown.js(OPEN) == ["claim-3"]
    keyboard.press("Escape")
    assert shown.js("document.activeElement.id") == "at-3"


def claim(start: int | None, end: int | None, verdict: Verdict = "not_enough_evidence") -> CheckedClaim:
    return CheckedClaim(text="c", verdict=verdict, start=start, end=end)


def test_overlapping_claims_are_cut_where_they_begin_and_end(look: Look, tmp_path: Path) -> None:
    claims = (claim(0, 6), claim(2, 4, "disputed"), claim(2, 8), claim(None, None), claim(5, 99))
    verification = Verification(verdict="disputed", claims=claims, verifiers=("v",))
    found = verified().model_copy(update={"answer": "🙂bcdefgh", "reports": (), "verification": verification})
    tab = look()
    tab.show(verification_html(found), tmp_path)
    parts = "[...document.querySelector('.given').childNodes].map((e) => [e.textContent, e.dataset?.n ?? ''])"
    assert tab.js(parts) == [
        ["🙂b", "0"],
        ["cd", "1"],
        ["2±", "1"],
        ["ef", "0"],
        ["1?", "0"],
        ["gh", "2"],
        ["3?", "2"],
    ]


def test_an_open_claim_says_what_it_lacks_and_shows_what_is_closest(look: Look, tmp_path: Path) -> None:
    closest = Evidence(source="weather.md", text="Fog is young.", start=4, end=17)
    held_back = CheckedClaim(
        text="Fog is old.",
        verdict="not_enough_evidence",
        confidence=0.55,
        lean="refuted",
        needed=0.8,
        evidence=(closest, closest.model_copy(update={"source": "copy.md"})),
        note="no passage mentions its age",
        agreement=Agreement(label="uncertain", support=2, contradict=1, silent=0),
        start=0,
        end=11,
    )
    verification = Verification(verdict="not_enough_evidence", claims=(held_back,), verifiers=("v",))
    found = verified().model_copy(update={"answer": "Fog is old.", "reports": (), "verification": verification})
    tab = look()
    tab.show(verification_html(found), tmp_path)
    assert tab.text(".badge") == "1 ? not enough evidence (closest: refuted, 55%; 80% needed)"
    assert tab.texts(".panel p") == ["no passage mentions its age", "2 of 3 jurors agree, 1 disagrees (not evidence)"]
    assert tab.texts(".panel h4") == ["closest"]
    assert tab.texts(".panel .source") == ["weather.md:4-17, copy.md:4-17"]
    assert tab.texts(".panel mark") == ["Fog is young."]
    assert tab.text(".answer") == "0 of 1 claim supported, 1 open"


def checked_run(*, ended: bool) -> list[Event]:
    """A run with a verified answer, and a jury label for the second claim."""
    found = verified()
    events: list[Event] = [
        StageStarted(stage="verify"),
        *(ClaimChecked(index=i, report=r.model_dump(mode="json")) for i, r in enumerate(found.reports)),
        ClaimLabelled(
            index=1,
            report={
                "claim": found.reports[1].claim.model_dump(mode="json"),
                "label": "contradicted",
                "support": [0],
                "contradict": [1, 2],
                "silent": [3],
            },
        ),
    ]
    if ended:
        answer = answer_of(ANSWER, verification=found.verification)
        events += [VerificationFinished(verification=found.verification), RunFinished(answer=answer)]
    return numbered(events)


def test_a_run_shows_the_claims_of_its_answer_with_what_jurors_say(look: Look, tmp_path: Path) -> None:
    tab = look()
    tab.show(trace_html(checked_run(ended=True)), tmp_path)
    assert tab.js(OPEN) == ["claim-2"]
    assert "contradicted #0 say it too; #1, #2 say the opposite; #3 say neither" in tab.text("#claim-2")
    assert "refutes 0.85" in tab.text("#claim-2 blockquote, #claim-2")
    assert "2 of 6 claims supported, 1 refuted" in tab.text("#answer")
    tab.page.click("#at-6")
    assert tab.texts(".panels .mono") == ["2 + 2 = 4"]
    tab.check()


def test_claims_are_marked_in_a_formatted_text(look: Look, tmp_path: Path) -> None:
    text = "So the **Loire is long**, and $n^2$ is 9:\n\n- Paris is *old*\n- Rome is older"
    said = ("Loire is long", "$n^2$ is 9", "Paris is *old*", "Rome is older")
    claims = tuple(
        CheckedClaim(
            evidence=(Evidence(source="s", text="t"),),
            text=words,
            verdict=verdict,
            confidence=0.9,
            start=text.index(words),
            end=text.index(words) + len(words),
        )
        for words, verdict in zip(said, ("supported", "refuted", "supported", "not_enough_evidence"), strict=True)
    )
    verification = Verification(verdict="refuted", support=0.5, claims=claims, verifiers=("davinci",))
    tab = look()
    tab.show(trace_html(numbered([RunFinished(answer=answer_of(text, "x", verification=verification))])), tmp_path)
    assert tab.page.locator(".given .md strong").count() == 1
    assert tab.texts(".given a.number") == ["1✓", "2✗", "3✓", "4?"]
    assert tab.texts(".given li") == ["Paris is old3✓", "Rome is older4?"]
    assert tab.texts(".given .claim.supported") == ["Loire is long", "Paris is ", "old"]
    assert tab.page.locator(".given .claim.refuted math").count() == 1
    tab.page.click("#at-3")
    assert tab.js(OPEN) == ["claim-3"]
    assert tab.page.locator(".given .claim.at").count() == 2
    tab.page.click("button[value=raw]")
    assert tab.texts(".given .claim") == list(said)
    tab.check()
