"""The verifier: a jury's verdict on another strategy's answer, which never replaces evidence."""

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.agents.verification import averify_text
from reason.core.errors import BackendUnavailable, NotVerified, UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import Candidate, Document, Question, Solution
from reason.verify.edgejury.verifier import rival_candidates
from reason.verify.types import ClaimReport
from reason.verify.verifier import make_verifier
from support.scripted_jury import CAPITAL, ScriptedJuror, answers_in, kind_of, model, prompts, says
from support.scripted_model import ScriptedModel, replies

FACT = "Ada Byron wrote the timetable."
FALSE = "Ada Byron did not write the timetable."
ASKED = Question(text="Who made the timetable?", kind="text")
PARAMETERS = {"edgejury": {"entailment": "lexical"}}


@pytest.fixture
def opened(monkeypatch):
    """The models that are opened, by name."""
    models = {"m/main": ScriptedModel(replies(FACT), name="m/main")}
    for name, text in (("a/one", FACT), ("b/two", FACT), ("c/three", FALSE)):
        models[name] = model(ScriptedJuror(text), name)

    async def load_model(name, settings, *_):
        if name not in models:
            raise BackendUnavailable(f"no model {name}")
        return models[name]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models


@pytest.fixture
def settings(tmp_path):
    return Settings(model="m/main", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


JURORS = ["a/one", "b/two", "c/three"]


def verified(settings, **more):
    given = {"verify": ["edgejury"], "verify_parameters": PARAMETERS, "jurors": JURORS, "repairs": 0, **more}
    return Reasoner(settings=settings, **given)


async def test_agreement_is_not_evidence(opened, settings):
    sink = MemorySink()
    async with verified(settings) as reasoner:
        answer = await reasoner.aask(ASKED, sinks=[sink])
        again = await reasoner.areplay(answer.run_id)
    (claim,) = answer.verification.claims
    assert (claim.verdict, answer.verification.verdict) == ("not_enough_evidence", "not_enough_evidence")
    assert claim.note.endswith("the jurors are not sure (2 for, 1 against, 0 silent; agreement is no evidence)")
    assert claim.evidence == ()
    assert answer.confidence == pytest.approx(3 / 5)
    (event,) = sink.of_type("claim.checked")
    report = ClaimReport.model_validate(event.report)
    assert [(o.component, o.kind, o.weight) for o in report.internal if o.component.startswith("juror")] == [
        ("juror #0", "agreement", 1.0),
        ("juror #1", "agreement", 1.0),
        ("juror #2", "agreement", -1.0),
    ]
    assert again.verification == answer.verification
    assert opened["a/one"].generate_calls[0][0].prompt.messages[-1].content.count(FACT) == 0  # it answers for itself


async def test_evidence_decides_verdict_with_jury_labels_attached(opened, settings):
    facts = [Document(name="facts", text=FALSE)]
    async with verified(settings) as reasoner:
        answer = await reasoner.aask(ASKED, documents=facts)
    (claim,) = answer.verification.claims
    assert (claim.verdict, answer.verification.verdict) == ("refuted", "refuted")
    assert claim.evidence[0].text == FALSE
    assert "2 for, 1 against" in claim.note
    assert answer.verification.confidence == pytest.approx(claim.probs[0])  # the evidence's, not the jury's
    async with verified(settings, require_verified=True) as reasoner:
        with pytest.raises(NotVerified):
            await reasoner.aask(ASKED)


async def test_answer_is_reviewed_among_rivals(opened, settings):
    def mark(text):
        return (9, 9, 9) if "planned" in text else (2, 2, 2)

    for name in JURORS:
        opened[name] = model(ScriptedJuror(says("Canberra", "It was planned."), mark), name)

    def script(text):  # four chains, the majority for Sydney
        return replies("I am Zorvex. The answer is A.", "It was planned. The answer is B.", weights=[5, 1])(text)

    opened["m/zorvex-7b"] = ScriptedModel(script, name="m/zorvex-7b")
    settings = settings.model_copy(update={"model": "m/zorvex-7b"})
    sink = MemorySink()
    async with verified(settings, strategy="self-consistency", parameters={"n": 12, "temperature": 1.0}) as reasoner:
        answer = await reasoner.aask(CAPITAL, sinks=[sink])
    assert answer.answer == "A"
    (rank_opinions,) = sink.of_type("jury.ranked")
    assert [s["juror"] for s in rank_opinions.report["standings"]] == [1, 0]
    assert any("reviewers rank the answer 'B' above the one that was given" in what for what in answer.degraded)
    review = next(p for p in prompts(opened["a/one"]) if kind_of(p) == "review")
    assert len(answers_in(review)) == 2
    assert "zorvex" not in review.casefold()  # who gave the answer is no reviewer's business
    assert "yours is not among them" not in review
    stated = sink.of_type("jury.claim")[-1].report
    assert (stated["claim"]["text"], stated["label"], stated["contradict"]) == (
        "The answer is A.",
        "contradicted",
        [0, 1, 2],
    )


async def test_text_is_labelled_without_documents(opened, settings):
    found = await averify_text(
        FACT,
        question="Who made it?",
        verifier="edgejury",
        parameters={"entailment": "lexical"},
        settings=settings,
        jurors=JURORS,
    )
    assert (found.verification.verdict, found.degraded) == ("not_enough_evidence", ())
    assert found.reports[0].internal[-1].component == "juror #2"
    assert found.usage.model_calls == 3
    assert not opened["m/main"].generate_calls
    with pytest.raises(UserError, match="nothing to verify the answer against"):
        await averify_text(FACT, verifier="davinci", settings=settings)


async def test_jurors_judge_claims_by_knowledge_without_question(opened, settings):
    for name, said in zip(JURORS, ("1: support", "1: contradict", "no idea"), strict=True):
        opened[name] = model(ScriptedJuror(stance=lambda prompt, said=said: said), name)
    found = await averify_text(
        FACT, verifier="edgejury", parameters={"entailment": "lexical"}, settings=settings, jurors=JURORS
    )
    assert [kind_of(p) for p in prompts(opened["a/one"])] == ["stance"]
    assert "1 for, 1 against, 0 silent" in found.verification.claims[0].note


async def test_main_model_is_the_default_jury(opened, settings):
    found = await averify_text(
        FACT, question="Who made it?", verifier="edgejury", parameters={"entailment": "lexical"}, settings=settings
    )
    assert len(opened["m/main"].generate_calls[0]) == 3
    assert "3 for, 0 against" in found.verification.claims[0].note
    assert any("single_family" in what for what in found.degraded)


async def test_failed_jury_keeps_evidence(opened, settings):
    for name in JURORS:
        opened[name] = model(ScriptedJuror(FACT), name, failing=frozenset({0, 1, 2}))
    async with verified(settings) as reasoner:
        answer = await reasoner.aask(ASKED, documents=[Document(name="facts", text=FACT)])
    assert answer.verification.verdict == "supported"
    assert any("the jury failed" in what for what in answer.degraded)


def test_davinci_uses_the_jury_entailment():
    with pytest.raises(UserError, match="must be that of edgejury"):
        make_verifier("edgejury", {"davinci": {"entailment": "lexical"}})
    verifier, _ = make_verifier("edgejury", {"entailment": "lexical", "davinci": {"entailment": "lexical"}})
    assert verifier.entailment == "lexical"


def test_rivals_differ_from_the_answer():
    texts = [("one", "A"), ("two", "B"), ("one again", "A"), ("", None), ("three", "C"), ("two", "B"), ("four", "D")]
    solution = Solution(chosen=1, candidates=tuple(Candidate(text=t, answer=a) for t, a in texts))
    assert [c.text for c in rival_candidates(solution, 3)] == ["two", "one", "three"]
    assert rival_candidates(Solution(chosen=None), 3) == []
