"""Early exit: thoughts in segments, trial answers, and the rule that ends a thought at one of them."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.messages import Prompt, SamplingParams
from reason.core.types import Question
from reason.reasoning.prompts import ANSWER_TRIGGERS
from reason.reasoning.sampling import sample_chains
from reason.reasoning.stopping import Agreement, EarlyExit, Tally, TrialTally
from reason.reasoning.strategy import Models, create_strategy
from support.scripted_model import ALWAYS_THINKS, CLOSE, END, THINKS, ScriptedModel, replies
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")
TRIGGER = ANSWER_TRIGGERS["number"]
TRIAL_TOKENS = len(" 4") + 1
"""Tokens of a trial answer, with the end of text."""


def thinks(answers, *, length=1000, first=None, sure=1.0):
    """The script of a thought of letters whose trial answers depend on its length so far.

    Args:
        answers: The answer to a thought of at least so many letters.
        length: Letters of the complete thought.
        first: Probabilities of the first letter, which is repeated; "a" by default.
        sure: Probability of the digit in a trial answer.
    """

    def script(text):
        written = text.rpartition("assistant: <think>")[2]
        thought, closed, answer = written.partition(CLOSE)
        if not closed:
            if len(thought) >= length:
                return {CLOSE: 1.0}
            return {thought[0]: 1.0} if thought else first or {"a": 1.0}
        digit = answers(thought) if callable(answers) else answers[max(n for n in answers if n <= len(thought))]
        if not answer.startswith(TRIGGER):
            return replies(f"The answer is {digit}.")(text)
        stated = answer[len(TRIGGER) :]
        if stated == " ":
            return {str(digit): sure, "0": 1 - sure} if sure < 1 else {str(digit): 1.0}
        return {END: 1.0} if stated else {" ": 1.0}

    return script


class Harness(RunHarness):
    async def solve(self, name="cot", *, run="r", budget=None, effort=None, **parameters):
        model = await self.begin(run, strategy=name, question=QUESTION, budget=budget, seed=3)
        strategy, _ = create_strategy(name, parameters)
        return await strategy.solve(QUESTION, Models({"main": model}), self.run)

    async def draw(self, rule, *, n=6, name="r", budget=None, mode="rounds", width=None, thinking_tokens=400):
        model = await self.begin(name, strategy="self-consistency", question=QUESTION, budget=budget, seed=3)
        sampling = SamplingParams(n=n, max_tokens=40, thinking_tokens=thinking_tokens)
        return await sample_chains(model, PROMPT, sampling, QUESTION, self.run, rule=rule, mode=mode, width=width)


# -- the rule


def test_the_rule_ends_a_thought_at_equal_answers_in_a_row():
    rule = EarlyExit(agree=3)
    assert not rule.should_exit(TrialTally())
    assert not rule.should_exit(TrialTally((0, 0), (None, None)))
    assert rule.should_exit(TrialTally((0, 0, 0), (None,) * 3))
    assert rule.should_exit(TrialTally((1, 0, 0, 0), (None,) * 4))
    assert not rule.should_exit(TrialTally((0, 0, 1), (None,) * 3))
    assert not rule.should_exit(TrialTally((None, None, None), (1.0,) * 3))


def test_the_rule_ends_a_thought_at_a_confident_answer():
    rule = EarlyExit(agree=None, confidence=0.9)
    assert not rule.should_exit(TrialTally((0,), (0.89,)))
    assert rule.should_exit(TrialTally((0, 1), (0.2, 0.9)))
    assert not rule.should_exit(TrialTally((0, 0, 0), (None,) * 3))
    assert EarlyExit(agree=2, confidence=0.9).should_exit(TrialTally((0, 0), (0.1, 0.1)))


def test_the_rule_needs_a_condition_and_stops_chains_by_another_rule():
    with pytest.raises(ValidationError, match="needs agree or confidence"):
        EarlyExit(agree=None)
    tally = Tally(labels=(0, 0, 0), max_samples=8)
    assert not EarlyExit().should_stop(tally)
    rule = EarlyExit(chains={"rule": "agreement", "window": 3})
    assert rule.chains == Agreement(window=3)
    assert rule.should_stop(tally)
    assert EarlyExit(chains="beta").round_size(Tally(max_samples=8), 8) == 4


# -- one chain


async def test_a_thought_ends_at_the_third_equal_trial_answer(store):
    model = ScriptedModel(thinks({0: 3, 8: 4}), profile=THINKS)
    harness = Harness(store, model)
    solution = await harness.solve(stopping={"rule": "early-exit", "probe_tokens": 5})
    best = solution.best
    # trials at 5 (3), 10, 15 and 20 tokens (4)
    assert (best.answer, best.text, best.thought) == ("4", f"{TRIGGER} 4", "a" * 20)
    assert (best.thinking_tokens, best.tokens, solution.stopped) == (20, 20 + TRIAL_TOKENS, "done")
    assert solution.notes["early_exit"] == {
        "trials": 4,
        "trial_tokens": 3 * TRIAL_TOKENS,
        "chains": [
            {
                "sample": 0,
                "at": [5, 10, 15, 20],
                "answers": ["3", "4", "4", "4"],
                "confidence": [1.0] * 4,
                "exited": True,
            }
        ],
    }
    assert harness.spent.completion_tokens == 20 + 4 * TRIAL_TOKENS
    assert harness.spent.thinking_tokens == 20
    assert harness.spent.model_calls == 8
    user = f"user: {harness.model.generate_calls[0][0].prompt.messages[0].content}\nassistant: <think>"
    assert [rendered for rendered, _ in model.made][:4] == [
        user,
        f"{user}aaaaa{CLOSE}{TRIGGER}",
        f"{user}aaaaa",
        f"{user}{'a' * 10}{CLOSE}{TRIGGER}",
    ]
    (note,) = [e for e in harness.sink.of_type("strategy.note") if e.name == "thought.trials"]
    assert note.data == solution.notes["early_exit"]["chains"][0]


async def test_a_replay_makes_no_call_and_gives_the_same(store):
    harness = Harness(store, ScriptedModel(thinks({0: 3, 8: 4}), profile=THINKS))
    parameters = {"stopping": {"rule": "early-exit", "probe_tokens": 5}}
    first = await harness.solve(**parameters)
    made = len(harness.model.made)
    assert await harness.solve(**parameters) == first
    assert len(harness.model.made) == made


async def test_a_thought_that_ends_by_itself_is_followed_by_its_own_answer(store):
    harness = Harness(store, ScriptedModel(thinks({0: 3, 8: 4, 12: 5}, length=13), profile=THINKS))
    solution = await harness.solve(stopping={"rule": "early-exit", "probe_tokens": 5}, logprobs=True)
    best = solution.best
    assert (best.answer, best.text, best.thought) == ("5", "The answer is 5.", "a" * 13)
    assert best.thinking_tokens == 14  # and the end of the thought
    assert best.tokens == 14 + len(best.text) + 1
    assert best.logprob == 0.0
    assert solution.notes["early_exit"]["chains"][0]["exited"] is False
    assert harness.spent.completion_tokens == best.tokens + 2 * TRIAL_TOKENS


async def test_a_confident_trial_answer_ends_the_thought(store):
    model = ScriptedModel(thinks({0: 4}, sure=0.729), profile=THINKS)
    solution = await Harness(store, model).solve(
        stopping={"rule": "early-exit", "probe_tokens": 5, "agree": None, "confidence": 0.9}
    )
    assert solution.best.thought == "a" * 5
    (confidence,) = solution.notes["early_exit"]["chains"][0]["confidence"]
    assert confidence == pytest.approx(math.exp(math.log(0.729) / 3))  # a blank, the digit, the end: 0.9


async def test_the_cap_of_the_thought_ends_it_with_its_last_trial_answer(store):
    harness = Harness(store, ScriptedModel(thinks(lambda thought: len(thought) % 7), profile=THINKS))
    sample_set = await harness.draw(EarlyExit(probe_tokens=5), n=1, thinking_tokens=12)
    (candidate,) = sample_set.candidates
    assert (candidate.answer, candidate.thought, candidate.thinking_tokens) == ("5", "a" * 12, 12)
    assert sample_set.trials["trials"] == 3
    assert harness.spent.completion_tokens == 12 + 3 * TRIAL_TOKENS


async def test_the_budget_ends_the_thought_with_its_answer_and_is_never_overspent(store):
    harness = Harness(store, ScriptedModel(thinks(lambda thought: len(thought) % 7), profile=THINKS))
    for tokens in (60, 90, 200):
        solution = await harness.solve(
            run=f"t{tokens}", stopping={"rule": "early-exit", "probe_tokens": 5}, budget=Budget(tokens=tokens)
        )
        assert solution.stopped == "budget"
        assert solution.best.answer is not None
        assert harness.spent.completion_tokens <= tokens
    solution = await harness.solve(
        run="thinking", stopping={"rule": "early-exit", "probe_tokens": 5}, budget=Budget(thinking_tokens=12)
    )
    assert (solution.stopped, solution.best.thought, solution.best.answer) == ("budget", "a" * 10, "3")
    assert harness.run.ledger.exhausted == "thinking_tokens"


async def test_calls_that_run_out_leave_the_last_trial_answer(store):
    harness = Harness(store, ScriptedModel(thinks(lambda thought: len(thought) % 7), profile=THINKS))
    solution = await harness.solve(stopping={"rule": "early-exit", "probe_tokens": 5}, budget=Budget(calls=3))
    assert (solution.best.answer, solution.best.thought, solution.stopped) == ("5", "a" * 10, "budget")


async def test_a_thought_of_exact_tokens_is_continued_by_them(store):
    model = ScriptedModel(thinks({0: 4}), profile=THINKS)
    await Harness(store, model).solve(stopping={"rule": "early-exit", "probe_tokens": 5})
    second, trial = model.generate_calls[2][0].prompt, model.generate_calls[1][0].prompt
    assert second.thought.token_ids == trial.thought.token_ids == tuple(map(ord, "a" * 5))
    assert (second.thought.closed, trial.thought.closed, trial.prefix) == (False, True, TRIGGER)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (None, "does not think in this run"),
        (ALWAYS_THINKS, "continues thoughts exactly, which model 'scripted' does not support"),
    ],
)
async def test_models_whose_thoughts_cannot_be_continued_are_refused_before_any_call(store, profile, message):
    model = ScriptedModel(thinks({0: 4}), profile=profile)
    for name in ("cot", "self-consistency"):
        with pytest.raises(UserError, match=message) as caught:
            await Harness(store, model).solve(name, run=name, stopping="early-exit")
        assert "leave stopping unset" in caught.value.hint
    assert model.generate_calls == []


# -- several chains

BOTH = {"a": 0.7, "b": 0.3}


async def test_chains_advance_together_and_each_ends_by_its_own_answers(store):
    # thoughts of b agree from the beginning, those of a only from 10 tokens on
    script = thinks(lambda thought: 4 if thought[0] == "b" or len(thought) > 9 else len(thought), first=BOTH)
    harness = Harness(store, ScriptedModel(script, profile=THINKS))
    sample_set = await harness.draw(EarlyExit(probe_tokens=5, agree=2))
    lengths = {c.thought[0]: len(c.thought) for c in sample_set.candidates}
    assert lengths == {"a": 15, "b": 10}
    assert [c.sample_index for c in sample_set.completions] == list(range(6))
    assert all(c.answer == "4" for c in sample_set.candidates)
    assert sample_set.num_calls == len(harness.model.generate_calls) == 6  # three segments, and three rounds of trials
    record = sample_set.notes(EarlyExit())["early_exit"]
    own = sum(c.tokens for c in sample_set.candidates)
    assert own + record["trial_tokens"] == harness.spent.completion_tokens


async def test_a_race_of_thoughts_ends_when_enough_chains_agree_and_replays(store):
    script = thinks(lambda thought: 4 if thought[0] == "b" else len(thought) % 9, first=BOTH)
    harness = Harness(store, ScriptedModel(script, profile=THINKS))
    rule = EarlyExit(probe_tokens=5, agree=2, chains=Agreement(window=2))
    sample_set = await harness.draw(rule, n=8, mode="race", width=4)
    assert sample_set.stopped_early
    assert [c.answer for c in sample_set.candidates] == ["4"] * len(sample_set.candidates)
    assert sample_set.cancelled
    assert sample_set.num_requested == len(sample_set.candidates) + len(sample_set.cancelled)
    cancelled = sum(c.usage.completion_tokens for c in sample_set.cancelled)
    own = sum(c.tokens for c in sample_set.candidates)
    assert own + cancelled + sample_set.trials["trial_tokens"] == harness.spent.completion_tokens
    made = len(harness.model.made)
    again = await harness.draw(rule, n=8, mode="race", width=4)
    assert (again.completions, again.cancelled) == (sample_set.completions, sample_set.cancelled)
    assert len(harness.model.made) == made


async def test_rounds_of_thoughts_take_no_more_chains_than_the_rule_needs(store):
    harness = Harness(store, ScriptedModel(thinks({0: 4}), profile=THINKS))
    sample_set = await harness.draw(EarlyExit(probe_tokens=5, chains="beta"), n=16)
    assert sample_set.stopped_early
    assert len(sample_set.candidates) == 4


async def test_a_budget_for_some_chains_gives_their_answers(store):
    harness = Harness(store, ScriptedModel(thinks(lambda thought: len(thought) % 7), profile=THINKS))
    sample_set = await harness.draw(EarlyExit(probe_tokens=5), n=6, budget=Budget(tokens=300), thinking_tokens=60)
    assert sample_set.stopped == "budget"
    assert harness.spent.completion_tokens <= 300
    assert all(c.answer is not None for c in sample_set.candidates)
    assert sample_set.candidates


# -- the user wants the answer now


async def test_the_answer_now_is_the_last_trial_answer(store):
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps == 5 + 3 + 5 + 3 + 2:  # two segments with their trials, and two tokens of the third segment
            harness.run.conclude()

    harness = Harness(store, ScriptedModel(thinks(lambda thought: len(thought) % 7), profile=THINKS, step=step))
    solution = await harness.solve(stopping={"rule": "early-exit", "probe_tokens": 5})
    best = solution.best
    assert best.answer == "3"
    assert 10 < len(best.thought) < 15  # the model notices within a token or two
    assert harness.model.running == 0
    assert harness.spent.thinking_tokens == len(best.thought)
