"""Several models for one question: who is opened, under which role, and that such a run resumes and replays."""

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.planner import used_roles
from reason.agents.reasoner import Reasoner
from reason.core.errors import BackendUnavailable
from reason.core.events import MemorySink
from reason.core.settings import (
    Settings,
    is_used_role,
    juror_role,
    jurors_of,
    models_by_role,
    settings_for_models,
)
from reason.core.types import Document
from reason.verify.types import Support
from support.scripted_entailment import ScriptedEntailment
from support.scripted_jury import CAPITAL, OPEN, ScriptedJuror, model, rules, says

LEXICAL = {"judge": "lexical"}


@pytest.fixture
def opened(monkeypatch):
    """The models that reasoners open, by name, and how often each was."""
    models = {
        "m/main": model(ScriptedJuror(says("Canberra"), chair=rules("It is Canberra, I find.", "Canberra")), "m/main"),
        "a/one": model(ScriptedJuror(says("Sydney")), "a/one"),
        "b/two": model(ScriptedJuror(says("Canberra")), "b/two"),
    }
    counts = dict.fromkeys(models, 0)

    async def load_model(name, settings, *_):
        if name not in models:
            raise BackendUnavailable(f"no model {name}")
        counts[name] += 1
        return models[name]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models, counts


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"model": "m/main"})


def jury(settings, **more):
    given = {"jurors": ["a/one", "b/two", "a/one"], **more}
    return Reasoner(strategy="edgejury", settings=settings, **given)


async def test_each_model_is_loaded_once_and_used_in_its_role(opened, settings):
    models, counts = opened
    sink = MemorySink()
    async with jury(settings) as reasoner:
        answer = await reasoner.aask(CAPITAL, sinks=[sink])
    assert counts == {"m/main": 1, "a/one": 1, "b/two": 1}
    assert answer.answer == "B"  # all marks are equal, so what the chair chose stands
    (started,) = sink.of_type("run.started")
    assert started.models == {
        "main": "m/main",
        "juror-1": "a/one",
        "juror-2": "b/two",
        "juror-3": "a/one",
    }
    assert [len(call) for call in models["a/one"].generate_calls] == [1, 1, 1, 1]
    assert set(answer.usage.by_role) == {"juror-1:a/one", "juror-2:b/two", "main:m/main"}
    assert [len(call) for call in models["m/main"].generate_calls] == [1]


async def test_without_jurors_the_main_model_is_every_juror(opened, settings):
    _, counts = opened
    async with Reasoner(strategy="edgejury", settings=settings) as reasoner:
        answer = await reasoner.aask(CAPITAL)
    assert counts == {"m/main": 1, "a/one": 0, "b/two": 0}
    assert answer.usage.by_role["main:m/main"].model_calls == 3
    assert any("single_family" in what for what in answer.degraded)


async def test_a_jury_answers_again_with_the_verifiers_findings(opened, settings):
    models, _ = opened
    facts = Document(name="facts", text="Ada Byron did not write the timetable. Ben Dale wrote the timetable.")

    def said(prompt):
        return (
            "Ben Dale wrote the timetable."
            if "Your earlier answer was fact-checked" in prompt
            else "Ada Byron wrote the timetable."
        )

    for name in models:
        models[name] = model(ScriptedJuror(said, chair=lambda prompt: rules(said(prompt))(prompt)), name)
    decided = LEXICAL | {"verdicts": "none", "threshold": 0.5}
    verifying = {"verify": ["davinci"], "verify_parameters": {"davinci": decided}}
    async with jury(settings, parameters=LEXICAL, **verifying) as reasoner:
        answer = await reasoner.aask(OPEN, documents=[facts])
    assert answer.text == "Ben Dale wrote the timetable."
    assert answer.verification.verdict == "supported"


def test_roles_and_settings_are_inverse():
    settings = Settings(model="m", judge_model="j", jurors=("a", "b", "a"))
    models = models_by_role(settings, {"jury", "judge", "small"})
    assert jurors_of(models) == ("a", "b", "a")
    back = settings.model_copy(update=settings_for_models(models))
    assert back == settings
    assert models_by_role(settings, ()) == {"main": "m"}
    assert models_by_role(settings, {"judge"}) == {"main": "m", "judge": "j"}
    assert [is_used_role(role, ("main", "jury")) for role in ("main", "juror-2", "judge", juror_role(11))] == [
        True,
        True,
        False,
        True,
    ]
    assert used_roles("edgejury", (), {}) == {"main", "jury", "judge"}
    small, judged = {"davinci": {"judge": "small"}}, {"davinci": {"judge": "model"}}
    assert used_roles("cot", ("edgejury",), {"edgejury": {"judge": "small"}}) == {"main", "jury"}
    assert used_roles("cot", ("edgejury", "davinci"), small) == {"main", "jury"}
    assert used_roles("cot", ("edgejury", "davinci"), judged) == {"main", "jury", "judge"}
    assert used_roles("cot", ("davinci",), small) == {"main"}


async def test_open_answers_are_compared_by_the_named_judge_and_replayed(opened, settings, monkeypatch):
    models, _ = opened
    for name in models:
        models[name] = model(ScriptedJuror("Ada Byron wrote it.", chair=rules("Ada Byron wrote it.")), name)
    judge = ScriptedEntailment(lambda pair: Support(0.8, 0.1, 0.1), name="small")
    asked = []

    async def load_entailment(name, settings, **_):
        asked.append(name)
        return judge

    monkeypatch.setattr("reason.verify.entailment.factory.find_embedded", lambda settings: None)
    monkeypatch.setattr("reason.verify.entailment.run_resources.load_entailment", load_entailment)
    async with jury(settings) as reasoner:
        answer = await reasoner.aask(OPEN)
        closed = await reasoner.aask(CAPITAL.model_copy(update={"choices": ("yes", "no")}))
    assert asked == ["small"]
    assert answer.confidence == pytest.approx(4 / 5)
    assert (answer.usage.reward_calls, closed.usage.reward_calls) == (1, 0)  # equal pairs are judged once
    assert len(judge.calls) == 1
    async with Reasoner(settings=settings) as elsewhere:
        again = await elsewhere.areplay(answer.run_id)
    assert (again.confidence, again.usage.reward_calls, len(judge.calls)) == (answer.confidence, 1, 1)


async def test_the_comparing_judge_may_be_unavailable(opened, settings, monkeypatch):
    models, _ = opened
    for name in models:
        models[name] = model(ScriptedJuror("Ada Byron wrote it.", chair=rules("Ada Byron wrote it.")), name)

    async def missing(name, settings, *_, **__):
        raise BackendUnavailable("not here")

    monkeypatch.setattr("reason.verify.entailment.factory.find_embedded", lambda settings: None)
    monkeypatch.setattr("reason.verify.entailment.run_resources.load_entailment", missing)
    async with jury(settings) as reasoner:
        answer = await reasoner.aask(OPEN)
        again = await reasoner.areplay(answer.run_id)
    assert any("compared by words: the judge small is not available" in what for what in answer.degraded)
    assert answer.confidence == again.confidence == pytest.approx(4 / 5)
