"""The verifier: a jury's agreement on another strategy's answer, which never replaces evidence."""

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.agents.verification import averify_text
from reason.core.errors import BackendUnavailable, NotVerified, UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import Agreement, Document, Question
from reason.verify.edgejury.verifier import JuryVerifier
from reason.verify.entailment.lexical import lexical_support
from reason.verify.types import ClaimReport
from reason.verify.verifier import make_verifier, make_verifiers
from support.scripted_entailment import ScriptedEntailment
from support.scripted_jury import ScriptedJuror, model
from support.scripted_model import ScriptedModel, replies

FACT = "Ada Byron wrote the timetable."
FALSE = "Ada Byron did not write the timetable."
ASKED = Question(text="Who made the timetable?", kind="text")
PARAMETERS = {"edgejury": {"judge": "lexical", "davinci": {"threshold": 0.0}}}


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
    assert claim.agreement == Agreement(label="uncertain", support=2, contradict=1, silent=0)
    assert (claim.evidence, [o for o in claim.origins if "juror" in o], "juror" in claim.note) == ((), [], False)
    (event,) = sink.of_type("claim.checked")
    report = ClaimReport.model_validate(event.report)
    assert (report.agreement, [o for o in report.internal if "juror" in o.component]) == (claim.agreement, [])
    (label,) = sink.of_type("jury.claim")
    assert (label.report["support"], label.report["contradict"]) == ([0, 1], [2])
    assert again.verification == answer.verification
    assert opened["a/one"].generate_calls[0][0].prompt.messages[-1].content.count(FACT) == 0  # it answers for itself


async def test_evidence_decides_verdict_with_jury_labels_attached(opened, settings):
    facts = [Document(name="facts", text=FALSE)]
    async with verified(settings) as reasoner:
        answer = await reasoner.aask(ASKED, documents=facts)
    (claim,) = answer.verification.claims
    assert (claim.verdict, answer.verification.verdict) == ("refuted", "refuted")
    assert claim.evidence[0].text == FALSE
    assert claim.agreement.text == "2 of 3 jurors agree, 1 disagrees (not evidence)"
    async with verified(settings, require_verified=True) as reasoner:
        with pytest.raises(NotVerified):
            await reasoner.aask(ASKED)


async def test_text_is_labelled_without_documents(opened, settings):
    found = await averify_text(
        FACT,
        question="Who made it?",
        verifier="edgejury",
        parameters={"judge": "lexical"},
        settings=settings,
        jurors=JURORS,
    )
    assert (found.verification.verdict, found.degraded) == ("not_enough_evidence", ())
    assert found.reports[0].agreement == Agreement(label="uncertain", support=2, contradict=1, silent=0)
    assert found.reports[0].internal == ()
    assert found.usage.model_calls == 3
    assert not opened["m/main"].generate_calls
    with pytest.raises(UserError, match="nothing to verify the answer against"):
        await averify_text(FACT, verifier="davinci", settings=settings)


async def test_text_without_a_question_gets_no_jury(opened, settings):
    found = await averify_text(
        FACT, verifier="edgejury", parameters={"judge": "lexical"}, settings=settings, jurors=JURORS
    )
    assert found.verification.claims[0].agreement is None
    assert any("without a question the jurors have nothing to answer" in what for what in found.degraded)
    assert found.usage.model_calls == 0


async def test_failed_jury_keeps_evidence(opened, settings):
    for name in JURORS:
        opened[name] = model(ScriptedJuror(FACT), name, failing=frozenset({0, 1, 2}))
    async with verified(settings) as reasoner:
        answer = await reasoner.aask(ASKED, documents=[Document(name="facts", text=FACT)])
    assert answer.verification.verdict == "supported"
    assert [claim.agreement for claim in answer.verification.claims] == [None]
    assert any("the jury failed" in what for what in answer.degraded)


async def _verification(settings, verify, parameters=None, documents=None, **more):
    """The answer `THREE`, verified against `FACTS`, and the events."""
    sink = MemorySink()
    parameters = {"davinci": {"judge": "lexical"}, "edgejury": {"judge": "lexical"}, **(parameters or {})}
    async with verified(
        settings,
        verify=verify,
        verify_parameters={name: parameters[name] for name in verify},
        jurors=JURORS if "edgejury" in verify else [],
        **more,
    ) as reasoner:
        answer = await reasoner.aask(HARBOUR, documents=FACTS if documents is None else documents, sinks=[sink])
    return answer, sink


HARBOUR = Question(text="Describe the harbour.", kind="text")
THREE = "The ferry is blue. The harbour has two cranes. The tower is old."
FACTS = [Document(name="facts", text="The ferry is blue. The harbour has no cranes.")]


@pytest.fixture
def disagreeing(opened):
    """The answer makes three claims; the jurors contradict the last one."""
    opened["m/main"] = ScriptedModel(replies(THREE), name="m/main")
    for name in JURORS:
        opened[name] = model(ScriptedJuror("The ferry is blue. The tower is not old."), name)
    return opened


@pytest.mark.parametrize("both", [("davinci", "edgejury"), ("edgejury", "davinci")])
async def test_jury_beside_davinci_adds_agreement_to_the_same_claims(disagreeing, settings, both):
    alone, _ = await _verification(settings, ("davinci",))
    together, sink = await _verification(settings, both)
    assert len(alone.verification.claims) == 3
    assert alone.verification.claims == tuple(
        claim.model_copy(update={"agreement": None}) for claim in together.verification.claims
    )
    assert [claim.agreement.label for claim in together.verification.claims] == [
        "uncertain" if "cranes" in claim.text else "contradicted" if "tower" in claim.text else "consistent"
        for claim in alone.verification.claims
    ]
    assert [event.index for event in sink.of_type("claim.checked")] == [0, 1, 2]
    assert (together.verification.verdict, together.verification.support) == (
        alone.verification.verdict,
        alone.verification.support,
    )
    assert together.verification.verifiers == ("davinci", "edgejury")
    assert together.confidence == alone.confidence


@pytest.fixture
def judge(monkeypatch):
    """A judge that is charged for each pair."""
    made = ScriptedEntailment(lexical_support, name="small")

    async def load_entailment(*_, **__):
        return made

    async def load_embedding_model(*_, **__):
        raise BackendUnavailable("none here")

    monkeypatch.setattr("reason.verify.entailment.run_resources.load_entailment", load_entailment)
    monkeypatch.setattr("reason.serving.encoders.embeddings.load_embedding_model", load_embedding_model)
    return made


SMALL = {"davinci": {"judge": "small"}, "edgejury": {"judge": "small"}}


async def test_evidence_is_judged_once_for_both_verifiers(disagreeing, settings, judge):
    await _verification(settings, ("davinci",), SMALL)
    alone = {pair for call in judge.calls for pair in call}
    judge.calls.clear()
    settings = settings.model_copy(update={"store": settings.store.with_name("other.sqlite3")})
    await _verification(settings, ("davinci", "edgejury"), SMALL)
    pairs = [pair for call in judge.calls for pair in call]
    assert alone <= set(pairs)
    assert len(pairs) == len(set(pairs))


MANY = [
    Document(name=f"note {i}", text=f"Note {i} on harbour, ferry and tower: all closed on day {i}.") for i in range(5)
]


async def test_contradicted_claims_are_the_first_to_get_evidence(disagreeing, settings, judge):
    # 3 stances (the jurors' texts are equal), then 6 of 15 pairs: 5 for one claim
    answer, _ = await _verification(settings, ("edgejury",), SMALL, documents=MANY, budget={"reward_calls": 9})
    verdicts = {claim.text: claim.verdict for claim in answer.verification.claims}
    assert list(verdicts.values()).count("unchecked") == 2
    assert verdicts["The tower is old."] != "unchecked"
    assert [claim.agreement.label for claim in answer.verification.claims] == [
        "consistent",
        "uncertain",
        "contradicted",
    ]


async def test_jury_leaves_half_of_a_short_budget_to_the_evidence(disagreeing, settings, judge):
    answer, _ = await _verification(settings, ("edgejury",), SMALL, documents=MANY, budget={"reward_calls": 5})
    assert [claim.verdict for claim in answer.verification.claims].count("unchecked") == 3  # 2 calls are left
    settings = settings.model_copy(update={"store": settings.store.with_name("other.sqlite3")})
    one = [Document(name="note", text="The harbour has no cranes.")]
    answer, _ = await _verification(settings, ("edgejury",), SMALL, documents=one, budget={"reward_calls": 6})
    assert "unchecked" not in [claim.verdict for claim in answer.verification.claims]
    settings = settings.model_copy(update={"store": settings.store.with_name("third.sqlite3")})
    answer, _ = await _verification(settings, ("edgejury",), SMALL, documents=one, budget={"reward_calls": 3})
    assert "unchecked" not in [claim.verdict for claim in answer.verification.claims]
    assert any("compared by words" in what for what in answer.degraded)  # 2 calls do not do for 3 stances


def test_one_judge_serves_both():
    with pytest.raises(UserError, match="one judge serves both"):
        make_verifier("edgejury", {"judge": "small", "davinci": {"judge": "lexical"}})
    verifier, _ = make_verifier("edgejury", {"judge": "lexical", "davinci": {"judge": "lexical"}})
    assert verifier.entailment == "lexical"
    with pytest.raises(UserError, match="the judge of edgejury is base and that of davinci is small"):
        make_verifiers(("davinci", "edgejury"), {"davinci": {"judge": "small"}, "edgejury": {"judge": "base"}})


def test_verifiers_named_together_share_the_parameters_of_davinci():
    (verifier,) = make_verifiers(("edgejury", "davinci"), {"davinci": {"k": 7, "max_claims": 3}})
    assert isinstance(verifier, JuryVerifier)
    assert (verifier._davinci.config.k, verifier._davinci.config.max_claims) == (7, 3)
    (verifier,) = make_verifiers(("edgejury",), {"edgejury": {"davinci": {"k": 2}}})
    assert (verifier._davinci.config.k, verifier._davinci.config.max_claims) == (2, 20)
    with pytest.raises(UserError, match="edgejury.davinci sets k=2, but davinci has 7"):
        make_verifiers(("edgejury", "davinci"), {"davinci": {"k": 7}, "edgejury": {"davinci": {"k": 2}}})
    assert [v.name for v in make_verifiers(("davinci",), {})] == ["davinci"]
