"""`cascade` on two models whose probabilities are known: who is asked, whose answer stands, what it costs."""

import asyncio
import math
from functools import partial

import pytest
from reason.core.budget import Budget
from reason.core.errors import CapabilityMissing, DataError, UnknownName, UserError
from reason.core.types import Candidate, Question, Solution
from reason.evals.calibration import save_calibration_map
from reason.reasoning.strategy import Models, create_strategy
from reason.routers.cascade import belief_in, token_likelihood
from support.calibration_maps import make_map
from support.scripted_model import ScriptedModel, replies
from support.scripted_tools import WEATHER, ToolModel, calling
from support.stored_runs import RunHarness
from support.two_models import TwoModels

QUESTION = Question(text="What is 2 + 2?", kind="number")
SURE, RIGHT = replies("The answer is 4."), replies("Two and two. The answer is 4.")
SPLIT = replies("The answer is 4.", "The answer is 5.", "The answer is 6.", weights=[2, 1, 1])
DUMB = replies("Who knows.")


def two_models(store, small=SURE, large=RIGHT, kind=ScriptedModel):
    return TwoModels(store, kind(small, name="s/small"), ScriptedModel(large, name="s/large"))


async def solve(runs, name="r", **parameters):
    return await runs.solve(name, strategy="cascade", question=QUESTION, **{"seed": 5, **parameters})


async def test_confident_small_model_answers_alone(store):
    runs = two_models(store)
    solution = await solve(runs, first_parameters={"n": 6})
    assert (solution.best.answer, solution.confidence, solution.stopped) == ("4", 1.0, "done")
    assert (len(runs.small.made), len(runs.large.made)) == (6, 0)
    assert set(runs.spent.by_role) == {"small:s/small"}
    notes = solution.notes
    assert (notes["answered"], notes["asked_large"], notes["why"]) == ("small", False, "")
    assert (notes["confidence"], notes["confidence_kind"], notes["threshold"]) == (1.0, "stated", 0.6)
    assert notes["tokens"] == {"small:s/small": runs.spent.completion_tokens}
    assert notes["first"]["votes"] == {"4": 6}
    assert "then" not in notes
    (decided,) = [e for e in runs.sink.of_type("strategy.note") if e.name == "cascade.decided"]
    assert decided.data["asked_large"] is False


async def test_low_confidence_escalates(store):
    runs = two_models(store, SPLIT)
    solution = await solve(runs, first_parameters={"n": 20}, threshold=0.9)
    votes = max(solution.notes["first"]["votes"].values())
    assert solution.notes["confidence"] == votes / 20 < 0.9
    assert (solution.best.answer, solution.best.text) == ("4", "Two and two. The answer is 4.")
    assert solution.confidence is None  # a chain states none
    assert (len(solution.candidates), solution.chosen, len(runs.large.made)) == (21, 20, 1)
    assert solution.notes["answered"] == "large"
    assert solution.notes["tokens"] == {k: r.completion_tokens for k, r in runs.spent.by_role.items()}
    assert set(solution.notes["tokens"]) == {"small:s/small", "main:s/large"}
    assert runs.run.degraded == []


@pytest.mark.parametrize(("threshold", "asked"), [(0.5, 0), (0.51, 1), (0.0, 0), (1.0, 1)])
async def test_confidence_at_the_threshold_is_accepted(store, threshold, asked):
    runs = two_models(store, replies("The answer is 4.", "The answer is 5."))
    # 4 of 8 samples say 4 under this seed, and a tie goes to the first
    parameters = {"first_parameters": {"n": 8, "temperature": 1.0}, "threshold": threshold}
    solution = await solve(runs, seed=0, **parameters)
    assert solution.notes["confidence"] == 0.5
    assert len(runs.large.made) == asked


async def test_missing_answer_always_escalates(store):
    runs = two_models(store, DUMB)
    solution = await solve(runs, threshold=0.0, first="cot")
    assert (solution.best.answer, solution.notes["answered"], len(runs.large.made)) == ("4", "large", 1)
    assert solution.notes["why"] == "the small model gave no answer"


async def test_small_answer_is_kept_if_the_large_model_has_none(store):
    solution = await solve(two_models(store, SPLIT, DUMB), threshold=1.0)
    assert (solution.notes["answered"], solution.notes["asked_large"]) == ("small", True)
    votes = solution.notes["first"]["votes"]
    assert solution.best.answer == max(votes, key=votes.get)
    assert solution.confidence == solution.notes["confidence"]
    solution = await solve(two_models(store, DUMB, DUMB), "none")
    assert (solution.best.answer, solution.best.text) == (None, "Who knows.")
    assert solution.notes["answered"] == "large"


async def test_strategy_without_confidence_uses_likelihood(store):
    likelihood = math.exp(math.log(0.5) / 17)  # 16 characters and the end, all sure but one of one half
    for threshold, asked in ((likelihood - 1e-6, 0), (likelihood + 1e-6, 1)):
        runs = two_models(store, SPLIT)
        solution = await solve(runs, f"{asked}", first="cot", threshold=threshold)
        assert solution.notes["confidence"] == pytest.approx(likelihood, abs=1e-12)
        assert solution.notes["confidence_kind"] == "likelihood"
        assert len(runs.large.made) == asked
        assert solution.confidence is None  # a likelihood is no probability of being right
    solution = await solve(runs, "voted", confidence="likelihood", threshold=0.0)  # though the votes state one
    assert (solution.notes["confidence_kind"], solution.confidence) == ("likelihood", None)


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


async def test_calibration_map_is_applied_before_the_threshold(store, tmp_path):
    runs = two_models(store)
    solution = await solve(runs, **map_of(tmp_path))
    assert solution.notes["confidence"] == 0.5  # unanimous, and worth half
    assert solution.notes["confidence_kind"] == "calibrated"
    assert (len(runs.large.made), runs.run.degraded) == (1, [])
    solution = await solve(runs, "b", **map_of(tmp_path), threshold=0.5)
    assert (solution.confidence, len(runs.large.made)) == (0.5, 1)


async def test_maps_of_other_strategies_are_rejected(store, tmp_path):
    runs = two_models(store)
    for changed, why in (
        ({"strategy": "rpc"}, "fitted to strategy 'rpc', and the small model answers by 'self-consistency'"),
        ({"engines": {"main": "s/large@1"}}, "not to the small model s/small"),
        ({"verify": ("davinci",)}, "fitted to answers verified by davinci"),
    ):
        with pytest.raises(UserError, match=why):
            await solve(runs, **map_of(tmp_path, **changed))
    with pytest.raises(DataError, match="there is no calibration map"):
        await solve(runs, "gone", calibration=str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="a calibration map is of stated confidences"):
        await solve(runs, "likelihood", confidence="likelihood", **map_of(tmp_path))
    await solve(runs, "other", **{**map_of(tmp_path), "first_parameters": {"n": 4}})
    name = make_map().model_copy(update={"name": "map"})
    assert runs.run.degraded == [f"the calibration map {name} was fitted with other parameters: n was 6 and is 4"]
    await solve(runs, "effort", **map_of(tmp_path, effort="high"))
    (told,) = runs.run.degraded
    assert told.endswith("was fitted with other parameters: effort was high and is None")


def test_changed_map_stops_a_resumed_run(tmp_path):
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
    for error, why, given in (
        (UnknownName, "unknown strategy 'cott'", {"then": "cott"}),
        (UnknownName, "unknown cot parameter 'n'", {"then_parameters": {"n": 3}}),
        (UserError, "temperature", {"first_parameters": {"temperature": -1}}),
        (UserError, "first", {"first": 3}),
    ):
        with pytest.raises(error, match=why):
            create_strategy("cascade", given)


@pytest.mark.parametrize("name", ["cascade", "auto"])
@pytest.mark.parametrize("role", ["first", "then"])
def test_nested_routers_are_rejected(role, name):
    with pytest.raises(UserError, match=f"cascade cannot hand a question on to {name}"):
        create_strategy("cascade", {role: name})


async def test_missing_capability_is_reported_before_any_call(store):
    runs = two_models(store, kind=partial(ScriptedModel, changed={"scoring": False}))
    with pytest.raises(CapabilityMissing, match="model 's/small' cannot do 'scoring'"):
        await runs.solve(strategy="cascade", question=Question(text="?", choices=("4", "5")), first="logprob")
    assert runs.small.made == []


async def test_without_a_small_model_the_main_model_answers_twice(store):
    runs = RunHarness(store, ScriptedModel(SPLIT))
    solution = await runs.solve("cascade", QUESTION, threshold=1.0)
    assert [d for d in runs.run.degraded if d.startswith("no small model")]
    assert set(solution.notes["tokens"]) == {"main:scripted"}
    assert len(runs.model.made) == 9


# -- budgets, interruptions, replay


async def test_budget_holds_and_the_small_answer_is_kept(store):
    runs = two_models(store, SPLIT)
    chains = {"first_parameters": {"n": 4, "max_tokens": 20}, "then_parameters": {"max_tokens": 60}, "threshold": 1.0}
    stood = set()
    for tokens in range(1, 190, 9):
        chains["budget"] = Budget(tokens=tokens)
        solution = await solve(runs, f"r{tokens}", **chains)
        assert runs.spent.completion_tokens <= tokens
        assert sum(solution.notes["tokens"].values()) == runs.spent.completion_tokens
        answer = None if solution.best is None else solution.best.answer
        assert answer in (None, "4", "5", "6")
        if solution.notes["answered"] == "small":
            assert solution.stopped == "budget"
        stood.add((solution.notes["answered"], answer is not None, solution.stopped))
        assert await solve(runs, f"r{tokens}", replay=True, **chains) == solution
    # a chain that the budget cuts leaves a part of it, which the large model gets
    without_answer = {("small", False, "budget"), ("large", False, "budget")}
    assert stood == {*without_answer, ("small", True, "budget"), ("large", True, "done")}


async def test_cancelled_run_has_the_small_answer_and_resumes(store):
    runs = two_models(store, SPLIT)
    begun = asyncio.Event()

    async def hold():
        begun.set()
        await asyncio.Event().wait()

    runs.large._step = hold
    asked = asyncio.ensure_future(solve(runs, threshold=1.0))
    await begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert runs.run.best.best.answer in ("4", "5", "6")
    runs.large._step, made = None, len(runs.small.made)
    solution = await solve(runs, threshold=1.0)
    assert (solution.best.answer, solution.stopped, len(runs.small.made)) == ("4", "done", made)


async def test_small_model_generates_and_judges_itself(store):
    runs = two_models(store)
    await runs.begin(strategy="cascade")
    small, large = runs.models.small, runs.models.main
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


async def test_a_turn_whose_changes_the_small_model_is_not_sure_of_is_the_large_models(store):
    write = WEATHER.model_copy(update={"effect": "write"})
    question = QUESTION.model_copy(update={"tools": (write,)})
    divided = replies(calling(city="Rome"), calling(city="Oslo"), calling(city="Bonn"), weights=[1, 1, 1])
    runs = TwoModels(
        store, ToolModel(divided, name="s/small"), ToolModel(replies(calling(city="Rome")), name="s/large")
    )
    parameters = {"first_parameters": {"n": 6}, "seed": 5}
    solution = await runs.solve("r", strategy="cascade", question=question, **parameters)
    assert [call.arguments for call in solution.best.tool_calls] == ['{"city": "Rome"}']
    assert solution.notes["why"] == "the small model's samples do not agree on what to change"
    assert (len(runs.large.made), runs.run.degraded) == (1, [])
    runs = TwoModels(store, ToolModel(replies(calling(city="Oslo")), name="s/small"), ToolModel(SURE, name="s/large"))
    solution = await runs.solve("s", strategy="cascade", question=question, **parameters)
    assert [call.arguments for call in solution.best.tool_calls] == ['{"city": "Oslo"}']
    assert (len(runs.large.made), solution.confidence) == (0, 1.0)
    with pytest.raises(UserError, match="strategy fusion does not support tools"):
        await runs.solve("t", strategy="cascade", question=question, then="fusion", seed=5)
