"""A calibration map in use: what it does to an answer, what it refuses, and that a run keeps its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.planner import calibration_difference
from reason.agents.reasoner import Reasoner
from reason.core.calibration import CalibrationCurve
from reason.core.errors import DataError, UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import Document, Verification
from reason.evals.calibration import save_calibration_map
from reason.reasoning.strategy import Parameters
from reason.verify.verifier import VERIFIERS
from support.calibration_maps import PARAMETERS, make_map
from support.scripted_model import ScriptedModel, replies
from support.stored_runs import run_config

LIKELY = replies("The answer is Paris.", "The answer is Lyon.", weights=[3, 1])


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    scripted = ScriptedModel(LIKELY)

    async def load_model(name: str, settings: Settings, *_: object) -> ScriptedModel:
        return scripted

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return scripted


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    path = tmp_path / "votes.json"
    save_calibration_map(make_map(), path)
    return path


def voting(settings: Settings, **more: Any) -> Reasoner:
    parameters = {"n": 8, "max_tokens": 60} | more.pop("parameters", {})
    return Reasoner(strategy="self-consistency", parameters=parameters, settings=settings, **more)


async def test_both_confidences_are_in_the_answer(model, settings, votes) -> None:
    sink = MemorySink()
    async with voting(settings, calibration=votes) as reasoner:
        answer = await reasoner.aask("Where?", sinks=[sink])
    async with voting(settings) as reasoner:
        plain = await reasoner.aask("Where?")
    assert answer.confidence == plain.confidence
    assert answer.calibrated_confidence == pytest.approx(plain.confidence / 2, abs=1e-12)
    assert answer.calibration == "votes (isotonic, sums)"
    assert (plain.calibrated_confidence, plain.calibration) == (None, "")
    assert answer.degraded == ()
    assert sink.events[-1].answer == answer
    assert json.loads(answer.model_dump_json())["calibrated_confidence"] == answer.calibrated_confidence


async def test_the_settings_name_a_map_by_strategy_and_none_disables_it(model, settings, votes, tmp_path) -> None:
    named = settings.model_copy(update={"calibration": {"self-consistency": votes, "cot": tmp_path / "missing.json"}})
    async with voting(named) as reasoner:
        assert (await reasoner.aask("Where?")).calibration == "votes (isotonic, sums)"
    async with voting(named, calibration="none") as reasoner:
        assert (await reasoner.aask("Where?")).calibration == ""
    with pytest.raises(DataError, match=r"missing\.json"):
        Reasoner(strategy="cot", settings=named)


def test_a_map_of_another_strategy_is_refused(model, settings, votes) -> None:
    with pytest.raises(UserError, match=r"votes .* fitted to strategy 'self-consistency', not to 'cot'"):
        Reasoner(strategy="cot", settings=settings, calibration=votes)


async def test_a_map_of_another_model_is_refused_before_any_call(model, settings, votes) -> None:
    model.identity = "scripted@2"
    async with voting(settings, calibration=votes) as reasoner:
        with pytest.raises(UserError, match=r"model scripted \(scripted@1\), not to scripted \(scripted@2\)"):
            await reasoner.aask("Where?")
        assert await (await reasoner.open_store()).list_runs() == []
    assert model.generate_calls == []


async def test_differing_settings_are_named_in_a_note(model, settings, votes) -> None:
    sink = MemorySink()
    async with voting(settings, parameters={"n": 4, "temperature": 1.0}, calibration=votes) as reasoner:
        answer = await reasoner.aask("Where?", sinks=[sink])
        replayed = await reasoner.areplay(answer.run_id)
    note = (
        "the calibration map votes (isotonic, sums) was fitted under other settings: "
        "n was 8 and is 4; temperature was unset and is 1.0"
    )
    assert answer.degraded == replayed.degraded == (note,)
    assert [e.what for e in sink.of_type("run.degraded")] == [note]
    assert answer.calibrated_confidence == pytest.approx(answer.confidence / 2, abs=1e-12)


async def test_a_parameter_unknown_to_the_map_counts_as_its_default(model, settings) -> None:
    older = {name: value for name, value in PARAMETERS.items() if name != "top_k"}
    async with voting(settings, calibration=make_map(parameters=older)) as reasoner:
        assert (await reasoner.aask("Where?")).degraded == ()
    async with voting(settings, calibration=make_map(parameters=older), parameters={"top_k": 3}) as reasoner:
        (note,) = (await reasoner.aask("Where?")).degraded
    assert note.endswith("other settings: top_k was 0 and is 3")


async def test_only_models_that_the_strategy_uses_are_compared(model, settings) -> None:
    found = make_map(models={"main": "scripted"}, engines={"main": "scripted@1", "judge": "j@1"})
    async with voting(settings, calibration=found) as reasoner:
        assert (await reasoner.aask("Where?")).degraded == ()  # self-consistency asks no judge


async def test_a_map_fitted_with_verifiers_is_not_applied_to_an_answer_without(model, settings) -> None:
    sink = MemorySink()
    async with voting(settings, calibration=make_map(verify=("davinci",))) as reasoner:
        answer = await reasoner.aask("Where?", sinks=[sink])
        replayed = await reasoner.areplay(answer.run_id)
    assert answer.confidence is not None
    assert (answer.calibrated_confidence, answer.calibration) == (None, "")
    note = (
        "the calibration map (isotonic, sums) was not applied: it was fitted to answers verified by davinci, and this "
        "answer was not verified; calibrate a run with the same verifiers"
    )
    assert answer.degraded == replayed.degraded == (note,)
    assert [e.what for e in sink.of_type("run.degraded")] == [note]


async def test_a_map_fitted_without_verifiers_is_not_applied_to_a_verified_answer(model, settings) -> None:
    fitted = make_map(verify=("davinci",))
    checked = {"verify": ("davinci",), "verify_parameters": {"davinci": {"judge": "lexical"}}, "repairs": 0}
    async with voting(settings, calibration=make_map(), **checked) as reasoner:
        (answer, same) = [
            await reasoner.aask("Where?", documents=[Document(name="a", text="The answer is Paris.")])
            for reasoner in (
                reasoner,
                await reasoner.variant(calibration=fitted, parameters={"n": 8, "max_tokens": 60}),
            )
        ]
    assert answer.verification.verifiers == ("davinci",)
    assert (answer.calibrated_confidence, answer.calibration) == (None, "")
    assert sum("fitted to answers without verifiers, and this answer was verified" in n for n in answer.degraded) == 1
    assert same.calibrated_confidence == pytest.approx(same.confidence / 2)
    assert not any("calibration map" in note for note in same.degraded)


class Doubter:
    """A verifier that is sure that nothing is supported."""

    name, summary, paper, stability, entailment, roles = "doubter", "", "", "beta", "lexical", ()
    Config = Parameters

    def __init__(self, config: Parameters) -> None:
        pass

    async def verify(self, question, solution, context) -> Verification:
        return Verification(verdict="not_enough_evidence", support=0.042, verifiers=("doubter",))


async def test_a_verification_never_changes_the_confidence_of_an_answer(model, settings, monkeypatch) -> None:
    load = VERIFIERS.load
    monkeypatch.setattr(VERIFIERS, "load", lambda name: Doubter if name == "doubter" else load(name))
    async with voting(settings, verify=("doubter",), repairs=0) as reasoner:
        answer = await reasoner.aask("Where?")
    async with voting(settings) as reasoner:
        plain = await reasoner.aask("Where?")
    assert answer.verification.support == 0.042
    assert answer.confidence == plain.confidence > 0.5


async def test_another_effort_than_that_of_the_map_is_named(model, settings) -> None:
    known = make_map(effort="high", thinking_tokens=500)
    config = run_config(strategy="self-consistency", parameters=PARAMETERS, calibration=known, thinking_tokens=500)
    note = calibration_difference(config, {"main": "scripted@1"})
    assert note.endswith("fitted under other settings: effort was high and is unset")
    assert calibration_difference(config.model_copy(update={"effort": "high"}), {"main": "scripted@1"}) == ""


async def test_an_answer_without_a_confidence_has_none_calibrated(model, settings) -> None:
    curve = make_map(strategy="cot", parameters={})
    async with Reasoner(strategy="cot", settings=settings, calibration=curve) as reasoner:
        answer = await reasoner.aask("Where?")
    assert answer.confidence is None
    assert answer.calibrated_confidence is None


async def test_a_resumed_run_keeps_the_map_it_began_with(model, settings, votes) -> None:
    async with voting(settings, calibration=votes) as reasoner:
        whole = await reasoner.aask("Where?")
    left = [10]

    def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            task.cancel()

    model._step = stop
    async with voting(settings, calibration=votes) as reasoner:
        task = asyncio.ensure_future(reasoner.aask("Where?", run_id="cut"))
        with pytest.raises(asyncio.CancelledError):
            await task
        partial = (await reasoner._store.get_run("cut")).answer
    assert partial["calibration"] == whole.calibration
    model._step = None
    # the file holds another map by now
    save_calibration_map(make_map(curve=CalibrationCurve(method="temperature")), votes)
    async with voting(settings, calibration=votes) as reasoner:
        resumed = await reasoner.aresume("cut")
    assert resumed.calibrated_confidence == whole.calibrated_confidence == pytest.approx(whole.confidence / 2)
    assert resumed.calibration == whole.calibration


async def test_a_variant_has_the_map_of_its_strategy(model, settings, votes) -> None:
    async with voting(settings, calibration=votes) as reasoner:
        same = await reasoner.variant(parameters={"n": 2, "max_tokens": 60})
        other = await reasoner.variant("cot")
        without = await reasoner.variant(calibration="none", parameters={"max_tokens": 60})
        assert (await same.aask("Where?")).calibration == "votes (isotonic, sums)"
        assert (await other.aask("Where?")).calibration == ""
        assert (await without.aask("Where?")).calibration == ""


# -- evaluations
