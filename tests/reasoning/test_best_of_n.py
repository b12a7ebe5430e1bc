"""`best-of-n` on a model and a reward model whose every number is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.types import Question
from reason.reasoning.best_of_n import CandidateScore, highest_scored
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.metered.model import MeteredModel
from support.scripted_judge import judging, shown_answers
from support.scripted_model import ALWAYS_THINKS, CLOSE, END, OPEN, ScriptedModel, replies
from support.scripted_reward import ScriptedReward
from support.stored_runs import RunHarness

CHAINS = ("The answer is 4.", "Surely the answer is 5.", "I guess the answer is 6.")
CHANCES = {"The answer is 4.": 0.5, "Surely the answer is 5.": 0.4, "I guess the answer is 6.": 0.9}
QUESTION = Question(text="How many?", kind="number")
TWO_STEPS = replies("First think.\n\nThe answer is 4.")


THREE = replies(*CHAINS)


async def ask(store, script=THREE, reward=None, *, n=12, **parameters):
    """A solution of best of 12, and its run."""
    harness = RunHarness(store, ScriptedModel(script))
    return await harness.solve("best-of-n", QUESTION, reward=reward, seed=5, n=n, max_tokens=60, **parameters), harness


def scored(run):
    """What the run noted of its scores."""
    (note,) = [e for e in run.sink.of_type("strategy.note") if e.name == "samples.scored"]
    return note.data


def by_text(chances=CHANCES):
    return ScriptedReward(chances.get)


def verdicts(right):
    """Chains, and for each a verdict: correct with this probability, a new attempt better with the complement."""
    chains = replies(*right)

    def script(text):
        if "user: Look at your response" not in text:
            return chains(text)
        response = text.partition("assistant: ")[2].partition("\nuser: ")[0]
        p = right.get(response, 0.5)
        p = p if "Is it correct?" in text else 1 - p
        return {"Y": p, "N": 1 - p}

    return script


async def test_the_highest_score_wins_and_is_the_confidence(store):
    reward = by_text()
    solution, run = await ask(store, reward=reward)
    assert {c.answer for c in solution.candidates} == {"4", "5", "6"}
    assert (solution.best.answer, solution.best.text) == ("6", "I guess the answer is 6.")
    assert solution.confidence == pytest.approx(0.9)
    assert all(c.score == pytest.approx(CHANCES[c.text]) for c in solution.candidates)
    assert (run.spent.model_calls, run.spent.reward_calls) == (1, 3)
    assert run.run.degraded == []
    ((problem, solutions, which),) = reward.asked
    assert (problem, which) == ("How many?", "all")
    assert {s for (s,) in solutions} == set(CHAINS)
    assert len(run.sink.of_type("candidate.added")) == 12
    assert scored(run) == {"score": "reward", "unscored": 0}


async def test_equal_answers_are_one_class_represented_by_its_best_chain(store):
    chances = {"The answer is 1/2.": 0.3, "The answer is 0.5.": 0.4, "The answer is 7.": 0.5}
    solution, run = await ask(store, replies(*chances), by_text(chances), n=30, select="weighted")
    assert solution.best.text == "The answer is 0.5."
    sums = {t: p * sum(c.text == t for c in solution.candidates) for t, p in chances.items()}
    half = sums["The answer is 1/2."] + sums["The answer is 0.5."]
    assert solution.confidence == pytest.approx(half / sum(sums.values()))
    assert sorted(scored(run)["weights"].values()) == pytest.approx(sorted([half, sums["The answer is 7."]]))


@pytest.mark.parametrize(
    ("kind", "one_pass", "value", "passes"),
    [("process", True, 0.65, 1), ("process", False, 0.8, 1), ("judge", False, 0.8, 1), ("outcome", True, 0.8, 1)],
)
async def test_default_is_the_mean_where_one_pass_scores_all_steps(store, kind, one_pass, value, passes):
    chances = {"First think.": 0.5, "The answer is 4.": 0.8}
    reward = ScriptedReward(chances.get, kind=kind, one_pass=one_pass)
    solution, run = await ask(store, TWO_STEPS, reward, n=1)
    assert (solution.confidence, run.spent.reward_calls) == (pytest.approx(value), passes)


async def test_a_chain_that_cannot_be_scored_ranks_last_and_takes_no_other_along(store):
    solution, run = await ask(store, reward=by_text({**CHANCES, "I guess the answer is 6.": None}))
    failed = sum(c.answer == "6" for c in solution.candidates)
    assert failed > 0
    assert solution.best.answer == "4"
    assert run.run.degraded == [f"{failed} of 12 samples could not be scored and ranked last"]
    assert all((c.score is None) == (c.answer == "6") for c in solution.candidates)


async def test_without_any_score_the_majority_decides(store):
    solution, run = await ask(store, replies(*CHAINS, weights=[1, 6, 1]), by_text({}))
    share = sum(c.answer == "5" for c in solution.candidates) / 12
    assert (solution.best.answer, solution.confidence) == ("5", pytest.approx(share))
    assert run.run.degraded == ["no sample could be scored; the answer of the majority was taken"]


async def test_a_budget_of_passes_scores_the_chains_that_came_first(store):
    solution, run = await ask(store, reward=by_text(), budget=Budget(reward_calls=2))
    reached = list(dict.fromkeys(c.text for c in solution.candidates))
    assert len(reached) == 3
    assert {c.text for c in solution.candidates if c.score is not None} == set(reached[:2])
    assert solution.stopped == "budget"
    assert run.spent.reward_calls == 2
    assert run.sink.of_type("budget.exhausted")[0].kind == "reward_calls"
    assert solution.best.text == max(reached[:2], key=CHANCES.get)
    solution, run = await ask(store, reward=by_text(), name="none", budget=Budget(reward_calls=0))
    assert (solution.stopped, run.spent.reward_calls) == ("budget", 0)
    assert solution.best.answer is not None


async def test_a_fit_changes_the_confidence_and_no_choice(store):
    script = verdicts(dict(zip(CHAINS, (0.2, 0.7, 0.6), strict=True)))
    solution, _ = await ask(store, script, score="self-evaluation", alpha=-2.0, beta=3.0)
    assert solution.best.answer == "5"
    assert solution.confidence == pytest.approx(1 / (1 + math.exp(2 - 3 * math.log(0.7 / 0.3))))


async def test_without_a_reward_model_the_model_judges_itself(store):
    right = {"The answer is 4.": 0.5, "Surely the answer is 5.": 0.8, "I guess the answer is 6.": 0.3}
    solution, run = await ask(store, verdicts(right))
    assert solution.best.answer == "5"
    assert solution.confidence == pytest.approx(0.8)  # u = logit(p), and the empty response has 0.5
    assert all(c.score == pytest.approx(right[c.text]) for c in solution.candidates)
    assert run.spent.model_calls == 1 + 2 * 3 + 2


async def test_a_budget_of_calls_judges_the_first_ones(store):
    solution, run = await ask(
        store, verdicts(CHANCES), budget=Budget(calls=6)
    )  # the samples, 2 for nothing, 2 for one chain
    assert (solution.stopped, run.spent.model_calls) == ("budget", 5)
    assert {c.text for c in solution.candidates if c.score is not None} == {solution.candidates[0].text}
    solution, run = await ask(store, verdicts(CHANCES), name="one", budget=Budget(calls=1))
    assert (solution.stopped, run.spent.model_calls) == ("budget", 1)
    assert solution.best.answer is not None


async def test_a_missing_reward_model_is_reported_before_anything_is_spent(store):
    asked = []
    with pytest.raises(UserError, match=r"--reward-model .*judge/local/smollm2-135m"):
        await ask(store, asked.append, score="reward")
    assert asked == []


MARKS = {
    "The answer is 4.": {"2": 1.0},
    "Surely the answer is 5.": {"9": 0.5, "7": 0.5},
    "I guess the answer is 6.": {"6": 1.0},
}


async def test_a_judge_rates_by_its_mean_mark(store):
    solution, run = await ask(store, judging(THREE, mark=MARKS.get, off_scale=0.1), score="judge")
    assert solution.best.answer == "5"
    assert solution.confidence == pytest.approx(7 / 8)
    assert {c.answer: c.score for c in solution.candidates} == pytest.approx({"4": 1 / 8, "5": 7 / 8, "6": 5 / 8})
    assert run.spent.model_calls == 1 + 3
    assert scored(run)["off_scale"] == pytest.approx(0.1)


async def judged_by_a_thinker(store, long_thought):
    """A solution whose judge has to think, about the most frequent answer this many tokens."""
    lengths = {"The answer is 4.": long_thought}

    def judge(text):
        (answer,) = shown_answers(text)
        written = text.rpartition("assistant: ")[2]
        if CLOSE in written:
            return {END: 1.0} if written[-1].isdigit() else MARKS[answer]
        return {("h" if len(written) < lengths.get(answer, 20) else CLOSE) if written else OPEN: 1.0}

    harness = RunHarness(store)
    chains = ScriptedModel(replies(*CHAINS, weights=[6, 1, 1]))
    main = await harness.begin(model=chains, strategy="best-of-n", question=QUESTION, seed=5)
    thinker = ScriptedModel(judge, name="thinker", profile=ALWAYS_THINKS)
    models = Models({"main": main, "judge": MeteredModel(thinker, "judge", harness.run)})
    strategy, _ = create_strategy("best-of-n", {"n": 12, "max_tokens": 60, "score": "judge"})
    return await strategy.solve(QUESTION, models, harness.run), harness


async def test_a_judge_that_was_cut_while_it_thought_gets_more_room_once(store):
    solution, run = await judged_by_a_thinker(store, 1500)
    assert scored(run)["unscored"] == 0
    assert {c.score is None for c in solution.candidates} == {False}


async def test_the_vote_decides_where_most_samples_have_no_score(store):
    solution, run = await judged_by_a_thinker(store, 9000)
    assert 6 < scored(run)["unscored"] < 12
    assert solution.best.answer == "4"
    assert any("the answer of the majority was taken" in note for note in run.run.degraded)


@given(st.lists(st.none() | st.floats(-1e6, 0), min_size=1, max_size=20))
def test_the_best_is_a_first_maximum(keys):
    scores = [None if key is None else CandidateScore(key=key, value=0.5) for key in keys]
    chosen = highest_scored(scores, range(len(scores)))
    comparable = [key for key in keys if key is not None]
    assert chosen == (keys.index(max(comparable)) if comparable else 0)
