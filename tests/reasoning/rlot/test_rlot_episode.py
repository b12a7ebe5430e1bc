"""Episodes on a scripted model: what may run, when they end, and what they ask for."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import BudgetExceeded, UserError
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.rlot.blocks import Block
from support.block_model import BlockRuns, BlockWorld


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    mode=st.sampled_from(["none", "reference"]),
    says_yes=st.none() | st.integers(1, 5),
    most=st.integers(1, 5),
)
async def test_episode_invariants_for_any_actions(tmp_path_factory, actions, mode, says_yes, most):
    store = await SqliteStore.open(tmp_path_factory.mktemp("rules") / "runs.sqlite3")
    world = BlockWorld(finished=lambda steps: "yes" if len(steps) == says_yes else "no")
    episode = await BlockRuns(store, world).episode(parity=mode, max_blocks=most)
    await episode.begin()
    taken = 0
    for action in actions:
        if episode.is_done:
            break
        if not episode.legal[action]:
            before = episode.runner.calls
            with pytest.raises(UserError, match="is not legal"):
                await episode.act(action)
            assert episode.runner.calls == before
            continue
        ran = await episode.act(action)
        taken += 1
        assert ran is episode.blocks[-1]
        if taken == 1:
            assert ran is not Block.REFINE
    running = [block for block in episode.blocks if block is not Block.TERMINATE]
    assert len(running) == episode.num_blocks <= most
    assert Block.TERMINATE not in episode.blocks[:-1]
    assert [kind for kind, _, _ in world.seen].count("answer") == episode.is_done
    if says_yes is not None and len(episode.trajectory.steps) == says_yes:
        assert episode.is_done
        assert episode.blocks[-1] is not Block.TERMINATE
    if episode.is_done:
        seen = len(world.seen)
        for again in (episode.begin(), episode.act(0), episode.act(4), episode.finish()):
            with pytest.raises(UserError, match="has ended"):
                await again
        assert len(world.seen) == seen
    await store.aclose()


async def test_answer_is_forced_after_five_blocks(store):
    runs = BlockRuns(store, BlockWorld())
    episode = await runs.episode(parity="reference")
    await episode.begin()
    for _ in range(5):
        assert await episode.act(Block.REASON) is Block.REASON
    assert await episode.act(Block.DEBATE) is Block.TERMINATE
    assert episode.forced
    assert episode.num_blocks == 5
    masked = await runs.episode("masked", with_assessment=False)
    for _ in range(5):
        await masked.act(Block.REASON)
    assert masked.legal == (False, False, False, False, True)
    await masked.act(Block.TERMINATE)
    assert masked.forced


@pytest.mark.parametrize(
    ("calls", "ran", "steps"), [(1, 0, 0), (2, 1, 1), (3, 1, 1), (4, 1, 1), (5, 2, 2), (6, 2, 2), (7, 2, 2)]
)
async def test_episode_after_an_error(store, calls, ran, steps):
    episode = await BlockRuns(store, BlockWorld()).episode(str(calls), budget=Budget(calls=calls))
    await episode.begin()
    with pytest.raises(BudgetExceeded):
        for _ in range(3):
            await episode.act(Block.REASON)
    assert (episode.num_blocks, len(episode.trajectory.steps)) == (ran, steps)
    assert len(episode.blocks) == ran
    assert not episode.is_done
