"""Real vLLM servers with `--runner pooling`, over HTTP."""

import json

import pytest
from reason.core.errors import UnknownName
from reason.core.settings import ProviderSettings, Settings
from reason.serving.rewards.factory import load_reward_model

pytestmark = pytest.mark.slow
PROBLEM = "What is 2 + 3 * 4?"
SOLUTIONS = [["3 * 4 = 12.", "2 + 12 = 14."], ["The answer is 20."], ["a", "bb " * 30, "c", "d"]]
NAME = "hosted_vllm_pooling/tiny"


async def test_a_served_process_model_gives_the_same_scores(process_directory, pooling_settings, serve):
    """The server sends a row for every token; the engine of the other tests one for every step."""
    local = await load_reward_model(f"local/{process_directory}", pooling_settings)
    with serve(process_directory, "--pooler-config", json.dumps({"tok_pooling_type": "ALL"})) as base:
        providers = {"hosted_vllm_pooling": ProviderSettings(api_base=base)}
        settings = Settings(providers=providers)
        with pytest.raises(UnknownName) as reported:
            await load_reward_model("hosted_vllm_pooling/tinny", settings)
        assert reported.value.nearest == (NAME,)
        model = await load_reward_model(NAME, settings)
        assert (model.capabilities.kind, model.capabilities.context_tokens) == ("process", 512)
        assert not model._activated
        for which in ("all", "last"):
            theirs = await model.score_steps(PROBLEM, SOLUTIONS, which)
            ours = await local.score_steps(PROBLEM, SOLUTIONS, which)
            assert [s.log_odds for s in theirs] == [pytest.approx(s.log_odds, abs=1e-3) for s in ours]
            assert [(s.usage, s.passes) for s in theirs] == [(s.usage, s.passes) for s in ours]
        fine, long = await model.score_steps(PROBLEM, [["fine"], ["x" * 600]])
        assert fine.ok
        assert long.failure.code == "context_too_long"
        await model.aclose()
    await local.aclose()
