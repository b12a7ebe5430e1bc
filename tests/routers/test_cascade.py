"""`cascade` on two models whose probabilities are known: who is asked, whose answer stands, what it costs."""

from __future__ import annotations

import asyncio
import math

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.core.budget import Budget
from reason.core.errors import DataError, UnknownName, UserError
from reason.core.events import MemorySink, SolutionFinished
from reason.core.run import Run, RunConfig
from reason.core.settings import Settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Candidate, Question, Solution
from reason.evals.calibration import save_calibration_map
from reason.reasoning.strategy import Models, create_strategy
from reason.routers.cascade import belief_in, token_likelihood
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.replay import ReplayModel
from support.calibration_maps import make_map
from support.scripted_model import ScriptedModel, replies

QUESTION = Question(text="What is 2 + 2?", kind="number")
SURE, RIGHT = replies("The answer is 4."), replies("Two and two. The answer is 4.")
SPLIT = replies("The answer is 4.", "The answer is 5.", "The answer is 6.", weights=[2, 1, 1])
DUMB = replies("Who knows.")


@pytest.fixture
def models(monkeypatch):
    """The models that reasoners open, by name."""
    named = {}

    def put(small, large=RIGHT, kind=ScriptedModel):
        named["s/small"], named["s/large"] = kind(small, name="s/small"), ScriptedModel(large, name="s/large")
        return named["s/small"], named["s/large"]

    async def load_model(name, settings, *_):
        return named[name]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return put


def cascade(tmp_path, *, budget=None, small_model="s/small", **parameters):
    settings = Settings(
        model="s/large", small_model=small_model, store=tmp_path / "runs.sqlite3", cache_dir=tmp_path, seed=5
    )
    return Reasoner(strategy="cascade", parameters=parameters, settings=settings, budget=budget)


async def ask(reasoner, **how):
    """The answer, and the solution that it was made of."""
    sink = MemorySink()
    answer = await reasoner.aask(QUESTION, sinks=[sink], **how)
    (found,) = sink.of_type("solution.finished")
    assert isinstance(found, SolutionFinished)
    return answer, found.solution, sink


async def test_confident_small_model_answers_alone(models, tmp_path):
    small, large = models(SURE)
    async with cascade(tmp_path, first_parameters={"n": 6}) as reasoner:
        answer, solution, sink = await ask(reasoner)
    assert (answer.answer, answer.confidence, answer.stopped) == ("4", 1.0, "done")
    assert (len(small.made), len(large.made)) == (6, 0)
    assert set(answer.usage.by_role) == {"small:s/small"}
    notes = solution.notes
    assert (notes["answered"], notes["asked_large"], notes["why"]) == ("small", False, "")
    assert (notes["confidence"], notes["confidence_kind"], notes["threshold"]) == (1.0, "stated", 0.6)
    assert notes["tokens"] == {"small:s/small": answer.usage.completion_tokens}
    assert notes["first"]["votes"] == {"4": 6}
    assert "then" not in notes
    (decided,) = [e for e in sink.of_type("strategy.note") if e.name == "cascade.decided"]
    assert decided.data["asked_large"] is False


async def test_low_confidence_escalates(models, tmp_path):
    _, large = models(SPLIT)
    async with cascade(tmp_path, first_parameters={"n": 20}, threshold=0.9) as reasoner:
        answer, solution, _ = await ask(reasoner)
    votes = max(solution.notes["first"]["votes"].values())
    assert solution.notes["confidence"] == votes / 20 < 0.9
    assert (answer.answer, answer.text) == ("4", "Two and two. The answer is 4.")
    assert answer.confidence is None  # a chain states none
    assert len(solution.candidates) == 21
    assert solution.chosen == 20
    assert len(large.made) == 1
    assert solution.notes["answered"] == "large"
    assert solution.notes["tokens"] == {k: r.completion_tokens for k, r in answer.usage.by_role.items()}
    assert set(solution.notes["tokens"]) == {"small:s/small", "main:s/large"}
    assert answer.degraded == ()


@pytest.mark.parametrize(("threshold", "asked"), [(0.5, 0), (0.51, 1), (0.0, 0), (1.0, 1)])
async def test_confidence_at_the_threshold_is_accepted(models, tmp_path, threshold, asked):
    _, large = models(replies("The answer is 4.", "The answer is 5."))
    # 4 of 8 samples say 4 under this seed, and a tie goes to the first
    async with cascade(tmp_path, first_parameters={"n": 8, "temperature": 1.0}, threshold=threshold) as reasoner:
        _, solution, _ = await ask(reasoner, seed=0)
    assert solution.notes["confidence"] == 0.5
    assert len(large.made) == asked


async def test_missing_answer_always_escalates(models, tmp_path):
    _, large = models(DUMB)
    async with cascade(tmp_path, threshold=0.0, first="cot") as reasoner:
        answer, solution, _ = await ask(reasoner)
    assert (answer.answer, solution.notes["answered"], len(large.made)) == ("4", "large", 1)
    assert solution.notes["why"] == "the small model gave no answer"


async def test_small_answer_is_kept_if_the_large_model_has_none(models, tmp_path):
    models(SPLIT, DUMB)
    async with cascade(tmp_path, threshold=1.0) as reasoner:
        answer, solution, _ = await ask(reasoner)
    assert solution.notes["answered"] == "small"
    assert solution.notes["asked_large"] is True
    assert answer.answer == max(solution.notes["first"]["votes"], key=solution.notes["first"]["votes"].get)
    assert answer.confidence == solution.notes["confidence"]
    models(DUMB, DUMB)
    async with cascade(tmp_path / "b") as reasoner:
        answer, solution, _ = await ask(reasoner)
    assert (answer.answer, answer.text, solution.notes["answered"]) == (None, "Who knows.", "large")


async def test_strategy_without_confidence_uses_likelihood(models, tmp_path):
    _, large = models(SPLIT)
    likelihood = math.exp(math.log(0.5) / 17)  # 16 characters and the end, all sure but one of one half
    for threshold, asked in ((likelihood - 1e-6, 0), (likelihood + 1e-6, 1)):
        before = len(large.made)
        async with cascade(tmp_path / f"{asked}", first="cot", threshold=threshold) as reasoner:
            answer, solution, _ = await ask(reasoner)
        assert solution.notes["confidence"] == pytest.approx(likelihood, abs=1e-12)
        assert solution.notes["confidence_kind"] == "likelihood"
        assert len(large.made) - before == asked
        assert answer.confidence is None  # a likelihood is no probability of being right
    async with cascade(tmp_path / "voted", confidence="likelihood", threshold=0.0) as reasoner:
        answer, solution, _ = await ask(reasoner)
    assert solution.notes["confidence_kind"] == "likelihood"
    assert answer.confidence is None


def test_confidence_values():
    one = Candidate(text="x", answer="4", logprob=-math.log(8), tokens=3)
    assert token_likelihood(one) == pytest.approx(0.5)
    assert token_likelihood(one.model_copy(update={"logprob": None})) is None
    assert token_likelihood(one.model_copy(update={"tokens": 0})) is None
    stated = Solution(chosen=0, candidates=(one,), confidence=0.8)
    assert belief_in(stated).stated == 0.8
    assert belief_in(stated, make_map()).value == pytest.approx(0.4)  # it halves
    assert belief_in(stated, make_map()).kind == "calibrated"
    assert belief_in(stated, likelihood=True).kind == "likelihood"
    assert belief_in(stated, likelihood=True).stated is None
    unstated = stated.model_copy(update={"confidence": None})
    assert belief_in(unstated).kind == "likelihood"
    assert belief_in(unstated, make_map()).value is None  # the map is of another scale
    assert belief_in(Solution(chosen=None)).kind == "unknown"


# -- calibration


def map_of(tmp_path, **changed):
    parameters = create_strategy("self-consistency", {"n": 6})[1]
    fields = {"models": {"main": "s/small"}, "engines": {"main": "s/small@1"}, "parameters": parameters, **changed}
    path = tmp_path / "map.json"
    save_calibration_map(make_map(**fields), path)
    return {"calibration": str(path), "first_parameters": {"n": 6}}


async def test_calibration_map_is_applied_before_the_threshold(models, tmp_path):
    _, large = models(SURE)
    async with cascade(tmp_path, **map_of(tmp_path)) as reasoner:
        answer, solution, _ = await ask(reasoner)
    assert solution.notes["confidence"] == 0.5  # unanimous, and worth half
    assert solution.notes["confidence_kind"] == "calibrated"
    assert len(large.made) == 1
    assert answer.degraded == ()
    async with cascade(tmp_path / "b", **map_of(tmp_path), threshold=0.5) as reasoner:
        answer, _, _ = await ask(reasoner)
    assert (answer.confidence, len(large.made)) == (0.5, 1)


async def test_maps_of_other_strategies_are_rejected(models, tmp_path):
    models(SURE)
    for changed, why in (
        ({"strategy": "rpc"}, "fitted to strategy 'rpc', and the small model answers by 'self-consistency'"),
        ({"engines": {"main": "s/large@1"}}, "not to the small model s/small"),
        ({"verify": ("davinci",)}, "fitted to answers verified by davinci"),
    ):
        async with cascade(tmp_path, **map_of(tmp_path, **changed)) as reasoner:
            with pytest.raises(UserError, match=why):
                await reasoner.aask(QUESTION)
    async with cascade(tmp_path, calibration=str(tmp_path / "none.json")) as reasoner:
        with pytest.raises(DataError, match="there is no calibration map"):
            await reasoner.aask(QUESTION)
    with pytest.raises(UserError, match="a calibration map is of stated confidences"):
        cascade(tmp_path, confidence="likelihood", **map_of(tmp_path))
    async with cascade(tmp_path, **{**map_of(tmp_path), "first_parameters": {"n": 4}}) as reasoner:
        answer, _, _ = await ask(reasoner)
    assert answer.degraded == (f"the calibration map {answer_map(tmp_path)} was fitted with other parameters: {N_6_4}",)


N_6_4 = "n was 6 and is 4"


async def test_map_of_another_effort_is_reported(models, tmp_path):
    models(SURE)
    async with cascade(tmp_path, **map_of(tmp_path, effort="high")) as reasoner:
        answer, _, _ = await ask(reasoner)
    assert len(answer.degraded) == 1
    assert answer.degraded[0].endswith("was fitted with other parameters: effort was high and is None")


def answer_map(tmp_path):
    return make_map().model_copy(update={"name": "map"})


async def test_changed_map_stops_a_resumed_run(models, tmp_path):
    given = map_of(tmp_path)
    _, complete = create_strategy("cascade", given)
    assert len(complete["calibration_digest"]) == 8
    assert create_strategy("cascade", complete)[1] == complete
    map_of(tmp_path, items=31)
    with pytest.raises(UserError, match="has changed since the run started"):
        create_strategy("cascade", complete)


# -- parameters


def test_inner_parameters_are_checked_and_noted():
    _, complete = create_strategy("cascade", {"first_parameters": {"n": 3}})
    assert complete["first_parameters"] == create_strategy("self-consistency", {"n": 3})[1]
    assert complete["then_parameters"] == create_strategy("cot", {})[1]
    with pytest.raises(UnknownName, match="unknown strategy 'cott'"):
        create_strategy("cascade", {"then": "cott"})
    with pytest.raises(UnknownName, match="unknown cot parameter 'n'"):
        create_strategy("cascade", {"then_parameters": {"n": 3}})
    with pytest.raises(UserError, match="temperature"):
        create_strategy("cascade", {"first_parameters": {"temperature": -1}})
    with pytest.raises(UserError, match="first"):
        create_strategy("cascade", {"first": 3})


@pytest.mark.parametrize("name", ["cascade", "auto"])
def test_nested_routers_are_rejected(name):
    for role in ("first", "then"):
        with pytest.raises(UserError, match=f"cascade cannot hand a question on to {name}"):
            create_strategy("cascade", {role: name})


async def test_missing_capability_is_reported_before_any_call(models, tmp_path):
    class Mute(ScriptedModel):
        @property
        def capabilities(self):
            return super().capabilities.model_copy(update={"scoring": False})

    small, _ = models(SURE, kind=Mute)
    async with cascade(tmp_path, first="logprob") as reasoner:
        with pytest.raises(Exception, match="model 's/small' cannot do 'scoring'"):
            await reasoner.aask(QUESTION, choices=("4", "5"))
    assert small.made == []


async def test_without_a_small_model_the_main_model_answers_twice(models, tmp_path):
    _, large = models(SURE, SPLIT)
    async with cascade(tmp_path, small_model=None, threshold=1.0) as reasoner:
        answer, solution, _ = await ask(reasoner)
    assert [d for d in answer.degraded if d.startswith("no small model")]
    assert set(solution.notes["tokens"]) == {"main:s/large"}
    assert len(large.made) == 9


# -- budgets, interruptions, replay


async def solve(store, name, small, large, *, budget, **parameters):
    """A solution and its run, without a reasoner around them."""
    config = RunConfig(question=QUESTION, strategy="cascade", parameters={}, models={}, budget=budget, seed=5)
    run = Run(name, config, store)
    models = Models({"main": MeteredModel(large, "main", run), "small": MeteredModel(small, "small", run)})
    strategy, _ = create_strategy("cascade", parameters)
    return await strategy.solve(QUESTION, models, run), run


async def test_budget_holds_and_the_small_answer_is_kept(tmp_path):
    small, large = ScriptedModel(SPLIT, name="s/small"), ScriptedModel(RIGHT, name="s/large")
    chains = {"first_parameters": {"n": 4, "max_tokens": 20}, "then_parameters": {"max_tokens": 60}, "threshold": 1.0}
    stood = set()
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    for tokens in range(1, 190, 9):
        name, budget = f"r{tokens}", Budget(tokens=tokens)
        await store.create_run(name, {})
        solution, run = await solve(store, name, small, large, budget=budget, **chains)
        assert run.ledger.usage().completion_tokens <= tokens
        assert sum(solution.notes["tokens"].values()) == run.ledger.usage().completion_tokens
        answer = None if solution.best is None else solution.best.answer
        assert answer in (None, "4", "5", "6")
        if solution.notes["answered"] == "small":
            assert solution.stopped == "budget"
        stood.add((solution.notes["answered"], answer is not None, solution.stopped))
        again, _ = await solve(store, name, *(gone(m) for m in (small, large)), budget=budget, **chains)
        assert again == solution
    await store.aclose()
    # a chain that the budget cuts leaves a part of it, which the large model gets
    without_answer = {("small", False, "budget"), ("large", False, "budget")}
    assert stood == {*without_answer, ("small", True, "budget"), ("large", True, "done")}


def gone(model):
    """The model as a replay has it."""
    return ReplayModel(model.name, model.identity, model.capabilities)


async def test_cancelled_run_has_the_small_answer_and_resumes(models, tmp_path):
    small, large = models(SPLIT)
    begun = asyncio.Event()

    async def hold():
        begun.set()
        await asyncio.Event().wait()

    large._step = hold
    async with cascade(tmp_path, threshold=1.0) as reasoner:
        asked = asyncio.ensure_future(reasoner.aask(QUESTION, run_id="r"))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        record = await reasoner._store.get_run("r")
        assert record.status == "interrupted"
        assert record.answer["answer"] in ("4", "5", "6")
        large._step, made = None, len(small.made)
        answer = await reasoner.aresume("r")
        assert (answer.answer, answer.stopped, len(small.made)) == ("4", "done", made)
        replayed = await reasoner.areplay("r")
        assert replayed.candidates == answer.candidates


async def test_small_model_generates_and_judges_itself(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    run = Run("r", RunConfig(question=QUESTION, strategy="cascade", parameters={}, models={}, seed=5), store)
    small, large = (
        MeteredModel(ScriptedModel(SURE, name=name), role, run) for name, role in (("s", "small"), ("l", "main"))
    )
    judges = []
    models = Models({"main": large, "small": small}, create_self_judge=lambda role: judges.append(role))
    led = models.with_main("small")
    assert (led.main, led.small, led.judge) == (small, small, small)
    assert (models.main, models.judge) == (large, large)
    led.self_judge()
    models.self_judge()
    assert judges == ["small", "main"]
    alone = Models({"main": large})
    assert alone.with_main("small") is alone
    await store.aclose()
