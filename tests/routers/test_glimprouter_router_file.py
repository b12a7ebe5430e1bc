"""`glimprouter` with a threshold from a router's file: which one it takes, what it notes, and what it refuses."""

import pytest
from reason.core.errors import DataError, UserError
from reason.reasoning.strategy import create_strategy
from reason.routers.router_files import load_glimprouter_file
from support.router_files import make_router, write_router
from support.two_models import TwoModels


@pytest.fixture
def harness(store):
    return TwoModels(store)


@pytest.fixture
def file(tmp_path):
    return write_router(make_router(threshold=0.5), tmp_path / "pair.json")


def test_threshold_comes_from_the_file_or_a_rate_and_is_noted(file):
    _, own = create_strategy("glimprouter", {"router": str(file)})
    assert own["threshold"] == 0.5
    assert own["router_digest"] == load_glimprouter_file(file).digest
    assert create_strategy("glimprouter", own)[1] == own
    _, of_rate = create_strategy("glimprouter", {"router": str(file), "rate": 0.1})
    assert of_rate["threshold"] == load_glimprouter_file(file).threshold_for(0.1)
    assert create_strategy("glimprouter", of_rate)[1] == of_rate


async def test_replaced_file_is_rejected(harness, file):
    _, noted = create_strategy("glimprouter", {"router": str(file)})
    write_router(make_router(threshold=0.7), file)
    with pytest.raises(UserError, match="has changed since the run started"):
        await harness.solve(**noted)


async def test_missing_file_is_reported_and_a_later_one_ignored(harness, file, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        await harness.solve("a", router=str(tmp_path / "nowhere.json"))
    await harness.begin("b", router=str(tmp_path / "later.json"))
    file.rename(tmp_path / "later.json")
    with pytest.raises(UserError, match="did not exist"):
        await harness.strategy.solve(harness.question, harness.models, harness.run)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"engines": {"main": "large@1", "small": "other@1"}}, "small model other@1"),
        ({"engines": {"main": "other@1", "small": "small@1"}}, "large model other@1"),
        ({"entropy": "full", "k": 0}, "full-vocabulary"),
    ],
)
async def test_file_of_other_models_or_entropy_is_rejected_before_any_call(harness, tmp_path, changed, said):
    other = write_router(make_router(**changed), tmp_path / "other.json")
    with pytest.raises(UserError, match=said):
        await harness.solve(router=str(other))
    assert harness.spent.model_calls == 0


async def test_thresholds_of_thoughts_hold_for_no_other_steps(harness, file, tmp_path):
    harness.think()
    small, large = harness.small.identity, harness.large.identity
    router = make_router(threshold=0.5, engines={"small": small, "main": large}, in_thought=True)
    path = write_router(router, tmp_path / "thoughts.json")
    made = await harness.solve("a", router=str(path))
    assert made.notes["in_thought"] is True
    await harness.begin("b", router=str(path), effort="none")
    with pytest.raises(UserError, match="are of steps of thoughts, and these are of steps of answers"):
        await harness.strategy.solve(harness.question, harness.models, harness.run)
    assert harness.spent.model_calls == 0
