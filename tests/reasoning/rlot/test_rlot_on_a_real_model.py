"""`rlot` on real weights: every block and policy ends with an answer that is replayed as it was."""

import pytest
from reason import Reasoner, Settings
from reason.core.settings import LocalSettings
from reason.reasoning.rlot.block_runner import BlockLimits
from reason.reasoning.rlot.rlot import RLoT

QUESTION = "Tom has 3 apples and buys 2 more. How many apples does he have?"
LIMITS = BlockLimits(
    step_tokens=8, plan_tokens=8, pick_tokens=4, subtask_tokens=6, summary_tokens=8, answer_tokens=8, subtasks=1
)

pytestmark = pytest.mark.real


@pytest.fixture
def settings(tmp_path, smollm2_files, monkeypatch):
    monkeypatch.setattr(RLoT, "limits", LIMITS)
    return Settings(
        model="local/smollm2-135m",
        store=tmp_path / "runs.sqlite3",
        cache_dir=smollm2_files.directory.parent.parent,
        seed=1,
        local=LocalSettings(threads=1),
    )


async def ask(settings, *, budget=None, **parameters):
    async with Reasoner(
        strategy="rlot",
        parameters=parameters,
        budget=budget or {},
        settings=settings,
    ) as reasoner:
        answer = await reasoner.aask(QUESTION)
        replayed = await reasoner.areplay(answer.run_id)
    assert replayed.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    return answer


async def test_blocks_run_and_reuse_the_prefix_cache(settings):
    answer = await ask(settings, policy="fixed", sequence=["R", "D", "Db", "Rf", "Ga"])
    assert answer.text.startswith("Step 1: ")
    assert "Therefore, the answer is" in answer.text
    assert answer.stopped == "done"
    assert 5 <= answer.usage.model_calls <= 2 + 5 + 4 + 2 + 1
    assert answer.usage.cached_tokens > answer.usage.prompt_tokens / 2
