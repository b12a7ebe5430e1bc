"""The strategy `adaptive` on a model whose answers and judgements are known exactly."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.run import Run, RunConfig
from reason.core.types import Question
from reason.reasoning.adaptive import Adaptive, annealed_temperature, select_survivors
from reason.reasoning.prompts import ANSWER_TRIGGERS
from reason.reasoning.self_evaluation import EvaluationPrompts
from reason.reasoning.stopping import SelfEvaluated, Tally
from reason.reasoning.strategy import Models
from reason.serving.metered.model import MeteredModel
from support.scripted_model import ALWAYS_THINKS, CLOSE, END, OPEN, THINKS, ScriptedModel, replies

RESTART, RIGHT = zip(*(EvaluationPrompts().pair(unfinished) for unfinished in (False, True)), strict=True)
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


async def solve(store, model, *, name="r", seed=3, budget=None, new=True, begun=None, **parameters):
    config = RunConfig(
        question=QUESTION,
        strategy="adaptive",
        parameters={},
        models={"main": "scripted"},
        budget=budget or Budget(),
        seed=seed,
    )
    if new:
        await store.create_run(name, {})
    sink = MemorySink()
    run = Run(name, config, store, sinks=[sink])
    if begun is not None:
        begun.append(run)
    models = Models({"main": MeteredModel(model, "main", run)})
    strategy = Adaptive(Adaptive.Config(**parameters))
    return await strategy.solve(QUESTION, models, run), run, sink


MIXED = judging({"4": 0.3, "5": 0.5, "6": 0.2}, {"4": 0.9, "5": 0.2, "6": 0.1})


async def test_a_threshold_of_nothing_is_one_greedy_sample(store):
    model = ScriptedModel(MIXED)
    solution, run, _ = await solve(store, model, threshold=0)
    assert [c.answer for c in solution.candidates] == ["5"]  # the most likely text
    (request,) = model.generate_calls[0]
    assert (request.sampling.temperature, request.sampling.default_temperature) == (None, 0)
    assert len(model.generate_calls) == 1
    assert run.degraded == []


async def test_a_threshold_above_one_is_best_of_all(store):
    model = ScriptedModel(MIXED)
    solution, _, _ = await solve(store, model, threshold=1.1, n=16, select="best")
    assert len(solution.candidates) == 16
    assert [len(call) for call in model.generate_calls] == [1, 1, 2, 4, 8]
    assert solution.best.answer == "4"
    assert solution.chosen == min(i for i, c in enumerate(solution.candidates) if c.answer == "4")  # the earliest
    assert solution.confidence == pytest.approx(solution.candidates[solution.chosen].score)


async def test_it_stops_at_the_first_sample_that_is_good_enough(store):
    model = ScriptedModel(MIXED)
    solution, _, _ = await solve(store, model, threshold=0.85, n=64)
    everything, _, _ = await solve(store, ScriptedModel(MIXED), threshold=1.1, n=64, name="all")
    first = [c.answer for c in everything.candidates].index("4")
    used = len(solution.candidates)
    assert first < used <= max(1, 2 * first)  # the round in which it came
    assert solution.candidates == everything.candidates[:used]


async def test_temperatures_rise_as_the_paper_s(store):
    model = ScriptedModel(MIXED)
    await solve(store, model, threshold=1.1, n=5, t_max=0.8)
    last_message = [r.sampling.temperature for call in model.generate_calls for r in call]
    assert last_message == pytest.approx([0, 0.4, 0.6, 0.7, 0.75])
    assert [annealed_temperature(k, 1.0) for k in (1, 2, 3)] == [0, 0.5, 0.75]


async def test_classes_are_weighed_by_quality(store):
    # 5 is reached most often, but the model does not believe it
    model = ScriptedModel(MIXED)
    by_class, _, _ = await solve(store, model, threshold=1.1, n=32)
    counts = [c.answer for c in by_class.candidates]
    assert counts.count("5") > counts.count("4")
    assert by_class.best.answer == "4"
    weights = {a: math.fsum(c.score for c in by_class.candidates if c.answer == a) for a in ("4", "5", "6")}
    assert by_class.confidence == pytest.approx(weights["4"] / sum(weights.values()))


async def test_an_uncalibrated_signal_stops_nothing_without_a_threshold(store):
    sure = judging({"4": 1.0}, {"4": 0.999})
    solution, run, _ = await solve(store, ScriptedModel(sure), n=16)
    assert len(solution.candidates) == 4  # what the Beta rule needs
    assert "not calibrated" in run.degraded[0]
    calibrated, run, _ = await solve(store, ScriptedModel(sure), n=16, beta=0.9, name="c")
    assert len(calibrated.candidates) == 1
    assert run.degraded == []


async def test_evaluating_changes_no_sample(store):
    silent = judging({"4": 0.3, "5": 0.5, "6": 0.2}, {})
    one, _, _ = await solve(store, ScriptedModel(MIXED), threshold=1.1, n=8, name="a")
    other, _, _ = await solve(store, ScriptedModel(silent), threshold=1.1, n=8, name="b")
    assert [c.text for c in one.candidates] == [c.text for c in other.candidates]


async def test_a_resumed_run_pays_nothing_twice(store):
    model = ScriptedModel(MIXED)
    first, _, _ = await solve(store, model, threshold=1.1, n=8)
    made = len(model.made)
    again, run, _ = await solve(store, model, threshold=1.1, n=8, new=False)
    assert again == first
    assert len(model.made) == made
    usage = run.ledger.usage()
    assert usage.replayed_tokens == usage.completion_tokens


async def test_a_small_budget_gives_the_best_so_far(store):
    solution, run, _ = await solve(store, ScriptedModel(MIXED), threshold=1.1, max_tokens=20, budget=Budget(tokens=60))
    assert solution.stopped == "budget"
    assert solution.best is not None
    assert run.ledger.usage().completion_tokens <= 60


# -- pruning


def long_text(answer):
    """All of the same length, and different from the first character on."""
    return f"{answer} it is, I am sure. The answer is {answer}."


LONG = len(long_text("4")) + 1  # and the end of text
MEASURED = {"beta": 0.9, "auroc": 0.7}
"""A calibrated self-evaluation that ranks partial samples well enough to prune by it."""


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
    model = ScriptedModel(script)
    solution, run, sink = await solve(store, model, n=8, max_tokens=80, prune_at=[10, 20], keep=0.5, **MEASURED)
    assert run.ledger.usage().completion_tokens == pruned_tokens(8, LONG, [10, 20], 0.5)
    assert len(solution.candidates) == 2
    unpruned, _, _ = await solve(store, ScriptedModel(script), n=8, max_tokens=80, prune_at=[79], keep=1, name="whole")
    begun = [c.text[0] for c in unpruned.candidates]
    assert "4" in begun
    assert solution.candidates[0].answer == "4"
    assert [n.data["checkpoint"]["live"] for n in sink.of_type("strategy.note")] == [8, 4]
    assert model.running == 0


async def test_keeping_all_prunes_nothing(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.9, "5": 0.2}, long_text)
    solution, run, _ = await solve(store, ScriptedModel(script), n=6, max_tokens=80, prune_at=[12], keep=1)
    assert len(solution.candidates) == 6
    assert run.ledger.usage().completion_tokens == 6 * LONG
    assert all(c.text == long_text(c.answer) for c in solution.candidates)


async def test_what_is_finished_before_a_checkpoint_is_never_pruned(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.01, "5": 0.01})
    solution, _, _ = await solve(store, ScriptedModel(script), n=6, max_tokens=80, prune_at=[40], keep=0.1, **MEASURED)
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
    pruning = {"n": 6, "max_tokens": 80, "prune_at": [10, 20], "keep": 0.5, **MEASURED}
    solution, run, sink = await solve(store, ScriptedModel(script), **{**pruning, **changed})
    assert len(solution.candidates) == 6
    assert run.ledger.usage().completion_tokens == 6 * LONG
    (note,) = [what for what in run.degraded if "no sample was ended early" in what]
    assert reason in note
    assert sink.of_type("strategy.note") == []  # the partial samples were not even judged


async def test_the_judgements_at_a_checkpoint_are_recorded_by_sample(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.9, "5": 0.2}, long_text)
    solution, run, _ = await solve(store, ScriptedModel(script), n=12, max_tokens=80, prune_at=[12], keep=1)
    (checkpoint,) = solution.notes["pruned"]
    assert solution.notes["indices"] == list(range(12))
    by_answer = {c.answer: checkpoint["quality"][str(i)] for i, c in enumerate(solution.candidates)}
    assert by_answer["4"] > by_answer["5"]
    assert not any("ended early" in what for what in run.degraded)


async def test_a_budget_that_ends_while_pruning_keeps_the_beginnings(store):
    script = judging({"4": 0.5, "5": 0.5}, {"4": 0.9, "5": 0.2}, long_text)
    budget = Budget(tokens=130)
    solution, run, _ = await solve(
        store, ScriptedModel(script), n=8, max_tokens=80, prune_at=[12], keep=1, budget=budget
    )
    assert solution.stopped == "budget"
    assert solution.candidates
    assert run.ledger.usage().completion_tokens <= 130


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


def test_the_spec_s_example():
    assert pruned_tokens(16, 512, [128], 0.25) == 128 * 16 + 384 * 4 == 3584
    assert pruned_tokens(16, 100, [128], 0.25) == 1600


def test_checkpoints_must_rise():
    with pytest.raises(ValidationError, match="must rise"):
        Adaptive.Config(prune_at=[20, 10])


# -- early exit

TRIGGER = ANSWER_TRIGGERS["number"]
TRIAL_TOKENS = len(" 4") + 1
"""Tokens of a trial answer, with the end of text."""
EXIT = {"rule": "early-exit", "probe_tokens": 5, "agree": 2}


def deliberating(answer, *, first=None, lengths=None, believed=0.5):
    """A script of thoughts of one repeated letter, after which the answer depends on the thought.

    Args:
        answer: The answer after a thought.
        first: Probabilities of the letter; "a" by default.
        lengths: Length of the complete thought by letter; without one it does not end.
        believed: Probability with which any answer is affirmed.
    """

    def script(text):
        context, _, written = text.rpartition("assistant: ")
        last_message = context.rpartition("\nuser: ")[2].strip()
        if last_message in RESTART + RIGHT:
            yes = 1 - believed if last_message in RESTART else believed
            return {"Y": yes, "N": 1 - yes}
        thought, closed, _ = written.removeprefix(OPEN).partition(CLOSE)
        if closed:
            return replies(f"{TRIGGER} {answer(thought)}")(text)
        if thought and len(thought) >= (lengths or {}).get(thought[0], math.inf):
            return {CLOSE: 1.0}
        return {thought[0]: 1.0} if thought else first or {"a": 1.0}

    return script


async def test_the_thought_of_a_sample_ends_at_equal_trial_answers(store):
    model = ScriptedModel(deliberating(lambda thought: 4 if len(thought) > 9 else len(thought)), profile=THINKS)
    solution, run, sink = await solve(store, model, threshold=0, stopping=EXIT)
    best = solution.best
    # trials at 5 (5), 10 and 15 tokens (4)
    assert (best.answer, best.text, best.thought) == ("4", f"{TRIGGER} 4", "a" * 15)
    assert (best.thinking_tokens, best.tokens, solution.stopped) == (15, 15 + TRIAL_TOKENS, "done")
    record = {"sample": 0, "at": [5, 10, 15], "answers": ["5", "4", "4"], "confidence": [1.0] * 3, "exited": True}
    assert solution.notes["early_exit"] == {"trials": 3, "trial_tokens": 2 * TRIAL_TOKENS, "chains": [record]}
    assert [e.data for e in sink.of_type("strategy.note")] == [record]
    usage = run.ledger.usage()
    assert (usage.completion_tokens, usage.thinking_tokens) == (15 + 3 * TRIAL_TOKENS, 15)
    assert run.degraded == []


async def test_the_samples_of_a_round_think_in_step_and_a_resumed_run_repeats_them(store):
    # thoughts of b agree from the beginning, those of a only from 10 tokens on
    script = deliberating(
        lambda thought: 4 if thought[0] == "b" or len(thought) > 9 else len(thought), first={"a": 0.7, "b": 0.3}
    )
    model = ScriptedModel(script, profile=THINKS)
    solution, run, _ = await solve(store, model, threshold=1.1, n=8, stopping=EXIT)
    assert [c.answer for c in solution.candidates] == ["4"] * 8
    assert {c.thought[0]: len(c.thought) for c in solution.candidates} == {"a": 15, "b": 10}
    assert [record["sample"] for record in solution.notes["early_exit"]["chains"][:2]] == [0, 1]
    own = sum(c.tokens for c in solution.candidates)
    assert own + solution.notes["early_exit"]["trial_tokens"] == run.ledger.usage().completion_tokens
    segments = [call for call in model.generate_calls if not call[0].prompt.thought.closed]
    first = [[r.sample_indices[0] for r in call] for call in segments if not call[0].prompt.thought.text]
    assert first == [[0], [1], [2, 3], [4, 5, 6, 7]]
    made = len(model.made)
    again, _, _ = await solve(store, model, threshold=1.1, n=8, stopping=EXIT, new=False)
    assert again == solution
    assert len(model.made) == made


async def test_the_rule_over_chains_stops_the_rounds_besides_quality(store):
    script = deliberating(lambda thought: 4, believed=0.3)
    rule = EXIT | {"chains": {"rule": "agreement", "window": 2}}
    solution, _, _ = await solve(store, ScriptedModel(script, profile=THINKS), threshold=0.9, stopping=rule)
    assert len(solution.candidates) == 2
    solution, _, _ = await solve(
        store, ScriptedModel(script, profile=THINKS), threshold=0.9, n=4, stopping=EXIT, name="all"
    )
    assert len(solution.candidates) == 4


async def test_each_thought_keeps_the_temperature_of_its_sample(store):
    model = ScriptedModel(deliberating(lambda thought: 4), profile=THINKS)
    await solve(store, model, threshold=1.1, n=4, t_max=0.8, stopping=EXIT)
    by_sample = {}
    for request in (r for call in model.generate_calls for r in call if not r.prompt.thought.closed):
        by_sample.setdefault(request.sample_indices[0], []).append(request.sampling.temperature)
    assert by_sample == {k: [pytest.approx(annealed_temperature(k + 1, 0.8))] * 2 for k in range(4)}


@pytest.mark.parametrize("budget", [{"tokens": 60}, {"tokens": 150}, {"thinking_tokens": 32}, {"calls": 5}])
async def test_a_budget_that_ends_inside_thoughts_leaves_their_last_trial_answers(store, budget):
    model = ScriptedModel(deliberating(lambda thought: len(thought) % 7), profile=THINKS)
    solution, run, _ = await solve(store, model, threshold=1.1, stopping=EXIT, budget=Budget(**budget))
    usage = run.ledger.usage()
    assert solution.stopped == "budget"
    assert solution.best.answer is not None
    assert usage.completion_tokens <= budget.get("tokens", math.inf)
    assert usage.thinking_tokens <= budget.get("thinking_tokens", math.inf)
    assert run.ledger.exhausted == next(iter(budget))


async def test_the_answer_now_is_the_last_trial_answer(store):
    begun, steps = [], 0

    def step():
        nonlocal steps
        steps += 1
        if steps == 5 + 3 + 5 + 3 + 2:  # two segments with their trials, and two tokens of the third segment
            begun[0].conclude()

    model = ScriptedModel(deliberating(lambda thought: len(thought) % 7), profile=THINKS, step=step)
    solution, run, _ = await solve(store, model, threshold=1.1, stopping=EXIT, begun=begun)
    assert solution.best.answer == "3"
    assert 10 < len(solution.best.thought) < 15  # the model notices within a token or two
    assert (len(solution.candidates), run.ledger.exhausted) == (1, "user")
    assert model.running == 0


async def test_pruning_ends_no_sample_whose_thought_was_ended_early(store):
    # thoughts of a end by themselves after 3 tokens, before a trial; those of b end at their second trial answer
    script = deliberating(
        lambda thought: "4" if thought[0] == "b" else "5, and that is beyond any doubt of mine",
        first={"a": 0.7, "b": 0.3},
        lengths={"a": 3},
    )
    model = ScriptedModel(script, profile=THINKS)
    solution, run, _ = await solve(
        store, model, n=6, max_tokens=80, prune_at=[30], keep=0.1, select="best", stopping=EXIT, **MEASURED
    )
    thoughts = [c.thought for c in solution.candidates]
    exited, own = thoughts.count("b" * 10), thoughts.count("aaa")
    assert own == 1
    assert 0 < exited == len(solution.candidates) - 1 < 5
    (pruned,) = solution.notes["pruned"]
    assert (pruned["at"], pruned["live"], len(pruned["ended"])) == (30, 6 - exited, 5 - exited)
    assert solution.notes["early_exit"]["trials"] == 2 * exited
    spent = sum(c.tokens for c in solution.candidates) + solution.notes["early_exit"]["trial_tokens"]
    assert run.ledger.usage().completion_tokens == spent + len(pruned["ended"]) * (len("aaa") + 1 + 30)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, "does not think in this run"),
        (ALWAYS_THINKS, "continues thoughts exactly, which model 'scripted' does not support"),
    ],
)
async def test_early_exits_are_refused_before_any_call_where_thoughts_cannot_be_continued(store, profile, message):
    model = ScriptedModel(deliberating(lambda thought: 4), profile=profile)
    with pytest.raises(UserError, match=message) as caught:
        await solve(store, model, stopping="early-exit")
    assert caught.value.param == "stopping"
    assert "leave stopping unset" in caught.value.hint
    assert model.generate_calls == []


def test_parameters_without_an_early_exit_are_dumped_without_it():
    assert "stopping" not in Adaptive.Config(n=4).model_dump()
    assert Adaptive.Config(stopping="early-exit").model_dump()["stopping"]["agree"] == 3
    with pytest.raises(ValidationError, match="stopping"):
        Adaptive.Config(stopping="beta")


# -- the closed form of a perfect signal


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 0.9), st.integers(1, 12), st.integers(0, 2**31))
def test_a_perfect_signal_is_geometric_sampling(chance, most, seed):
    """Spec g.9: with a threshold between 1 - c and 1, E[k] = (1 - (1-c)^N) / c and accuracy 1 - (1-c)^N."""
    import numpy as np

    rng = np.random.default_rng(seed)
    rule, trials = SelfEvaluated(threshold=1 - chance / 2), 1500
    used, right = [], []
    for _ in range(trials):
        quality = []
        while len(quality) < most:
            quality.append(1.0 if rng.random() < chance else 1 - chance)
            tally = Tally((0,) * len(quality), (1.0,) * len(quality), tuple(quality), (None,) * len(quality), most)
            if rule.should_stop(tally):
                break
        used.append(len(quality))
        right.append(max(quality) == 1.0)
    expected = 1 - (1 - chance) ** most
    assert np.mean(right) == pytest.approx(expected, abs=6 * math.sqrt(0.25 / trials))
    assert np.mean(used) == pytest.approx(expected / chance, abs=6 * np.std(used) / math.sqrt(trials) + 1e-9)
