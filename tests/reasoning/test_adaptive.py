"""The strategy `adaptive` on a model whose answers and judgements are known exactly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.budget import Budget
from reason.core.types import Question
from reason.reasoning.adaptive import Adaptive, annealed_temperature, select_survivors
from reason.reasoning.self_evaluation import evaluation_questions
from support.scripted_model import END, ScriptedModel
from support.stored_runs import RunHarness

RESTART, RIGHT = zip(*(evaluation_questions(unfinished) for unfinished in (False, True)), strict=True)
QUESTION = Question(text="What is 2 + 2?", kind="number")


def judging(answers, believed, text_of=lambda answer: f"The answer is {answer}."):
    """A script with these answer probabilities that affirms "correct?" with the believed probability."""

    def script(text):
        context, _, written = text.rpartition("assistant: ")
        last_message = context.rpartition("\nuser: ")[2].strip()
        if last_message in RESTART + RIGHT:
            response = context.rpartition("assistant: ")[2].rpartition("\nuser: ")[0]
            chance = next(
                (p for answer, p in believed.items() if text_of(answer)[: max(1, len(response))] == response), 0.5
            )
            yes = 1 - chance if last_message in RESTART else chance
            return {"Y": yes, "N": 1 - yes}
        left = [(text_of(answer) + END, weight) for answer, weight in answers.items()]
        left = [(unpruned, weight) for unpruned, weight in left if unpruned.startswith(written)]
        total = sum(weight for _, weight in left)
        chances = {}
        for unpruned, weight in left:
            chances[unpruned[len(written)]] = chances.get(unpruned[len(written)], 0.0) + weight / total
        return chances or {END: 1.0}

    return script


MIXED = judging({"4": 0.3, "5": 0.5, "6": 0.2}, {"4": 0.9, "5": 0.2, "6": 0.1})


async def solve(store, script=MIXED, **parameters):
    harness = RunHarness(store, ScriptedModel(script))
    return await harness.solve("adaptive", QUESTION, **parameters), harness


async def test_a_threshold_of_nothing_is_one_greedy_sample(store):
    solution, harness = await solve(store, threshold=0)
    assert [c.answer for c in solution.candidates] == ["5"]  # the most likely text
    ((request,),) = harness.model.generate_calls
    assert (request.sampling.temperature, request.sampling.default_temperature) == (None, 0)
    assert harness.run.degraded == []


async def test_it_stops_at_the_first_sample_that_is_good_enough(store):
    solution, _ = await solve(store, threshold=0.85, n=64)
    everything, _ = await solve(store, threshold=1.1, n=64, name="all")
    first = [c.answer for c in everything.candidates].index("4")
    used = len(solution.candidates)
    assert first < used <= max(1, 2 * first)  # the round in which it came
    assert solution.candidates == everything.candidates[:used]


async def test_temperatures_rise_as_the_paper_s(store):
    solution, harness = await solve(store, threshold=1.1, n=16)  # a threshold above one takes all
    assert len(solution.candidates) == 16
    calls = harness.model.generate_calls
    assert [len(call) for call in calls] == [1, 1, 2, 4, 8]
    temperatures = [r.sampling.default_temperature for call in calls for r in call]
    assert temperatures[:5] == pytest.approx([0, 0.5, 0.75, 0.875, 0.9375])
    assert [annealed_temperature(k) for k in (1, 2, 3)] == [0, 0.5, 0.75]


async def test_classes_are_weighed_by_quality(store):
    # 5 is reached most often, but the model does not believe it
    by_class, _ = await solve(store, threshold=1.1, n=32)
    counts = [c.answer for c in by_class.candidates]
    assert counts.count("5") > counts.count("4")
    assert by_class.best.answer == "4"
    weights = {a: math.fsum(c.score for c in by_class.candidates if c.answer == a) for a in ("4", "5", "6")}
    assert by_class.confidence == pytest.approx(weights["4"] / sum(weights.values()))


async def test_an_uncalibrated_signal_stops_nothing_without_a_threshold(store):
    sure = judging({"4": 1.0}, {"4": 0.999})
    solution, harness = await solve(store, sure, n=16)
    assert len(solution.candidates) == 4  # what the Beta rule needs
    assert "not calibrated" in harness.run.degraded[0]
    calibrated, harness = await solve(store, sure, n=16, beta=0.9, name="c")
    assert (len(calibrated.candidates), harness.run.degraded) == (1, [])


async def test_evaluating_changes_no_sample(store):
    silent = judging({"4": 0.3, "5": 0.5, "6": 0.2}, {})
    one, _ = await solve(store, threshold=1.1, n=8, name="a")
    other, _ = await solve(store, silent, threshold=1.1, n=8, name="b")
    assert [c.text for c in one.candidates] == [c.text for c in other.candidates]


# -- pruning


def long_text(answer):
    """All of the same length, and different from the first character on."""
    return f"{answer} it is, I am sure. The answer is {answer}."


LONG = len(long_text("4")) + 1  # and the end of text
MEASURED = {"beta": 0.9, "auroc": 0.7}
"""A calibrated self-evaluation that ranks partial samples well enough to prune by it."""


async def prune(store, script, prune_at, *, keep, **parameters):
    """Samples of at most 80 tokens, pruned at these lengths by a calibrated self-evaluation."""
    return await solve(store, script, max_tokens=80, prune_at=prune_at, keep=keep, **{**MEASURED, **parameters})


def pruned_tokens(samples, length, checkpoints, keep):
    """Tokens generated where every sample would be `length` tokens long.

    `sum_i live_i (t_i - t_(i-1)) + survivors (length - t_last)`; checkpoints at or beyond the length change nothing.
    """
    live, at, total = samples, 0, 0
    for checkpoint in (t for t in checkpoints if t < length):
        total += live * (checkpoint - at)
        live, at = max(1, math.ceil(round(keep * live, 9))), checkpoint
    return total + live * (length - at)


async def test_pruning_costs_match_the_formula(store):
    script = judging({"4": 0.3, "5": 0.5, "6": 0.2}, {"4": 0.9, "5": 0.2, "6": 0.1}, long_text)
    solution, harness = await prune(store, script, [10, 20], n=8, keep=0.5)
    assert harness.spent.completion_tokens == pruned_tokens(8, LONG, [10, 20], 0.5)
    assert len(solution.candidates) == 2
    unpruned, _ = await solve(store, script, n=8, max_tokens=80, prune_at=[79], keep=1, name="whole")
    assert "4" in [c.text[0] for c in unpruned.candidates]
    assert solution.candidates[0].answer == "4"
    assert [n.data["checkpoint"]["live"] for n in harness.sink.of_type("strategy.note")] == [8, 4]
    assert harness.model.running == 0


async def test_what_is_finished_before_a_checkpoint_is_never_pruned(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.01, "5": 0.01})
    solution, _ = await prune(store, script, [40], n=6, keep=0.1)
    assert len(solution.candidates) == 6


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"beta": 1.0}, "the self-evaluation is not calibrated (alpha and beta are unset)"),
        ({"auroc": None}, "it is not known how well the self-evaluation ranks partial samples (auroc is unset)"),
        ({"auroc": 0.6}, "its AUROC is 0.6, and pruning needs more than 0.6"),
    ],
)
async def test_no_sample_is_ended_by_a_signal_that_is_not_known_to_rank_samples(store, changed, reason):
    script = judging({"4": 0.3, "5": 0.7}, {"4": 0.9, "5": 0.2}, long_text)
    solution, harness = await prune(store, script, [10, 20], n=6, keep=0.5, **changed)
    assert len(solution.candidates) == 6
    assert harness.spent.completion_tokens == 6 * LONG
    (note,) = [what for what in harness.run.degraded if "no sample was ended early" in what]
    assert reason in note
    assert harness.sink.of_type("strategy.note") == []  # the partial samples were not even judged


async def test_the_judgements_at_a_checkpoint_are_recorded_by_sample(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.9, "5": 0.2}, long_text)
    solution, harness = await solve(store, script, n=12, max_tokens=80, prune_at=[12], keep=1)
    (checkpoint,) = solution.notes["pruned"]
    assert solution.notes["indices"] == list(range(12))
    by_answer = {c.answer: checkpoint["quality"][str(i)] for i, c in enumerate(solution.candidates)}
    assert by_answer["4"] > by_answer["5"]
    assert not any("ended early" in what for what in harness.run.degraded)
    assert harness.spent.completion_tokens == 12 * LONG


async def test_a_budget_that_ends_while_pruning_keeps_the_beginnings(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.9, "5": 0.2}, long_text)
    limits = {"max_tokens": 80, "budget": Budget(tokens=130)}
    solution, harness = await solve(store, script, n=8, prune_at=[12], keep=1, **limits)
    assert solution.stopped == "budget"
    assert solution.candidates
    assert harness.spent.completion_tokens <= 130


@given(
    st.lists(st.none() | st.integers(0, 1000).map(lambda i: i / 1000), min_size=1, max_size=20),
    st.floats(0.01, 1),
)
def test_survivors_are_the_best_and_never_none(quality, keep):
    survivors = select_survivors(quality, keep)
    assert len(survivors) == max(1, math.ceil(round(keep * len(quality), 9)))
    assert survivors == sorted(set(survivors))
    out = [quality[i] for i in range(len(quality)) if i not in survivors]
    worst = min((-1.0 if quality[i] is None else quality[i]) for i in survivors)
    assert all((-1.0 if q is None else q) <= worst for q in out)
    assert select_survivors([None if q is None else q**3 / 7 for q in quality], keep) == survivors


def test_checkpoints_must_rise():
    with pytest.raises(ValidationError, match="must rise"):
        Adaptive.Config(prune_at=[20, 10])


# -- the closed form of a perfect signal
