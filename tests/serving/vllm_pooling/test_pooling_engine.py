"""Reward models on vLLM's pooling engine agree with transformers."""

import asyncio

import pytest
from reason.core.errors import BackendUnavailable, UserError
from reason.serving.rewards.factory import load_reward_model
from reason.serving.rewards.model import RewardModel

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PROBLEM = "What is 2 + 3 * 4?"
SOLUTIONS = [["3 * 4 = 12.", "2 + 12 = 14."], ["The answer is 20."], ["a", "bb " * 30, "c", "d"]]


async def test_the_same_scores_as_transformers(vllm_reward, process_directory, pooling_settings):
    assert isinstance(vllm_reward, RewardModel)
    assert (vllm_reward.capabilities.kind, vllm_reward.capabilities.context_tokens) == ("process", 512)
    local = await load_reward_model(f"local/{process_directory}", pooling_settings)
    for which in ("all", "last"):
        theirs = await vllm_reward.score_steps(PROBLEM, SOLUTIONS, which)
        ours = await local.score_steps(PROBLEM, SOLUTIONS, which)
        assert [s.log_odds for s in theirs] == [pytest.approx(s.log_odds, abs=1e-3) for s in ours]
        assert [(s.usage, s.passes) for s in theirs] == [(s.usage, s.passes) for s in ours]
    assert "vllm" in vllm_reward.identity
    await local.aclose()


async def test_asking_again_and_a_longer_prefix_give_the_same(vllm_reward):
    """An earlier request's cache removes no step's row."""
    [complete] = await vllm_reward.score_steps(PROBLEM, SOLUTIONS[2:])
    for n in (1, 2, 3, 4):
        [prefix] = await vllm_reward.score_steps(PROBLEM, [SOLUTIONS[2][:n]])
        assert prefix.log_odds == pytest.approx(complete.log_odds[:n], abs=1e-3)


async def test_what_fails_alone_on_vllm(vllm_reward):
    fine, long, tagged = await vllm_reward.score_steps(PROBLEM, [["fine"], ["x" * 600], ["a<extra_0>b"]])
    assert fine.ok
    assert long.failure.code == "context_too_long"
    assert tagged.failure.code == "user_error"


async def test_cancelling_leaves_the_engine_idle(vllm_reward):
    task = asyncio.create_task(vllm_reward.score_steps(PROBLEM, [["step " * 60]] * 400))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert vllm_reward._engine._engine.get_num_unfinished_requests() == 0
    [scores] = await vllm_reward.score_steps(PROBLEM, [["step"]])
    assert scores.ok


@pytest.mark.usefixtures("_vllm")
async def test_a_token_based_model_is_sent_to_transformers(tmp_path, pooling_settings):
    import tiny_rewards

    directory = tiny_rewards.speaking_model(tmp_path / "shepherd")
    with pytest.raises(UserError, match="open local/"):
        await load_reward_model(f"vllm-pooling/{directory}", pooling_settings)


async def test_settings_that_scoring_relies_on_are_fixed(process_directory, pooling_settings):
    vllm = pooling_settings.vllm.model_copy(update={"engine": {"runner": "generate"}})
    with pytest.raises(UserError, match=r"vllm\.engine\.runner"):
        await load_reward_model(f"vllm-pooling/{process_directory}", pooling_settings.model_copy(update={"vllm": vllm}))


async def test_outcome_model_and_closing(outcome_directory, pooling_settings):
    model = await load_reward_model(f"vllm-pooling/{outcome_directory}", pooling_settings)
    local = await load_reward_model(f"local/{outcome_directory}", pooling_settings)
    theirs = await model.score_steps(PROBLEM, SOLUTIONS)
    ours = await local.score_steps(PROBLEM, SOLUTIONS)
    assert [s.log_odds for s in theirs] == [pytest.approx(s.log_odds, abs=1e-3) for s in ours]
    await model.aclose()
    await model.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await model.score_steps(PROBLEM, SOLUTIONS)
    await local.aclose()


@pytest.mark.usefixtures("_vllm")
async def test_scalar_model_is_read_at_the_last_token(tmp_path, pooling_settings):
    """vLLM pools every token of it; the last one's number is the score."""
    import tiny_rewards

    directory = tiny_rewards.process_model(tmp_path / "scalar", labels=1)
    model = await load_reward_model(f"vllm-pooling/{directory}", pooling_settings)
    local = await load_reward_model(f"local/{directory}", pooling_settings)
    theirs = await model.score_steps(PROBLEM, SOLUTIONS)
    ours = await local.score_steps(PROBLEM, SOLUTIONS)
    assert [s.log_odds for s in theirs] == [pytest.approx(s.log_odds, abs=1e-3) for s in ours]
    assert model.capabilities == local.capabilities
    await model.aclose()
    await local.aclose()
