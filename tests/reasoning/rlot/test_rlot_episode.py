"""Episodes on a scripted model: what may run, when they end, and what they ask for."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reason.core.budget import Budget
from reason.core.errors import BudgetExceeded, UserError
from reason.core.store.sqlite import SqliteStore
from reason.reasoning.rlot.blocks import Block
from support.block_model import BlockRuns, BlockWorld, names


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


def kinds(runs):
    return [kind for kind, _, _ in runs.world.seen]


@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("with_assessment", [True, False])
async def test_calls_of_an_episode(store, m, with_assessment):
    world = BlockWorld()
    world.split = lambda steps: [f"part {i}" for i in range(m)]
    runs = BlockRuns(store, world)
    episode = await runs.episode(f"{m}/{with_assessment}", with_assessment=with_assessment)
    await episode.begin()
    expected = int(with_assessment)
    assert episode.runner.calls == expected
    for block, cost in ((Block.REASON, 3), (Block.REFINE, 3), (Block.DEBATE, 5), (Block.DECOMPOSE, m + 4)):
        await episode.act(block)
        expected += cost if with_assessment else cost - 1
        assert episode.runner.calls == expected
    await episode.act(Block.TERMINATE)
    assert episode.runner.calls == expected + 1 == runs.run.ledger.used("calls")
    assert kinds(runs).count("assess") == (5 if with_assessment else 0)
    assert kinds(runs)[-1] == "answer"
    assert not episode.forced


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    mode=st.sampled_from(["none", "reference"]),
    says_yes=st.none() | st.integers(1, 5),
    most=st.integers(1, 5),
)
async def test_episode_invariants_for_any_actions(tmp_path_factory, actions, mode, says_yes, most):
    store = await SqliteStore.open(tmp_path_factory.mktemp("rules") / "runs.sqlite3")
    world = BlockWorld()
    world.finished = lambda steps: "yes" if len(steps) == says_yes else "no"
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


async def test_positive_finish_check_ends_episode(store):
    runs = BlockRuns(store, BlockWorld())
    runs.world.finished = lambda steps: "Yes." if len(steps) == 2 else "no"
    episode = await runs.episode()
    await episode.begin()
    await episode.act(Block.REASON)
    assert not episode.is_done
    await episode.act(Block.DEBATE)
    assert episode.is_done
    assert kinds(runs)[-3:] == ["assess", "finished", "answer"]
    assert names(episode.blocks) == ["reason", "debate"]
    assert episode.state == (3, 2, 3, 1, 2, 2, 3)
    assert not episode.forced
    assert episode.completion.text.endswith("is 7.")


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


async def test_first_refine_is_masked_or_substituted(store):
    runs = BlockRuns(store, BlockWorld())
    masked = await runs.episode("masked")
    assert masked.legal == (True, True, True, False, True)
    with pytest.raises(UserError, match="'refine' is not legal"):
        await masked.act(Block.REFINE)
    assert masked.num_blocks == 0
    other = await runs.episode("reference", parity="reference")
    assert other.legal == (True,) * 5
    assert await other.act(Block.REFINE) is Block.REASON
    assert other.trajectory.steps == ("reasoned 1.",)
    assert await other.act(Block.REFINE) is Block.REFINE


async def test_state_follows_assessments(store):
    runs = BlockRuns(store, BlockWorld())
    episode = await runs.episode()
    assert episode.state == (0,) * 7
    runs.world.assess = lambda steps: (len(steps),) * 7
    for n in range(4):
        await (episode.begin() if n == 0 else episode.act(Block.REASON))
        assert episode.state == (n,) * 7


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


async def test_invalid_limits_raise(store):
    with pytest.raises(UserError):
        await BlockRuns(store, BlockWorld()).episode(max_blocks=0)
