"""A language model as a judge of steps, over a model whose every probability is known."""

import math

import pytest
from reason.core.errors import CapabilityMissing
from reason.core.settings import RewardSettings
from reason.serving.rewards.judge import JudgeReward
from reason.serving.rewards.model import RewardModel
from support.scripted_model import ALWAYS_THINKS, CLOSE, OPEN, THINKS, ScriptedModel, thinking

WORDS = RewardSettings(good_token="Y", bad_token="N")


def script(chances):
    """Says Y with the chance of the last step shown, N with nearly all of the rest, Z with a little."""

    def after(text):
        last = next(c for step, c in reversed(chances) if step in text.rpartition("Solution:")[2])
        return {"Y": last * 0.9, "N": (1 - last) * 0.9, "Z": 0.1}

    return after


def judge(model, **more):
    return JudgeReward("judge/scripted", model, WORDS, **more)


class Blind(ScriptedModel):
    """Shows alternatives or scores, not both."""

    def __init__(self, *args, top=0, scoring=False, **more):
        super().__init__(*args, **more)
        self._top, self._can_score = top, scoring
        self.asked = []

    @property
    def capabilities(self):
        return super().capabilities.model_copy(update={"top_logprobs": self._top, "scoring": self._can_score})

    async def next_token(self, prompts, top=20):
        self.asked.append((len(prompts), top))
        return await super().next_token(prompts, min(top, self._top))


CHANCES = [("first", 0.9), ("second", 0.2)]
SOLUTIONS = [["first", "second"], ["first"]]


async def test_odds_are_those_of_the_two_words():
    scripted = ScriptedModel(script(CHANCES))
    model = judge(scripted)
    assert isinstance(model, RewardModel)
    scores = await model.score_steps("p", SOLUTIONS)
    assert scores[0].probabilities == pytest.approx((0.9, 0.2))
    assert scores[0].log_odds == pytest.approx((math.log(9), math.log(0.25)))
    assert scores[1].log_odds == pytest.approx((math.log(9),))
    assert [s.passes for s in scores] == [2, 1]
    assert scores[0].usage.prompt_tokens == sum(
        scripted.count_tokens(model.prompt("p", SOLUTIONS[0][:n])) for n in (1, 2)
    )
    [last] = await model.score_steps("p", SOLUTIONS[:1], "last")
    assert (last.log_odds, last.passes) == (pytest.approx((math.log(0.25),)), 1)


async def test_all_steps_are_one_batch_and_share_what_they_can():
    asked = Blind(script(CHANCES), top=20)
    model = judge(asked)
    await model.score_steps("p", SOLUTIONS)
    assert asked.asked == [(3, 20)]
    a, b = (asked.render(model.prompt("the problem", ["first", "second"][:n])) for n in (1, 2))
    shared = a[: a.index("first") + len("first")]
    assert b.startswith(shared)
    assert "the problem" in shared


async def test_two_impossible_words_are_no_verdict():
    model = judge(Blind(lambda text: {"Z": 1.0}, scoring=True))
    [scores] = await model.score_steps("p", SOLUTIONS[:1])
    assert scores.failure.code == "invalid_response"
    assert "neither 'Y'" in scores.failure.message


@pytest.mark.parametrize(("listed", "bound"), [({"Y": 0.8, "Z": 0.15}, 0.05), ({"Y": 0.8, "Z": 0.02}, 0.02)])
async def test_missing_word_is_bounded_by_the_rest_and_the_least_listed_probability(listed, bound):
    rest = 1 - sum(listed.values())
    model = JudgeReward(
        "judge/scripted", Blind(lambda text: {**listed, **dict.fromkeys("abcdefghij", rest / 10)}, top=2), WORDS
    )
    [scores] = await model.score_steps("p", [["s"]])
    assert scores.log_odds == pytest.approx((math.log(0.8 / bound),))


async def test_missing_verdict_fails_only_its_solution():
    def after(text):
        return {"Z": 1.0} if "odd" in text else {"Y": 0.5, "N": 0.5}

    model = judge(Blind(after, top=1))
    fine, odd = await model.score_steps("p", [["s"], ["odd"]])
    assert fine.ok
    assert odd.failure.code == "invalid_response"
    assert "'Y'" in odd.failure.message


async def test_model_without_logprobs_is_rejected():
    with pytest.raises(CapabilityMissing):
        judge(Blind(script(CHANCES)))


def verdict_after(chances):
    """The verdict of a model that has not thought; after a thought it would be the reverse."""

    def after(text):
        assert text.endswith(OPEN + CLOSE), f"a verdict was read after a thought: {text[-40:]}"
        return script(chances)(text)

    return after


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Blind(script(CHANCES), top=1, scoring=True), id="missing word is scored"),
        pytest.param(
            Blind(thinking("N", verdict_after(CHANCES)), scoring=True, profile=THINKS),
            id="scored after no thought",
        ),
        pytest.param(
            ScriptedModel(thinking("It is wrong: N", verdict_after(CHANCES)), profile=THINKS), id="skips its thought"
        ),
    ],
)
async def test_verdict_is_read_without_generating(model):
    [scores, _] = await judge(model).score_steps("p", SOLUTIONS)
    assert scores.probabilities == pytest.approx((0.9, 0.2))
    assert not model.generate_calls


async def test_model_without_exact_prefixes_is_told_not_to_think():
    profile = THINKS.model_copy(update={"prefix": "none"})
    model = ScriptedModel(thinking("It is wrong: N", verdict_after(CHANCES)), profile=profile)
    scores = await judge(model).score_steps("p", SOLUTIONS)
    assert scores[0].probabilities == pytest.approx((0.9, 0.2))
    assert [r.sampling.effort for r in model.generate_calls[0]] == ["none"] * 3
    assert (scores[0].usage.completion_tokens, scores[0].usage.thinking_tokens) == (2, 0)


async def test_model_that_always_thinks_is_refused_before_it_is_asked():
    model = ScriptedModel(thinking("It is right.", "Y"), profile=ALWAYS_THINKS)
    with pytest.raises(CapabilityMissing, match="verdicts without thinking") as refused:
        judge(model)
    assert "a trained reward model, or a judge that can answer without thinking" in refused.value.hint
    assert not model.generate_calls


async def test_too_long_solution_fails_alone():
    model = judge(ScriptedModel(script(CHANCES), context_tokens=900))
    fine, long = await model.score_steps("p", [["first"], ["first" * 200]])
    assert fine.ok
    assert long.failure.code == "context_too_long"


async def test_price_is_bounded_from_above():
    model, free, unknown = (judge(ScriptedModel(script(CHANCES), price=price)) for price in (0.01, 0.0, None))
    most = model.max_usd("p", SOLUTIONS)
    scores = await model.score_steps("p", SOLUTIONS)
    assert 0 < 0.01 * sum(s.usage.prompt_tokens for s in scores) <= most
    assert free.max_usd("p", SOLUTIONS) == 0
    assert not unknown.capabilities.price_known


async def test_it_closes_what_it_owns():
    scripted = ScriptedModel(script(CHANCES))
    await judge(scripted, owns=False).aclose()
    assert not scripted.closed
    await judge(scripted).aclose()
    assert scripted.closed
