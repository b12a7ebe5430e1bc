"""`self-consistency` and the methods of `rpc` on a model whose probabilities are known."""

import math
from functools import partial

import pytest
from reason.core.types import Question
from reason.reasoning.voting import rpc
from reason.reasoning.voting.path_votes import Path, vote
from support.scripted_model import HIDES_THOUGHTS, THINKS, ScriptedModel, replies, thinking
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
# three spellings of 4, each rarer than the one of 5: a vote returns 4, the most probable text is 5
TEXTS = ("The answer is 5.", "Sum: the answer is 4.", "Adding, the answer is 4.", "We get: the answer is 4.")
SPLIT = replies(*TEXTS, weights=[0.4, 0.25, 0.2, 0.15])


class Hiding(ScriptedModel, changed={"logprobs": False, "scoring": False, "top_logprobs": 0}):
    """A model without log-probabilities of its own tokens."""

    async def generate(self, requests, listener=None):
        def bare(chunk):
            completion = chunk.completion and chunk.completion.model_copy(update={"logprobs": None})
            listener(chunk.model_copy(update={"logprobs": (), "completion": completion}))

        made = await super().generate(requests, bare if listener else None)
        return [[c.model_copy(update={"logprobs": None}) for c in chains] for chains in made]


Scoring = partial(Hiding, changed={"scoring": True})


async def solve(store, strategy, model=SPLIT, *, name="r", **parameters):
    """Run `self-consistency`, or a method of `rpc`, on a model or the texts of a script."""
    harness = RunHarness(store, ScriptedModel(model) if callable(model) else model)
    if strategy in ("pc", "ppl"):
        strategy, parameters = "rpc", {"method": strategy, **parameters}
    solution = await harness.solve(strategy, QUESTION, name=name, seed=5, **parameters)
    return solution, harness.run


async def test_the_methods_disagree_as_they_should(store):
    answers = {}
    for name in ("self-consistency", "pc", "ppl", "rpc"):
        solution, run = await solve(store, name, name=name, n=40, temperature=1)
        answers[name] = solution
        assert run.degraded == []
        assert len(solution.candidates) == 40
    assert len({tuple(c.text for c in solution.candidates) for solution in answers.values()}) == 1
    assert answers["ppl"].best.text == "The answer is 5."
    assert answers["ppl"].confidence == pytest.approx(math.exp(math.log(0.4) / 17))
    votes = [c.answer for c in answers["self-consistency"].candidates]
    assert votes.count("4") > votes.count("5")
    assert answers["self-consistency"].best.answer == answers["pc"].best.answer == "4"
    assert answers["self-consistency"].confidence == votes.count("4") / 40
    # four distinct texts: 5 has one of them, 4 the other three, whatever their counts
    p = {t: math.exp(math.log(w) / (len(t) + 1)) for t, w in zip(TEXTS, (0.4, 0.25, 0.2, 0.15), strict=True)}
    assert answers["pc"].confidence == pytest.approx(1 - p[TEXTS[0]] / sum(p.values()))
    assert answers["pc"].notes["vote"]["method"] == "pc"


async def test_rpc_is_the_vote_over_its_own_candidates(store):
    solution, _ = await solve(store, "rpc", n=64, temperature=1.3)
    paths = [Path(c.text, c.answer, c.logprob / c.tokens) for c in solution.candidates]
    answers = list(dict.fromkeys(c.answer for c in solution.candidates))
    classes = [[i for i, c in enumerate(solution.candidates) if c.answer == a] for a in answers]
    expected = vote(paths, classes, "rpc")
    assert solution.confidence == pytest.approx(expected.confidence)
    assert solution.best.answer == expected.answer
    assert solution.notes["vote"]["pruned"] == list(expected.pruned)
    assert {c.score for c in solution.candidates} == {c.confidence for c in expected.classes}


@pytest.mark.parametrize("name", ["rpc", "pc", "ppl"])
async def test_without_logprobs_it_is_self_consistency_and_reported(store, name):
    solution, run = await solve(store, name, Hiding(SPLIT), n=20)
    plain, _ = await solve(store, "self-consistency", n=20, name="sc")
    assert run.degraded == [f"{name}: no logprobs, used self-consistency"]
    assert (solution.best.answer, solution.confidence) == (plain.best.answer, plain.confidence)
    assert solution.notes["vote"]["method"] == "sc"


async def test_hidden_logprobs_are_had_by_scoring(store):
    solution, run = await solve(store, "ppl", Scoring(SPLIT), n=10)
    assert run.degraded == []
    assert solution.best.text == "The answer is 5."
    # a text that is scored ends without the end of text, whose chance is 1 here
    assert solution.confidence == pytest.approx(math.exp(math.log(0.4) / 16))
    assert run.ledger.usage().model_calls == 2


def answered(answers):
    """The script of the answers to thoughts: what comes after each."""

    def script(text):
        thought = text.rpartition("<think>")[2].partition("</think>")[0]
        return replies(f"The answer is {answers[thought]}.")(text)

    return script


AB_OR_CD = thinking(["ab", "cd"], answered({"ab": 4, "cd": 5}), weights=[0.9, 0.1])


async def test_probabilities_are_those_of_the_answers_and_not_of_the_thoughts(store):
    solution, run = await solve(store, "rpc", ScriptedModel(AB_OR_CD, profile=THINKS), n=12, max_tokens=80)
    # after the thought every token is certain, so all chains have the same weight, and equal ones count once
    by_answer = solution.notes["vote"]["confidences"]
    assert by_answer == {"4": pytest.approx(0.5), "5": pytest.approx(0.5)}
    assert run.ledger.usage().model_calls == 1
    assert run.degraded == ["rpc: fewer than 3 distinct probabilities, nothing pruned"]
    assert {c.logprob for c in solution.candidates} == {0.0}
    model = ScriptedModel(AB_OR_CD, profile=THINKS)
    plain, _ = await solve(store, "rpc", model, n=12, scope="all", max_tokens=80, name="all")
    p = {
        a: math.exp(math.log(w) / 21) for a, w in (("4", 0.9), ("5", 0.1))
    }  # 2 tags, 2 of the thought, 17 of the answer
    assert plain.notes["vote"]["confidences"]["4"] == pytest.approx(p["4"] / (p["4"] + p["5"]))


async def test_hidden_logprobs_of_answers_are_scored_behind_their_thoughts(store):
    model = Scoring(AB_OR_CD, profile=THINKS)
    solution, run = await solve(store, "pc", model, n=12, max_tokens=80)
    assert run.degraded == []
    assert {c.answer for c in solution.candidates} == {"4", "5"}  # each certain after its thought, impossible otherwise
    assert solution.notes["vote"]["confidences"] == {"4": pytest.approx(0.5), "5": pytest.approx(0.5)}
    assert run.ledger.usage().model_calls == 3  # the samples, and a score for each different thought


async def test_equal_answers_after_hidden_thoughts_are_different_paths(store):
    model = ScriptedModel(AB_OR_CD, profile=HIDES_THOUGHTS)
    solution, run = await solve(store, "pc", model, n=12, max_tokens=80)
    answers = [c.answer for c in solution.candidates]
    assert run.degraded == []
    assert solution.notes["vote"]["confidences"]["4"] == pytest.approx(answers.count("4") / 12)


def unsure_in(thoughts):
    """The script of thoughts whose characters are as uncertain as given, and the answers to them.

    Args:
        thoughts: By thought, the probability of each of its characters but the first, which chooses the thought; the
            rest is on characters that are never sampled under a seed of these tests.
    """

    def script(text):
        written = text.rpartition("assistant: ")[2]
        if not written:
            return {"<think>": 1.0}
        written = written.removeprefix("<think>")
        if "</think>" in written:
            return replies(f"The answer is {written[0]}.")(text)
        if not written:
            return dict.fromkeys(thoughts, 1 / len(thoughts))
        if len(written) == 5:
            return {"</think>": 1.0}
        p = thoughts[written[0]]
        return {"x": p, "y": 1 - p}

    return script


async def test_the_scope_thought_keeps_the_most_confident_thoughts(store, monkeypatch):
    model = ScriptedModel(unsure_in({"4": 0.9, "5": 0.5, "6": 0.6}), profile=THINKS)
    solutions = {}
    monkeypatch.setattr(rpc, "KEEP", 0.5)
    for name in ("rpc", "pc", "ppl"):
        solution, run = await solve(store, name, model, name=name, n=12, scope="thought")
        assert run.degraded == []
        solutions[name] = solution
    pc = solutions["pc"]
    scores = {(c.answer, c.score) for c in pc.candidates}
    # of seven tokens one is a choice among three, four are uncertain, and the two tags are certain
    expected = {
        a: (math.log(3) - 2 * (math.log(p) + math.log(1 - p))) / 7 for a, p in (("4", 0.9), ("5", 0.5), ("6", 0.6))
    }
    assert sorted(scores) == [(a, pytest.approx(expected[a])) for a in "456"]
    answers = [c.answer for c in pc.candidates]
    sums = {a: answers.count(a) * expected[a] for a in expected}
    assert pc.notes["vote"]["weights"] == pytest.approx(sums)
    assert pc.confidence == pytest.approx(max(sums.values()) / sum(sums.values()))
    assert solutions["ppl"].best.answer == "4"
    assert solutions["ppl"].confidence == 1.0
    kept = solutions["rpc"].notes["vote"]["kept"]
    ranked = sorted(range(12), key=lambda i: (-expected[answers[i]], i))
    assert kept == sorted(ranked[:6])


@pytest.mark.parametrize("profile", [HIDES_THOUGHTS, None])
async def test_without_logprobs_of_thoughts_the_scope_thought_is_self_consistency_and_reported(store, profile):
    script = AB_OR_CD if profile else SPLIT
    solution, run = await solve(store, "rpc", ScriptedModel(script, profile=profile), n=8, scope="thought")
    assert run.degraded == [
        "rpc: scope=thought: the log-probabilities of thoughts are hidden, or there is no thought, used "
        "self-consistency"
    ]
    assert solution.notes["vote"] == {"method": "sc", "scope": "thought"}
    votes = [c.answer for c in solution.candidates]
    assert solution.confidence == votes.count(solution.best.answer) / 8


async def test_a_stopping_rule_is_a_parameter_of_all(store):
    always = replies("The answer is 4.")
    for name in ("self-consistency", "pc", "ppl", "rpc"):
        solution, run = await solve(store, name, always, name=name, n=32, stopping="beta", mode="rounds")
        assert len(solution.candidates) == 4
        assert solution.notes["stopping"]["stopped_early"] is True
        assert solution.stopped == "done"
        assert run.ledger.usage().model_calls == 1
