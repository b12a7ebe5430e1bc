"""`best-of-n` on a model and a reward model whose every number is known."""

import math

import pytest
import reason.agents.reasoner as reasoner_module
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from reason.agents.reasoner import Reasoner
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import Question
from reason.reasoning.best_of_n import CandidateScore, highest_scored
from support.scripted_judge import judging
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward

CHAINS = ("The answer is 4.", "Surely the answer is 5.", "I guess the answer is 6.")
CHANCES = {"The answer is 4.": 0.5, "Surely the answer is 5.": 0.4, "I guess the answer is 6.": 0.9}
QUESTION = Question(text="How many?", kind="number")


@pytest.fixture
def clients(monkeypatch):
    """The model and the reward model that reasoners open; a test may put others there."""
    models = {"model": ScriptedModel(replies(*CHAINS)), "reward": ScriptedReward(CHANCES.get)}

    async def load_model(name, settings, *_):
        return models["model"]

    async def load_reward_model(name, settings, *_):
        return models["reward"]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    monkeypatch.setattr(reasoner_module, "load_reward_model", load_reward_model)
    return models


@pytest.fixture
def settings(tmp_path):
    return Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


async def ask(
    settings, strategy="best-of-n", *, reward="local/scripted-reward", budget=None, replay=True, **parameters
):
    sink = MemorySink()
    parameters = {"n": 12, "max_tokens": 60, **parameters}
    async with Reasoner(
        strategy=strategy, parameters=parameters, reward_model=reward, settings=settings, budget=budget
    ) as reasoner:
        answer = await reasoner.aask(QUESTION, sinks=[sink])
        if replay:
            again = await reasoner.areplay(answer.run_id)
            assert again.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    return answer, sink


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


async def test_the_highest_score_wins_and_is_the_confidence(clients, settings):
    answer, sink = await ask(settings)
    assert {c.answer for c in answer.candidates} == {"4", "5", "6"}
    assert (answer.answer, answer.text) == ("6", "I guess the answer is 6.")
    assert answer.confidence == pytest.approx(0.9)
    assert all(c.score == pytest.approx(CHANCES[c.text]) for c in answer.candidates)
    assert (answer.usage.model_calls, answer.usage.reward_calls) == (1, 3)
    assert answer.degraded == ()
    ((problem, solutions, which),) = clients["reward"].asked
    assert (problem, which) == ("How many?", "all")
    assert {s for (s,) in solutions} == set(CHAINS)
    assert len(sink.of_type("candidate.added")) == 12
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "samples.scored"]
    assert note.data == {"score": "reward", "unscored": 0}


async def test_votes_weigh_what_they_score(clients, settings):
    clients["model"] = ScriptedModel(replies(*CHAINS, weights=[4, 1, 1]))
    answer, sink = await ask(settings, n=16, select="weighted")
    counts = {a: sum(c.answer == a for c in answer.candidates) for a in "456"}
    weights = {"4": 0.5 * counts["4"], "5": 0.4 * counts["5"], "6": 0.9 * counts["6"]}
    assert answer.answer == max(weights, key=weights.get) == "4"
    assert answer.confidence == pytest.approx(weights["4"] / sum(weights.values()))
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "samples.scored"]
    assert note.data["weights"] == pytest.approx({a: w for a, w in weights.items() if w})


async def test_equal_answers_are_one_class_represented_by_its_best_chain(clients, settings):
    chances = {"The answer is 1/2.": 0.3, "The answer is 0.5.": 0.4, "The answer is 7.": 0.5}
    clients["model"] = ScriptedModel(replies(*chances))
    clients["reward"] = ScriptedReward(chances.get)
    answer, _ = await ask(settings, n=30, select="weighted")
    assert answer.text == "The answer is 0.5."
    sums = {t: p * sum(c.text == t for c in answer.candidates) for t, p in chances.items()}
    half = sums["The answer is 1/2."] + sums["The answer is 0.5."]
    assert answer.confidence == pytest.approx(half / sum(sums.values()))


@pytest.mark.parametrize(
    ("aggregate", "value", "passes"),
    [("last", 0.8, 1), ("min", 0.5, 2), ("prod", 0.4, 2), ("mean", 0.65, 2), ("model", 0.8, 1)],
)
async def test_steps_become_one_number(clients, settings, aggregate, value, passes):
    chances = {"First think.": 0.5, "The answer is 4.": 0.8, "First think.\nThe answer is 4.": 0.8}
    clients["model"] = ScriptedModel(replies("First think.\n\nThe answer is 4."))
    clients["reward"] = ScriptedReward(chances.get, one_pass=False)
    answer, _ = await ask(settings, n=1, aggregate=aggregate)
    assert answer.confidence == pytest.approx(value)
    assert answer.usage.reward_calls == passes


@pytest.mark.parametrize(
    ("kind", "one_pass", "value", "passes"),
    [("process", True, 0.65, 1), ("process", False, 0.8, 1), ("judge", False, 0.8, 1), ("outcome", True, 0.8, 1)],
)
async def test_default_is_the_mean_where_one_pass_scores_all_steps(clients, settings, kind, one_pass, value, passes):
    chances = {"First think.": 0.5, "The answer is 4.": 0.8}
    clients["model"] = ScriptedModel(replies("First think.\n\nThe answer is 4."))
    clients["reward"] = ScriptedReward(chances.get, kind=kind, one_pass=one_pass)
    answer, _ = await ask(settings, n=1)
    assert answer.confidence == pytest.approx(value)
    assert answer.usage.reward_calls == passes


async def test_a_chain_that_cannot_be_scored_ranks_last_and_takes_no_other_along(clients, settings):
    clients["reward"] = ScriptedReward({**CHANCES, "I guess the answer is 6.": None}.get)
    answer, _ = await ask(settings)
    failed = sum(c.answer == "6" for c in answer.candidates)
    assert failed > 0
    assert answer.answer == "4"
    assert answer.degraded == (f"{failed} of 12 samples could not be scored and ranked last",)
    assert all((c.score is None) == (c.answer == "6") for c in answer.candidates)


async def test_without_any_score_the_majority_decides(clients, settings):
    clients["model"] = ScriptedModel(replies(*CHAINS, weights=[1, 6, 1]))
    clients["reward"] = ScriptedReward(lambda step: None)
    answer, _ = await ask(settings)
    share = sum(c.answer == "5" for c in answer.candidates) / 12
    assert (answer.answer, answer.confidence) == ("5", pytest.approx(share))
    assert answer.degraded == ("no sample could be scored; the answer of the majority was taken",)


async def test_a_budget_of_passes_scores_the_chains_that_came_first(clients, settings):
    answer, sink = await ask(settings, budget={"reward_calls": 2})
    reached = list(dict.fromkeys(c.text for c in answer.candidates))
    assert len(reached) == 3
    assert {c.text for c in answer.candidates if c.score is not None} == set(reached[:2])
    assert answer.stopped == "budget"
    assert answer.usage.reward_calls == 2
    assert sink.of_type("budget.exhausted")[0].kind == "reward_calls"
    assert answer.text == max(reached[:2], key=CHANCES.get)
    answer, _ = await ask(settings, budget={"reward_calls": 0})
    assert (answer.stopped, answer.usage.reward_calls) == ("budget", 0)
    assert answer.answer is not None


async def test_a_budget_of_dollars_bounds_the_scores(clients, settings):
    clients["reward"] = ScriptedReward(CHANCES.get, price=0.01)
    answer, _ = await ask(settings, budget={"usd": 0.45})
    reached = list(dict.fromkeys(c.text for c in answer.candidates))
    costs = [0.01 * sum(map(len, reached[:k])) for k in range(4)]
    scored = {c.text for c in answer.candidates if c.score is not None}
    assert scored == set(reached[: sum(cost <= 0.45 for cost in costs) - 1])
    assert 0 < len(scored) < 3
    assert answer.stopped == "budget"
    assert answer.usage.cost_usd == pytest.approx(costs[len(scored)])


async def test_without_a_reward_model_the_model_judges_itself(clients, settings):
    right = {"The answer is 4.": 0.5, "Surely the answer is 5.": 0.8, "I guess the answer is 6.": 0.3}
    clients["model"] = ScriptedModel(verdicts(right))
    answer, _ = await ask(settings, reward=None)
    assert answer.answer == "5"
    assert answer.confidence == pytest.approx(0.8)  # u = logit(p), and the empty response has 0.5
    assert all(c.score == pytest.approx(right[c.text]) for c in answer.candidates)
    assert answer.usage.model_calls == 1 + 2 * 3 + 2
    assert clients["reward"].asked == []


@pytest.mark.parametrize(("alpha", "beta"), [(-2.0, 1.0), (0.0, 0.1), (3.0, 4.0)])
async def test_calibration_changes_no_choice(clients, settings, alpha, beta):
    clients["model"] = ScriptedModel(verdicts(dict(zip(CHAINS, (0.2, 0.7, 0.6), strict=True))))
    answer, _ = await ask(settings, score="self-evaluation", alpha=alpha, beta=beta)
    assert answer.answer == "5"
    assert answer.confidence == pytest.approx(1 / (1 + math.exp(-(alpha + beta * math.log(0.7 / 0.3)))))


async def test_a_budget_of_calls_judges_the_first_ones(clients, settings):
    clients["model"] = ScriptedModel(verdicts(CHANCES))
    answer, _ = await ask(settings, reward=None, budget={"calls": 6})  # the samples, 2 for nothing, 2 for one chain
    assert (answer.stopped, answer.usage.model_calls) == ("budget", 5)
    assert {c.text for c in answer.candidates if c.score is not None} == {answer.candidates[0].text}
    answer, _ = await ask(settings, reward=None, budget={"calls": 1})
    assert (answer.stopped, answer.usage.model_calls) == ("budget", 1)
    assert answer.answer is not None


async def test_a_missing_reward_model_is_reported_before_anything_is_spent(clients, settings):
    with pytest.raises(UserError, match=r"--reward-model .*judge/local/smollm2-135m"):
        await ask(settings, reward=None, score="reward")
    assert clients["model"].made == []


def test_what_cannot_be_chosen(settings):
    with pytest.raises(UserError, match="aggregate"):
        Reasoner(strategy="best-of-n", parameters={"aggregate": "median"}, settings=settings)


MARKS = {
    "The answer is 4.": {"2": 1.0},
    "Surely the answer is 5.": {"9": 0.5, "7": 0.5},
    "I guess the answer is 6.": {"6": 1.0},
}


async def test_a_judge_rates_by_its_mean_mark(clients, settings):
    clients["model"] = ScriptedModel(judging(replies(*CHAINS), mark=MARKS.get, off_scale=0.1))
    answer, sink = await ask(settings, reward=None, score="judge")
    assert answer.answer == "5"
    assert answer.confidence == pytest.approx(7 / 8)
    assert {c.answer: c.score for c in answer.candidates} == pytest.approx({"4": 1 / 8, "5": 7 / 8, "6": 5 / 8})
    assert answer.usage.model_calls == 1 + 3
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "samples.scored"]
    assert note.data["off_scale"] == pytest.approx(0.1)


def mark_of(answer):
    """Prefers 6 to 4 to 5."""
    return {"964"["645".index(answer[-2])]: 1.0}


async def test_a_judge_model_of_its_own_judges(clients, settings, monkeypatch):
    writer = ScriptedModel(replies(*CHAINS), name="writer")
    judge = ScriptedModel(judging(replies("?"), mark=mark_of), name="judge")

    async def load_model(name, settings, *_):
        return judge if name == "judge" else writer

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    own = settings.model_copy(update={"judge_model": "judge"})
    answer, sink = await ask(own, reward=None, score="judge")
    assert answer.answer == "6"
    assert {e.role for e in sink.of_type("call.started") if e.operation == "next_token"} == {"judge"}


async def test_an_unreadable_judge_leaves_the_majority(clients, settings):
    clients["model"] = ScriptedModel(judging(replies(*CHAINS, weights=[1, 6, 1]), mark=mark_of, off_scale=0.9))
    answer, _ = await ask(settings, reward=None, score="judge")
    assert answer.answer == "5"
    assert answer.degraded == ("no sample could be scored; the answer of the majority was taken",)


@given_settings(deadline=None)
@given(st.lists(st.none() | st.floats(-1e6, 0), min_size=1, max_size=20))
def test_the_best_is_a_first_maximum(keys):
    scores = [None if key is None else CandidateScore(key=key, value=0.5) for key in keys]
    chosen = highest_scored(scores, range(len(scores)))
    comparable = [key for key in keys if key is not None]
    assert chosen == (keys.index(max(comparable)) if comparable else 0)
