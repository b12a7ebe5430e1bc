"""The embedded judge beside the run's judge model: when it is loaded, charged and replayed."""

from types import SimpleNamespace

import pytest
from reason.agents.verification import averify_text
from reason.core.budget import Budget
from reason.core.run import Run, RunConfig
from reason.core.settings import Settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Document, Question
from reason.verify.entailment import run_resources as resources
from reason.verify.entailment.judge import JudgeEntailment
from reason.verify.entailment.run_resources import MeteredEntailment
from reason.verify.types import Pair, Support
from reason.verify.verifier import make_verifiers
from support.scripted_entailment import ScriptedEntailment
from support.scripted_model import ScriptedModel, replies

PAIR = Pair("text", "claim")


def config_of(*judges, documents=True, evidence=()):
    """A run whose verifiers, davinci and edgejury, have these judges."""
    names = ("davinci", "edgejury")[: len(judges)]
    return RunConfig(
        question=Question(text="q", documents=(Document(name="d", text="t"),) if documents else ()),
        strategy="cot",
        parameters={},
        models={"main": "main", "judge": "judge"},
        verify=names,
        verify_parameters={name: {"judge": judge} for name, judge in zip(names, judges, strict=True)},
        evidence=evidence,
        budget=Budget(),
        seed=1,
    )


async def load(pool, config, tmp_path):
    verifiers = make_verifiers(config.verify, config.verify_parameters)
    return await pool.load(config, verifiers, Settings(cache_dir=tmp_path), None)


@pytest.fixture
def loaded(monkeypatch):
    """Names of the loaded judges, in order; `here` is the embedded judge of this machine."""
    names = []
    state = SimpleNamespace(names=names, here="base")

    async def load_entailment(name, settings, *, progress=None):
        names.append(name)
        return ScriptedEntailment(lambda pair: Support(0.1, 0.8, 0.1), name=name)

    monkeypatch.setattr(resources, "load_entailment", load_entailment)
    monkeypatch.setattr(resources, "find_embedded", lambda settings: state.here)
    return state


@pytest.mark.parametrize(
    ("judges", "here", "names", "second"),
    [
        (("model",), "base", ["base"], "base"),
        (("model",), "small", ["small"], "small"),
        (("model",), None, [], None),
        (("small",), "base", ["small"], None),
        (("lexical",), "base", [], None),
        (("model", "model"), "base", ["base"], "base"),
        (("nli/x/y",), "base", ["nli/x/y"], None),
    ],
)
async def test_it_is_loaded_where_the_judge_model_judges(loaded, tmp_path, judges, here, names, second):
    loaded.here = here
    pool = resources.VerifierPool()
    config = config_of(*judges)
    verifying = await load(pool, config, tmp_path)
    assert loaded.names == names
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    run = Run("r", config, store)
    models = SimpleNamespace(judge=ScriptedModel(replies("x")))
    context = verifying.context(run, models, judges[0])
    assert (context.second and context.second.name) == second
    if judges[0] == "model":
        assert isinstance(context.entailment, JudgeEntailment)
    if second:
        assert isinstance(context.second, MeteredEntailment)
        assert await context.second.judge([PAIR]) == [Support(0.1, 0.8, 0.1)]
        assert run.ledger.usage().reward_calls == 1
    await pool.aclose()
    await store.aclose()


async def test_without_evidence_there_is_nothing_to_compare(loaded, tmp_path):
    await load(resources.VerifierPool(), config_of("model", documents=False), tmp_path)
    assert loaded.names == []


async def test_a_replay_has_it_from_the_record(loaded, tmp_path):
    config = config_of("model")
    pool = resources.VerifierPool()
    verifying = await load(pool, config, tmp_path)
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    await store.create_run("r", {})
    models = SimpleNamespace(judge=ScriptedModel(replies("x")))
    first = await verifying.context(Run("r", config, store), models, "model").second.judge([PAIR])
    identities = verifying.identities()
    assert identities["entailment:base"] == {"identity": "base@1", "max_words": None}
    record = SimpleNamespace(id="r", answer=None, identities=identities, status="finished")
    recorded = pool.recorded(record, config)
    again = recorded.context(Run("r", config, store), models, "model").second
    assert await again.judge([PAIR]) == first
    await store.aclose()


FACT = "Paris is the capital of France."
CLAIMS = "Paris is the capital of France. Madrid is the capital of Spain."


@pytest.fixture
def model(monkeypatch):
    """A judge model that finds everything supported, and quotes nothing."""

    def script(text):
        listed = {letter: text.partition(f"\n{letter}) The evidence ")[2].split(" ")[0] for letter in "ABC"}
        if not any(listed.values()):
            return replies("NONE")(text)
        return {letter: 0.98 if meaning == "supports" else 0.01 for letter, meaning in listed.items()}

    made = ScriptedModel(script)

    async def load_model(*_):
        return made

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    return made


async def verified(tmp_path, sinks=(), **options):
    settings = Settings(
        model="scripted", embedding_model="none", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5
    )
    documents = [Document(name="facts", text=f"{FACT} The Spanish capital is Madrid.")]
    return await averify_text(CLAIMS, documents=documents, settings=settings, sinks=sinks, **options)


async def test_the_verdicts_of_both_are_reported_and_the_models_stay(loaded, model, tmp_path, monkeypatch):
    def by_city(pair):
        return Support(0.01, 0.98, 0.01) if "Madrid" in pair.claim else Support(0.98, 0.01, 0.01)

    async def load_entailment(name, *_, **__):
        return ScriptedEntailment(by_city, name=name)

    alone = await verified(tmp_path, parameters={"judge": "model"}, model="judge", budget={"reward_calls": 1})
    monkeypatch.setattr(resources, "load_entailment", load_entailment)
    both = await verified(tmp_path, model="judge")  # auto: a model is named
    assert [r.backend.partition("-")[0] for r in both.reports] == ["judge", "judge"]
    assert [r.second_judge.backend for r in both.reports] == ["base@1", "base@1"]
    assert [r.verdict for r in both.reports] == ["supported", "supported"]
    assert [r.second_judge.label for r in both.reports] == ["supports", "refutes"]
    assert both.verification.note == "judges agree on 1 of 2 claims"
    assert [("another judge" in claim.note) for claim in both.verification.claims] == [False, True]
    assert both.degraded == ()
    # a budget without passes for it leaves claims uncompared, and nothing else changes
    assert [r.second_judge is None for r in alone.reports] == [False, True]
    assert [(r.verdict, r.probs) for r in alone.reports] == [(r.verdict, r.probs) for r in both.reports]
    assert alone.verification.note.endswith("of 1 claim")


async def test_an_embedded_judge_has_no_second_one(loaded, model, tmp_path):
    found = await verified(tmp_path)
    assert [r.second_judge for r in found.reports] == [None, None]
    assert {r.backend for r in found.reports} == {f"{loaded.names[0]}@1"}
    assert found.usage.model_calls == 0
    assert found.degraded == ()
