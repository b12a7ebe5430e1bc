"""Claims with verdicts: evidence shown once, leans below their threshold, counts, and the words for all of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from reason.core.types import Agreement, CheckedClaim, ClaimCounts, Evidence, Verdict, Verification, merge_evidence
from reason.core.verdicts import counts_text, failure_text, percent, verdict_text

DOCUMENT = "The bridge opened in 1926. It is 204 metres long. Swans nest below it."


def span(start: int, end: int, source: str = "bridge.md") -> Evidence:
    return Evidence(source=source, text=DOCUMENT[start:end], start=start, end=end)


def claim(verdict: Verdict, text: str = "The bridge is long.", **given: Any) -> CheckedClaim:
    if verdict in ("supported", "refuted"):
        given.setdefault("evidence", (span(0, 26),))
    return CheckedClaim(text=text, verdict=verdict, **given)


def verification(*claims: CheckedClaim, verdict: Verdict = "refuted") -> Verification:
    return Verification(verdict=verdict, claims=claims, verifiers=("davinci",))


@pytest.mark.parametrize(
    ("evidence", "merged"),
    [
        ([span(0, 26), span(0, 26)], [span(0, 26)]),
        ([span(0, 26), span(50, 70)], [span(0, 26), span(50, 70)]),
        ([span(27, 49), span(0, 30)], [span(0, 49)]),
        ([span(0, 30), span(5, 10)], [span(0, 30)]),
        ([span(0, 10), span(20, 30), span(5, 25)], [span(0, 30)]),
        ([span(0, 26), span(26, 49)], [span(0, 26), span(26, 49)]),  # adjacent, nothing is shown twice
        ([span(0, 26), span(0, 26, "copy.md")], [span(0, 26), span(0, 26, "copy.md")]),
        (
            [Evidence(source="a", text="Swans nest."), Evidence(source="a", text="Swans nest. Here.")],
            [Evidence(source="a", text="Swans nest. Here.")],
        ),
        (
            [Evidence(source="a", text="Swans", start=3, end=8), Evidence(source="a", text="Geese", start=4, end=9)],
            [Evidence(source="a", text="Swans", start=3, end=8), Evidence(source="a", text="Geese", start=4, end=9)],
        ),
    ],
)
def test_a_sentence_is_evidence_once(evidence, merged):
    assert merge_evidence(evidence) == tuple(merged)
    assert claim("refuted", evidence=tuple(evidence)).evidence == tuple(merged)


@pytest.mark.parametrize(
    "given",
    [
        {"lean": "supported"},
        {"needed": 0.8},
        {"lean": "supported", "needed": 0.8},
        {"lean": "supported", "needed": 0.8, "confidence": 0.81},
    ],
)
def test_a_lean_needs_a_probability_below_its_threshold(given):
    with pytest.raises(ValidationError, match="needs a confidence and a threshold above it"):
        claim("not_enough_evidence", **given)


def test_only_an_open_claim_has_a_lean():
    with pytest.raises(ValidationError, match="only a claim without enough evidence has a lean, got 'refuted'"):
        claim("refuted", lean="refuted", needed=0.8, confidence=0.7)


@pytest.mark.parametrize(
    ("checked", "text"),
    [
        (claim("supported", confidence=0.934), "supported (93% sure)"),
        (claim("refuted", confidence=0.9951), "refuted (over 99% sure)"),
        (claim("supported"), "supported"),
        (
            claim("refuted", confidence=1.0, evidence=(Evidence(source="program", text="2 + 2 = 4"),)),
            "refuted (computed)",
        ),
        (
            claim("not_enough_evidence", confidence=0.7999, lean="supported", needed=0.8),
            "not enough evidence (closest: supported, 79%; 80% needed)",
        ),
        (
            claim("not_enough_evidence", confidence=0.57, lean="refuted", needed=0.573),
            "not enough evidence (closest: refuted, 57%; 58% needed)",
        ),
        (
            claim("not_enough_evidence", confidence=1.0, lean="refuted", needed=1.0),
            "not enough evidence (closest: refuted, 99%; 100% needed)",
        ),
        (claim("not_enough_evidence", confidence=0.91), "not enough evidence (91% sure)"),
        (claim("not_enough_evidence", confidence=0.34), "not enough evidence"),
        (claim("not_enough_evidence"), "not enough evidence"),
        (claim("disputed", confidence=0.5), "disputed"),
        (claim("unchecked", confidence=0.0), "unchecked"),
    ],
)
def test_a_verdict_has_its_probability_in_words(checked, text):
    assert verdict_text(checked) == text


def test_no_probability_reads_as_certainty():
    shown = [percent(p) for p in (0, 0.004, 0.005, 0.5, 0.994, 0.995, 1)]
    assert shown == ["under 1%", "under 1%", "1%", "50%", "99%", "over 99%", "over 99%"]


def test_claims_of_the_answer_are_supported_refuted_or_open():
    open_verdicts = ["not_enough_evidence", "disputed", "unchecked", "unparsed"]
    checked = verification(claim("supported"), claim("refuted"), *map(claim, open_verdicts))
    assert checked.counts == ClaimCounts(supported=1, refuted=1, open=4)
    assert counts_text(checked.counts) == "1 of 6 claims supported, 1 refuted, 4 open"
    assert counts_text(verification(claim("supported")).counts) == "1 of 1 claim supported"
    assert counts_text(Verification().counts) == "no claim can be checked"


def test_counts_are_in_the_json_and_follow_from_the_claims():
    checked = verification(claim("supported"), claim("refuted"))
    dumped = checked.model_dump(mode="json")
    assert dumped["counts"] == {"supported": 1, "refuted": 1, "open": 0}
    assert Verification.model_validate({**dumped, "counts": {"supported": 9}}) == checked
    assert Verification.model_validate_json(checked.model_dump_json()) == checked


def test_a_failure_names_three_claims_the_most_severe_first_and_counts_the_others():
    text = failure_text(
        verification(
            claim("not_enough_evidence", "A."),
            claim("unchecked", "B."),
            claim("disputed", "C."),
            claim("refuted", "D.", confidence=0.9),
            claim("not_enough_evidence", f"E{'e' * 300}."),
        )
    )
    assert text == (
        "not verified: claim 4, “D.”: refuted (90% sure); claim 3, “C.”: disputed; claim 1, “A.”: not enough evidence; "
        "and 2 other claims"
    )
    shortened = failure_text(verification(claim("not_enough_evidence", f"E{'e' * 300}.")))
    assert shortened == f"not verified: claim 1, “E{'e' * 198}…”: not enough evidence"


def test_a_failure_without_claims_says_why():
    assert failure_text(None) == "not verified: no verifier checked the answer"
    assert failure_text(Verification()) == "not verified: no verifier checked the answer"
    nothing = Verification(verifiers=("davinci",))
    assert failure_text(nothing) == "not verified: unchecked, no claim of the answer can be checked"


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((2, 1, 0), "2 of 3 jurors agree, 1 disagrees (not evidence)"),
        ((1, 2, 1), "1 of 4 jurors agree, 2 disagree (not evidence)"),
        ((0, 0, 3), "no juror mentions it (not evidence)"),
        ((1, 0, 0), "1 of 1 juror agrees (not evidence)"),
    ],
)
def test_agreement_of_jurors_is_named_as_what_it_is(counts, text):
    support, contradict, silent = counts
    agreement = Agreement(label="uncertain", support=support, contradict=contradict, silent=silent)
    assert agreement.text == text
