"""`specreason` on scripted models: drafts, digits, what is kept and what is thrown away."""

import math

import pytest
from reason.core.budget import Budget
from reason.core.messages import Completion, TopToken
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.strategy import STRATEGIES
from reason.routers.specreason import SCORE_PREFIX, SCORE_PROMPT, read_score
from support.scripted_model import ScriptedModel
from support.two_models import Shown, TwoModels, booked, chain, texts


@pytest.fixture
async def harness(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield TwoModels(store)
    await store.aclose()


def judging(judge, **options):
    return ScriptedModel(chain("large", judge=judge, **options), name="large")


def judged(model):
    return [r for call in model.generate_calls for r in call if r.sampling.max_tokens == 1]


def test_it_is_registered():
    assert STRATEGIES.load("specreason").roles == ("main", "small")


async def test_good_drafts_are_accepted(harness):
    harness.large = judging("7")
    made = await harness.solve(strategy="specreason")
    assert set(made.notes["writers"]) == {"small"}
    assert made.notes["scores"] == [7.0] * 5
    assert made.notes["rejected"] == made.notes["tokens"]["small"]["discarded"] == 0
    assert made.notes["tokens"]["large"]["scores"] == 5
    assert booked(made) == harness.generated()


async def test_poor_drafts_are_regenerated_by_the_large_model(harness):
    harness.large = judging("6")
    made = await harness.solve(strategy="specreason")
    assert set(made.notes["writers"]) == {"large"}
    assert made.notes["rejected"] == 5
    assert made.notes["tokens"]["small"]["steps"] == 0
    assert made.notes["tokens"]["small"]["discarded"] > 0
    assert booked(made) == harness.generated()
    assert [e.reason for e in harness.sink.of_type("step.routed")] == ["rejected"] * 5
    low = await harness.solve("low", strategy="specreason", accept=6)
    assert set(low.notes["writers"]) == {"small"}
    none = await harness.solve("none", strategy="specreason", accept=10)
    assert set(none.notes["writers"]) == {"large"}


async def test_the_judge_sees_the_question_the_steps_and_the_draft(harness):
    harness.large = judging("9")
    made = await harness.solve(strategy="specreason")
    steps = [s.text for s in made.best.steps]
    for i, request in enumerate(judged(harness.large)):
        user, reply, wanted = request.prompt.messages
        assert (user.role, reply.role, wanted.role) == ("user", "assistant", "user")
        assert reply.content == "\n\n".join(steps[: i + 1])
        assert wanted.content == SCORE_PROMPT
        assert (request.sampling.default_temperature, request.sampling.top_logprobs) == (0.0, 10)


async def test_mean_score(harness):
    harness.large = judging({"9": 0.55, "2": 0.35, "x": 0.1})
    greedy = await harness.solve("a", strategy="specreason")
    assert greedy.notes["scores"] == [9.0] * 5
    mean = await harness.solve("b", strategy="specreason", score="mean")
    assert set(mean.notes["writers"]) == {"large"}
    assert mean.notes["scores"] == pytest.approx([(9 * 0.55 + 2 * 0.35) / 0.9] * 5)


async def test_score_without_a_digit_rejects(harness):
    harness.large = judging("?")
    made = await harness.solve(strategy="specreason")
    assert set(made.notes["writers"]) == {"large"}
    assert (made.notes["unreadable"], made.notes["rejected"]) == (5, 5)
    assert made.notes["scores"] == [None] * 5


async def test_without_logprobs_the_digit_is_parsed_from_the_text(harness):
    harness.large = Shown(chain("large", judge="8"), name="large", changed={"top_logprobs": 0})
    made = await harness.solve(strategy="specreason", score="mean")
    assert made.notes["scores"] == [8.0] * 5
    assert any("score=greedy" in what for what in harness.run.degraded)


async def test_rejected_steps_match_glimprouter_steps_of_the_large_model(harness):
    harness.large = judging("0")
    judged_ = await harness.solve("a", strategy="specreason")
    routed = await harness.solve("b", policy="large")
    assert texts(judged_) == texts(routed)


@pytest.mark.parametrize("judge", ["9", "0"])
async def test_budgets_hold_and_replay(harness, judge):
    harness.large = judging(judge)
    budgets = [Budget(tokens=n) for n in (1, 4, 25, 63)] + [Budget(calls=n) for n in (1, 2, 3, 4, 6)]
    for i, budget in enumerate(budgets):
        made = await harness.solve(f"r{i}", strategy="specreason", budget=budget)
        assert harness.spent.completion_tokens <= (budget.tokens or math.inf)
        assert harness.spent.model_calls <= (budget.calls or math.inf)
        assert booked(made) == harness.generated()
        assert await harness.solve(f"r{i}", strategy="specreason", budget=budget, replay=True) == made


async def test_complete_responses_are_scored_without_prefix_support(harness):
    harness.large = Shown(chain("large", judge="1"), name="large", changed={"prefix": False})
    made = await harness.solve(strategy="specreason")
    assert made.notes["granularity"] == "problem"
    assert len(made.notes["writers"]) == 1
    assert judged(harness.large)[0].prompt.prefix == ""


def shown(*pairs, text=""):
    top = tuple(TopToken(token_id=i, token=t, logprob=math.log(p)) for i, (t, p) in enumerate(pairs))
    return Completion(text=text, finish_reason="length", top_logprobs=(top,) if pairs else None)


@pytest.mark.parametrize(
    ("reply", "greedy", "mean"),
    [
        (shown(("7", 0.6), ("3", 0.2)), 7, 6),
        (shown((" the", 0.5), (" 4", 0.3), ("12", 0.1), ("8", 0.1)), 4, 5),
        (shown(("²", 0.9), text="5"), 5, 5),
        (shown(text="8."), 8, 8),
        (shown(text="no"), None, None),
        (shown(), None, None),
    ],
)
def test_score_parsing(reply, greedy, mean):
    assert read_score(reply, mean=False) == greedy
    assert read_score(reply, mean=True) == (None if mean is None else pytest.approx(mean))


async def test_drafts_of_a_thought_are_scored_without_thinking(harness):
    harness.large = judging({"9": 0.6, "3": 0.4})
    harness.think()
    made = await harness.solve(strategy="specreason", score="mean")
    assert (made.notes["ended"], made.best.text, made.best.answer) == ("closed", "The answer is 4.", "4")
    assert made.notes["scores"] == [pytest.approx(0.6 * 9 + 0.4 * 3)] * 5
    assert made.best.thought == "\n\n".join(s.text for s in made.best.steps)
    scored = [r for call in harness.large.generate_calls for r in call if r.prompt.prefix == SCORE_PREFIX]
    assert [(r.prompt.thought, r.sampling.effort, r.sampling.thinking_tokens) for r in scored] == [
        (None, "none", 0)
    ] * 5
    drafts = [r for call in harness.small.generate_calls for r in call]
    assert all(not r.prompt.thought.closed for r in drafts)
    assert booked(made) == harness.generated()
