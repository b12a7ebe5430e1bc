"""Claims of an answer through the whole of `davinci`: what it looks at, what it stands by, what it says it did not."""

from __future__ import annotations

from typing import Any

import pytest
from reason.core.errors import BackendError
from reason.core.files import write_fitted_file
from reason.core.types import Candidate, Document, Evidence, Question, Solution
from reason.reasoning.strategy import Models
from reason.verify.davinci.davinci import (
    Davinci,
    check_claim_arithmetic,
    make_verification,
    overall_verdict,
)
from reason.verify.davinci.decision import _SHIPPED, DavinciConfig, decision_rule_for, load_verdict_model
from reason.verify.entailment.run_resources import MeteredEntailment
from reason.verify.types import Claim, ClaimReport, Pair, Support
from reason.verify.verifier import VerifierContext
from support.scripted_entailment import ScriptedEntailment
from support.scripted_model import ScriptedModel

YES, NO, SILENT = Support(0.9, 0.05, 0.05), Support(0.05, 0.9, 0.05), Support(0.02, 0.02, 0.96)
TOWER = "The Eiffel Tower stands in Paris."
LOW = "The Eiffel Tower is 20 metres high."
DOCUMENTS = (
    Document(name="tower.txt", text="The Eiffel Tower is a tower in Paris. It is 330 metres high."),
    Document(name="bread.txt", text="Bread is baked from flour and water."),
)


def by_content(pair: Pair) -> Support | None:
    """Reads numbers and the town; knows nothing of bread."""
    if "Bread" in pair.evidence:
        return SILENT
    if "20 metres" in pair.claim:
        return NO if "330" in pair.evidence else SILENT
    return YES if "Paris" in pair.evidence else SILENT


@pytest.fixture
def harness(runs):
    async def make(entailment=None, *, metered=False, **budget):
        model = await runs.begin(f"r{len(runs.begun)}", model=ScriptedModel({}), budget=budget)
        judge = entailment or ScriptedEntailment(by_content)
        return VerifierContext(
            runs.run, Models({"main": model}), MeteredEntailment(judge, runs.run) if metered else judge
        )

    make.sink = runs.sink
    return make


async def reports(
    means: VerifierContext, answer: str, documents: tuple[Document, ...] = DOCUMENTS, **config: Any
) -> Any:
    verifier = Davinci(DavinciConfig(**{"internal": (), "verdicts": "none", **config}))
    solution = Solution(chosen=0, candidates=(Candidate(text=answer),))
    return await verifier.reports(Question(text="Tell me of the tower.", documents=documents), solution, means)


async def test_each_claim_has_its_verdict_its_place_and_the_span_that_decides(harness):
    answer = f"{TOWER} {LOW}"
    true, false = await reports(await harness(), answer)
    assert (true.verdict, false.verdict) == ("supported", "refuted")
    assert answer[false.claim.start : false.claim.end] == LOW
    assert "330 metres" in false.evidence[0].text
    assert false.evidence[0].source == "tower.txt"
    whole = {d.name: d.text for d in DOCUMENTS}
    for report in (true, false):
        for one in report.evidence:
            assert whole[one.source][one.start : one.end] == one.text
        for pair in report.pairs:
            passage = next(p for p in report.passages if p.id == pair.passage)
            assert pair.span is None or passage.text[pair.span.start : pair.span.end] == pair.span.text
    told = [event.report for event in harness.sink.of_type("claim.checked")]
    assert [ClaimReport.model_validate(report) for report in told] == [true, false]


async def test_one_call_judges_all_pairs_and_one_finds_all_spans(harness):
    judge = ScriptedEntailment(by_content)
    await reports(await harness(judge), f"{TOWER} {LOW}")
    assert len(judge.calls) == 2
    assert all(isinstance(pair, Pair) for call in judge.calls for pair in call)


async def test_without_documents_nothing_is_shown_and_that_is_said(harness):
    (report,) = await reports(await harness(), TOWER, ())
    assert (report.verdict, report.confidence, report.reason) == ("not_enough_evidence", None, "no_evidence")
    assert report.note == "no evidence was found"
    assert report.probs == (0.0, 0.0, 1.0)
    assert "no_evidence" in report.warnings


async def test_a_pair_that_fails_is_left_out_and_reported(harness):
    class Flaky(ScriptedEntailment):
        async def judge(self, pairs: Any) -> Any:
            if any("Bread" in pair.evidence for pair in pairs):
                raise BackendError("this text is too much")
            return await super().judge(pairs)

    (report,) = await reports(
        await harness(Flaky(by_content)), "The Eiffel Tower stands in Paris, not on Bread street."
    )
    assert report.verdict == "supported"
    assert "passage_left_out" in report.warnings


async def test_if_every_pair_fails_nothing_is_stood_by(harness):
    (report,) = await reports(await harness(ScriptedEntailment(by_content, failing=True)), TOWER)
    assert (report.verdict, report.confidence, report.reason) == ("not_enough_evidence", None, "verifier_failed")
    assert "verifier_failed" in report.warnings


async def test_what_cannot_be_read_is_kept_apart(harness):
    (report,) = await reports(await harness(ScriptedEntailment(lambda pair: None)), TOWER)
    assert report.verdict == "unparsed"
    assert make_verification("davinci", [report]).verdict == "unparsed"


async def test_the_budget_reaches_the_first_claims(harness):
    found = await reports(await harness(metered=True, reward_calls=1), f"{TOWER} {LOW}", k=1)
    assert [report.verdict for report in found] == ["supported", "unchecked"]
    assert make_verification("davinci", found).verdict == "unchecked"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("3 x 4 = 13", False),
        ("3 x 4 = 12", True),
        ("3 \u00d7 4 = 12", True),
        ("3x4=13", False),
        ("15% of 80 is 12", True),
        ("12 plus 30 equals 41", False),
        ("The 4x4 is 2000", None),
        ("0x10 = 16", None),
        ("2x = 8", None),
        ("If 3 x 4 = 13", None),
    ],
)
def test_a_claim_of_arithmetic_needs_no_evidence(text, holds):
    found = check_claim_arithmetic(Claim(text=text, start=0, end=len(text)))
    assert (found and found.verdict) == {True: "supported", False: "refuted", None: None}[holds]


async def test_arithmetic_is_computed(harness):
    wrong, right = await reports(await harness(), "3 * 18 = 55. 3 * 18 = 54.", ())
    assert (wrong.verdict, right.verdict) == ("refuted", "supported")
    assert wrong.evidence[0].source == "program"
    assert "54" in wrong.program


async def test_both_sides_make_a_dispute_with_a_span_of_each(harness):
    documents = (
        Document(name="a", text="The Eiffel Tower is in Paris, all agree."),
        Document(name="b", text="The Eiffel Tower is in Lyon, as was shown."),
    )
    judge = ScriptedEntailment(
        lambda p: Support(0.98, 0.01, 0.01) if "Paris" in p.evidence else Support(0.01, 0.98, 0.01)
    )
    (report,) = await reports(await harness(judge), TOWER, documents)
    assert report.conflict > 0.6
    assert (report.verdict, report.reason, report.note) == ("disputed", "conflict", "passages disagree")
    assert [e.source for e in report.evidence] == ["a", "b"]


@pytest.mark.parametrize("aggregation", ["witness", "mean", "product"])
async def test_every_aggregation_finds_the_false_claim(harness, aggregation):
    documents = (Document(name="tower", text="The Eiffel Tower is 330 metres high and stands in Paris."),)
    found = await reports(await harness(), f"{TOWER} {LOW}", documents, aggregation=aggregation, threshold=0.5)
    assert [report.label for report in found] == ["supports", "refutes"]


async def test_an_empty_answer_has_no_claims(harness):
    assert await reports(await harness(), "   ") == []
    assert make_verification("davinci", []).verdict == "unchecked"


# -- the issue: what an unrelated sentence must not do, and what the user reads

BRIDGE = "The bridge opened on 12 June 1926."


async def test_a_passage_without_a_word_of_the_claim_is_judged_too(harness):
    judge = ScriptedEntailment(lambda pair: NO if "Alcohol" in pair.evidence else SILENT)
    documents = (Document(name="a.txt", text="Alcohol is not reimbursed."), Document(name="b.txt", text="Bread is."))
    (report,) = await reports(await harness(judge), "Guests get their wine paid for.", documents)
    assert (report.verdict, len(report.passages)) == ("refuted", 2)
    (report,) = await reports(await harness(judge), "Guests get their wine paid for.", documents, k=1)
    assert len(report.passages) == 1


async def test_the_shown_sentence_is_the_one_about_the_claim_within_its_passage(harness):
    text = "It was not damaged in the flood of 1953. The bridge was opened on 12 June 1926. Trams cross it."
    misled = ScriptedEntailment(lambda pair: Support(0.97 if "flood" in pair.evidence else 0.9, 0.02, 0.01))
    (report,) = await reports(await harness(misled), BRIDGE, (Document(name="a.txt", text=text),))
    assert [e.text for e in report.evidence] == ["The bridge was opened on 12 June 1926."]


async def test_the_same_sentence_in_overlapping_passages_is_shown_once(harness):
    filler = " ".join(f"Sentence number {i} is about tram line {i}." for i in range(12))
    documents = (Document(name="a.txt", text=f"{filler} The bridge was opened on 12 June 1926. {filler}"),)
    judge = ScriptedEntailment(lambda pair: YES if "1926" in pair.evidence else SILENT)
    found = await reports(await harness(judge), BRIDGE, documents)
    assert sum("1926" in passage.text for passage in found[0].passages) > 1
    (claim,) = make_verification("davinci", found).claims
    assert [e.text for e in claim.evidence] == ["The bridge was opened on 12 June 1926."]


async def test_the_record_is_enough_to_repeat_the_decision(harness, tmp_path):
    (shipped, *_) = sorted(_SHIPPED.glob("verdicts-*.json"))
    file = tmp_path / "mine.json"
    write_fitted_file(load_verdict_model(shipped).model_copy(update={"judge": "scripted@1"}), file)
    for verdicts in ("none", str(file)):
        for report in await reports(await harness(), f"{TOWER} {LOW}", verdicts=verdicts):
            rule = decision_rule_for(DavinciConfig(verdicts=verdicts), report.backend)
            assert report.calibrator == ("" if rule.model is None else rule.model.digest)
            assert rule.model is None or rule.model.probabilities(report.features) == report.probs
            again = rule.decide(report.claim.text, report.passages, [pair.support for pair in report.pairs])
            assert (again.verdict, again.probs, again.note) == (report.verdict, report.probs, report.note)


async def test_a_held_back_verdict_says_what_it_leans_to_and_what_it_needs(harness):
    judge = ScriptedEntailment(lambda pair: Support(0.6, 0.1, 0.3) if "Paris" in pair.evidence else SILENT)
    found = await reports(await harness(judge), TOWER)
    (claim,) = make_verification("davinci", found).claims
    assert (claim.verdict, claim.lean, claim.needed) == ("not_enough_evidence", "supported", 0.8)
    assert claim.confidence is not None
    assert claim.confidence < 0.8
    assert [e.source for e in claim.evidence] == ["tower.txt"]


# -- deciding

# -- the whole answer


def report(verdict: Any, supports: float = 0.5) -> ClaimReport:
    probs = (supports, 1 - supports, 0.0)
    return ClaimReport(claim=Claim(text="c", start=0, end=1), verdict=verdict, probs=probs)


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "refuted", "unchecked"], "refuted"),
        (["supported", "disputed", "unchecked"], "disputed"),
        (["supported", "unchecked"], "unchecked"),
        (["supported", "unparsed", "not_enough_evidence"], "unparsed"),
        (["supported", "not_enough_evidence"], "not_enough_evidence"),
        ([], "unchecked"),
    ],
)
def test_an_answer_is_what_its_worst_claim_is(verdicts, whole):
    assert overall_verdict([report(verdict) for verdict in verdicts]) == whole


def judged(supports: float) -> ClaimReport:
    """A report on a claim whose evidence supports it with a probability."""
    span = Evidence(source="facts", text="c", start=0, end=1)
    return report("not_enough_evidence", supports).model_copy(update={"label": "neutral", "evidence": (span,)})


def test_support_is_that_of_the_least_supported_claim():
    assert make_verification("davinci", [judged(0.9), judged(0.2), judged(0.6)]).support == 0.2


def test_nothing_found_is_not_improbable():
    nothing = report("not_enough_evidence", 0.042)  # no passage: its label is None
    silent = nothing.model_copy(update={"label": "neutral"})  # passages, of which none bears on it
    for reports in ([], [nothing], [judged(0.9), nothing], [judged(0.9), silent], [report("unchecked", 0.0)]):
        assert make_verification("davinci", reports).support is None
