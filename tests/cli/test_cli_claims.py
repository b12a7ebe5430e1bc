"""Claims on a terminal: verdict and probability, the reason for doubt, and each sentence that shows it once."""

from __future__ import annotations

import pytest
from reason.agents.verification import TextVerification
from reason.cli.render.claims import answer_with_marks, print_checked
from reason.cli.render.console import out
from reason.cli.terminal_verification import print_verification
from reason.core.types import Agreement, CheckedClaim, Evidence, RunUsage, Verification

ANSWER = "It opened in 1926. It is 240 m long. It charges a toll. Swans nest below it."


def span(text: str, start: int, source: str = "bridge.md") -> Evidence:
    return Evidence(source=source, text=text, start=start, end=start + len(text))


def claim(text: str, **given) -> CheckedClaim:
    start = ANSWER.index(text)
    return CheckedClaim(text=text, start=start, end=start + len(text), **given)


OPENED = span("It was opened on 12 June 1926.", 40)
VERIFICATION = Verification(
    verdict="refuted",
    claims=(
        claim(
            "It opened in 1926.",
            verdict="supported",
            confidence=0.93,
            evidence=(OPENED, OPENED, span("opened on 12 June 1926. Trains", 47), span(OPENED.text, 7, "minutes.md")),
            origins=("document «bridge.md»",),
        ),
        claim(
            "It is 240 m long.",
            verdict="disputed",
            evidence=(span("240 m", 80), span("204 m", 5, "minutes.md"), span("24 m", 9, "plan.md")),
            note="passages contradict one another",
            agreement=Agreement(label="uncertain", support=2, contradict=1, silent=0),
        ),
        claim(
            "It charges a toll.",
            verdict="not_enough_evidence",
            confidence=0.55,
            lean="supported",
            needed=0.8,
            evidence=(span("The town charges for parking.", 200),),
            note="no passage mentions a toll",
        ),
        claim("Swans nest below it.", verdict="refuted", confidence=0.97, evidence=(span("No birds nest here.", 300),)),
    ),
    verifiers=("davinci",),
)
VERIFIED = TextVerification(
    answer=ANSWER, question="", verification=VERIFICATION, reports=(), usage=RunUsage(reward_calls=20), run_id="r"
)


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_verified_text_shows_each_sentence_once_with_all_its_places(capsys):
    print_verification(VERIFIED)
    assert capsys.readouterr().out.splitlines() == [
        "It opened in 1926.[1] It is 240 m long.[2] It charges a toll.[3] Swans nest below it.[4]",
        "",
        "[1] supported (93% sure)  It opened in 1926.",
        '    bridge.md:40-77 "It was opened on 12 June 1926. Trains"',
        '    minutes.md:7-37 "It was opened on 12 June 1926."',
        "    from document «bridge.md»",
        "[2] disputed  It is 240 m long.",
        "    passages contradict one another",
        '    bridge.md:80-85 "240 m"',
        '    minutes.md:5-10 "204 m"',
        '    plan.md:9-13 "24 m"',
        "    2 of 3 jurors agree, 1 disagrees (not evidence)",
        "[3] not enough evidence (closest: supported, 55%; 80% needed)  It charges a toll.",
        "    no passage mentions a toll",
        '    bridge.md:200-229 "The town charges for parking."',
        "[4] refuted (97% sure)  Swans nest below it.",
        '    bridge.md:300-319 "No birds nest here."',
        "",
        "refuted: 1 of 4 claims supported, 1 refuted, 2 open; 20 passes; run r",
    ]


def test_below_an_answer_a_claim_has_one_sentence_and_a_dispute_both_sides(capsys):
    print_checked(out(), VERIFICATION)
    assert capsys.readouterr().out.splitlines() == [
        "refuted: 1 of 4 claims supported, 1 refuted, 2 open",
        "[1] supported (93% sure)  It opened in 1926.",
        '    bridge.md:40-77 "It was opened on 12 June 1926. Trains"',
        "[2] disputed  It is 240 m long.",
        "    passages contradict one another",
        '    bridge.md:80-85 "240 m"',
        '    minutes.md:5-10 "204 m"',
        "    2 of 3 jurors agree, 1 disagrees (not evidence)",
        "[3] not enough evidence (closest: supported, 55%; 80% needed)  It charges a toll.",
        "    no passage mentions a toll",
        '    bridge.md:200-229 "The town charges for parking."',
        "[4] refuted (97% sure)  Swans nest below it.",
        '    bridge.md:300-319 "No birds nest here."',
    ]


def test_claims_without_a_place_in_the_text_or_of_the_thought_mark_nothing():
    claims = [
        CheckedClaim(text="c", verdict="refuted", evidence=(OPENED,), **place)
        for place in (
            {"start": 2, "end": 4},
            {"start": 0, "end": 6},
            {},
            {"start": 5, "end": 99},
        )
    ]
    assert answer_with_marks("abcdefgh", claims).plain == "abcd[1]ef[2]gh"


def test_only_the_verdict_has_its_colour(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    print_checked(out(), VERIFICATION)
    shown = capsys.readouterr().out
    assert "\x1b[1;31mrefuted (97% sure)\x1b[0m  Swans nest below it." in shown
    assert "\x1b[2m2 of 3 jurors agree, 1 disagrees (not evidence)\x1b[0m" in shown
