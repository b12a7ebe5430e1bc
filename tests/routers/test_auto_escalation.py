"""`auto` on actions that differ in effort, in samples and in model: what follows the first answer."""

from __future__ import annotations

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import Candidate, Solution
from reason.routers.auto import with_first_answer
from reason.routers.features import CONFIDENCE, LENGTH, MISSING, FeatureSpace, LinearModel, QuestionFeatures
from reason.routers.router_files import Escalation, router_path, save_router_file
from support.injected_models import loaded_models
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.trained_routers import arm, auto_file, line, trained_on

QUESTION = "What is 2 + 2?"
SPLIT = replies("The answer is 4.", "The answer is 5.")
BY_CONFIDENCE = FeatureSpace(names=(CONFIDENCE,), means=(0.75,), scales=(0.25,))
"""A confidence of 1 is 1, and of one half -1."""


def votes(n, *, escalation=None, **changed):
    parameters = {"n": n, "max_tokens": 30}
    return arm(
        "self-consistency", line(9.0), 20, parameters=parameters, escalation=escalation, label=f"votes {n}", **changed
    )


def follows(then, *, threshold=0.0):
    """Another action, if the confidence is below three quarters."""
    gain = LinearModel(intercept=0.0, named=(-1.0,))
    return Escalation(then=then.action, space=BY_CONFIDENCE, gain=gain, threshold=threshold)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


def save(*arms, identity="scripted@1", model="scripted", **trained):
    path = router_path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_router_file(auto_file(*arms, trained=trained_on(engines={"main": identity, **trained})), path)
    return path


async def answered(settings, model, *, strategy="auto", small=None, **options):
    sink = MemorySink()
    models = {"scripted": model} | ({} if small is None else {small.name: small})
    named = {} if small is None else {"small_model": small.name}
    with loaded_models(models):
        async with Reasoner(settings=settings, strategy=strategy, **named) as reasoner:
            answer = await reasoner.aask(QUESTION, sinks=[sink], run_id="r", **options)
    notes = {event.name: event.data for event in sink.of_type("strategy.note")}
    return answer, notes


WORSE = arm("cot", line(-9.0), 20, parameters={"max_tokens": 30})


async def test_a_confident_first_answer_is_final(settings):
    model = ScriptedModel(replies("The answer is 4."))
    save(votes(2, escalation=follows(votes(8))), WORSE)
    answer, notes = await answered(settings, model)
    assert (answer.answer, len(answer.candidates), answer.confidence) == ("4", 2, 1.0)
    assert notes["auto.escalation"]["escalated"] is False
    assert notes["auto.escalation"]["expected_gain"] == -1.0
    assert notes["auto.chosen"]["chosen"] == "cascade"  # its text is not shown as final while it may be replaced
    assert answer.degraded == ()


async def test_an_unsure_first_answer_is_followed_and_its_samples_are_not_paid_twice(settings):
    model = ScriptedModel(SPLIT)
    save(votes(2, escalation=follows(votes(8))), WORSE)
    for seed in range(20):
        answer, notes = await answered(
            settings.model_copy(update={"store": settings.store.with_name(f"{seed}")}), model, seed=seed
        )
        if notes["auto.escalation"]["escalated"]:
            break
    assert notes["auto.escalation"]["expected_gain"] == 1.0
    assert len(answer.candidates) == 2 + 8
    first = [c.text for c in answer.candidates[:2]]
    assert first == [c.text for c in answer.candidates[2:4]]  # the same samples
    usage = answer.usage
    assert usage.completion_tokens - usage.replayed_tokens == sum(c.tokens for c in answer.candidates[2:])
    assert answer.answer in ("4", "5")


async def test_efforts_are_those_of_the_actions(settings):
    model = ScriptedModel(thinking("a", SPLIT), profile=THINKS)
    second = arm("cot", line(0.0), 20, parameters={"max_tokens": 40}, effort="high", label="second")
    save(votes(2, effort="low", escalation=follows(second, threshold=-2.0)), WORSE, identity=model.identity)
    answer, notes = await answered(settings, model)
    assert notes["auto.escalation"]["escalated"] is True
    efforts = [request.sampling.effort for call in model.generate_calls for request in call]
    assert efforts == ["low", "high"]
    assert answer.candidates[2].thought == "a"


async def test_a_run_with_an_effort_of_its_own_takes_only_arms_of_it(settings):
    model = ScriptedModel(thinking("a", "The answer is 4."), profile=THINKS)
    high = arm("cot", line(-1.0), 20, parameters={"max_tokens": 40}, effort="high", label="high")
    save(votes(2, effort="low"), high, identity=model.identity)
    _, notes = await answered(settings, model, effort="high")
    assert notes["auto.chosen"]["selected_strategy"] == "high"
    assert "evaluated with effort=low, and this run has high" in notes["auto.chosen"]["arms"][0]["refused"]


async def test_auto_chooses_the_effort_itself_if_the_effort_is_auto(settings):
    model = ScriptedModel(thinking("a", "The answer is 4."), profile=THINKS)
    low = arm("cot", line(9.0), 20, parameters={"max_tokens": 40}, effort="low", label="low")
    save(low, WORSE, identity=model.identity)
    _, notes = await answered(settings, model, effort="auto")
    assert set(notes) == {"auto.chosen"}
    assert model.generate_calls[0][0].sampling.effort == "low"


async def test_an_effort_that_the_model_does_not_accept_is_no_arm(settings):
    model = ScriptedModel(replies("The answer is 4."))
    save(votes(2, effort="low"), WORSE)
    _, notes = await answered(settings, model)
    assert notes["auto.chosen"]["selected_strategy"] == WORSE.label
    assert "does not think" in notes["auto.chosen"]["arms"][0]["refused"]


async def test_the_small_model_answers_first_and_the_large_one_after_it(settings):
    small, large = ScriptedModel(SPLIT, name="little"), ScriptedModel(replies("The answer is 7."))
    then = arm("cot", line(0.0), 20, parameters={"max_tokens": 30})
    save(votes(2, role="small", escalation=follows(then, threshold=-2.0)), WORSE, small="little@1")
    answer, _ = await answered(settings, large, small=small)
    assert answer.answer == "7"
    assert set(answer.usage.by_role) == {"small:little", "main:scripted"}


async def test_the_first_answer_stays_where_the_second_has_none(settings):
    small, large = ScriptedModel(replies("The answer is 4."), name="little"), ScriptedModel(replies(""))
    then = arm("cot", line(0.0), 20, parameters={"max_tokens": 30})
    save(votes(2, role="small", escalation=follows(then, threshold=-2.0)), WORSE, small="little@1")
    answer, _ = await answered(settings, large, small=small)
    assert answer.answer == "4"


async def test_the_default_file_is_that_of_the_model_and_may_not_change_in_a_run(settings):
    model = ScriptedModel(replies("The answer is 4."))
    save(votes(2), WORSE)
    with loaded_models({"scripted": model}):
        async with Reasoner(settings=settings, strategy="auto") as reasoner:
            answer = await reasoner.aask(QUESTION, run_id="r")
            assert answer.selected_strategy == "votes 2"
            assert (await reasoner.areplay("r")).selected_strategy == "votes 2"
            save(votes(3), WORSE)
            with pytest.raises(UserError, match="has changed since the run started"):
                await reasoner.areplay("r")


def test_what_is_seen_of_a_first_answer():
    candidates = (Candidate(text="4", answer="4", tokens=3), Candidate(text="5", answer="5", tokens=4))
    question = QuestionFeatures({"length": 1.0})
    seen = with_first_answer(question, Solution(chosen=0, candidates=candidates, confidence=0.5)).named
    assert seen == {"length": 1.0, CONFIDENCE: 0.5, LENGTH: pytest.approx(2.0794415), MISSING: 0.0}
    nothing = with_first_answer(question, Solution(chosen=None)).named
    assert nothing == {"length": 1.0, LENGTH: 0.0, MISSING: 1.0}
