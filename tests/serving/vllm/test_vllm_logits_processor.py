"""The processor under both interfaces, with stand-ins for vLLM's state; nothing is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

KEY = "reason"


@pytest.fixture
def adapter(_vllm: None) -> Any:
    from reason.serving.vllm import logits_processor as processor

    return processor


def params(*hooks: dict[str, Any], name: str = "a") -> Any:
    order = {KEY: {"id": name, "logits_processors": list(hooks)}} if hooks else None
    return SimpleNamespace(extra_args=order, all_stop_token_ids={0})


def config(*, named: tuple[str, ...] = (), asynchronous: bool = False) -> Any:
    return SimpleNamespace(
        model_config=SimpleNamespace(logits_processors=list(named)),
        scheduler_config=SimpleNamespace(async_scheduling=asynchronous),
    )


def logits(rows: int) -> Any:
    import torch

    return torch.arange(rows * 6, dtype=torch.float32).reshape(rows, 6) / 7


ONLY = {"name": "only_tokens", "args": {"ids": [2]}}
PROBE = {"name": "entropy_probe"}


def test_runner_v1_rows_move(adapter):
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    hooks = adapter.ReasonLogitsProcessor(config(), "cpu", False)
    assert not hooks.is_argmax_invariant()
    hooks.update_state(
        BatchUpdate(
            3, [], [(0, params(), [1], []), (1, params(ONLY), [1], []), (2, params(PROBE, name="p"), [1], [])], []
        )
    )
    changed = hooks.apply(logits(3))
    assert np.isfinite(changed[0].numpy()).all()
    assert np.isfinite(changed[1].numpy()).tolist() == [False, False, True, False, False, False]
    assert np.array_equal(changed[2].numpy(), logits(3)[2].numpy())
    # Row 0 leaves; row 2 becomes row 0; row 1 stays.
    hooks.update_state(BatchUpdate(2, [0], [], [(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    changed = hooks.apply(logits(2))
    assert np.isfinite(changed[0].numpy()).all()
    assert np.isfinite(changed[1].numpy()).sum() == 1
    assert hooks.take_reports(["p", "a", "x"]).keys() == {"p", "a"}
    assert hooks.take_reports(["p"]) == {}


def test_runner_v2_slots_stay_and_rows_are_shuffled(adapter):
    import torch

    ids = torch.zeros(8, 16, dtype=torch.int64)
    ids[3, :6] = torch.tensor([1, 1, 1, 4, 5, 2])  # a prompt of three tokens, then three generated ones
    states = SimpleNamespace(
        prompt_len=SimpleNamespace(np=np.array([2, 0, 0, 3, 0, 5, 0, 0])), all_token_ids=SimpleNamespace(gpu=ids)
    )
    hooks = adapter.ReasonLogitsProcessor(config(), states)
    assert hooks.add_request(3, params(PROBE, name="p"))
    assert hooks.add_request(5, params(ONLY, name="o"))
    assert not hooks.add_request(0, params())
    hooks.apply_staged_writes()

    def step(slots: list[int], positions: list[int]) -> Any:
        ctx = SimpleNamespace(
            idx_mapping_np=np.array(slots),
            expanded_idx_mapping=torch.tensor(slots),
            pos=torch.tensor(positions),
        )
        return hooks.apply(logits(len(slots)), ctx)

    changed = step([5, 0, 3], [2, 1, 5])  # slot 5 is within its prompt: its row is not used yet
    assert torch.equal(changed, logits(3))
    changed = step([3, 5], [5, 4])
    assert np.isfinite(changed[1].numpy()).sum() == 1
    assert hooks.take_reports(["p"])["p"]["extras"]["entropy_probe"]["positions"] == [3]
    assert not hooks.add_request(5, params())  # the slot is reused by a request without logits processors
    assert torch.equal(step([5], [7]), logits(1))


def test_both_loaders_take_the_class(adapter):
    from reason.serving.vllm.options import PROCESSOR
    from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerV1
    from vllm.v1.sample.logits_processor import _load_custom_logitsprocs
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerV2
    from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs

    for load, runner in ((_load_custom_logitsprocs, RunnerV1), (_load_v2_logitsprocs, RunnerV2)):
        loaded = load((PROCESSOR,))
        assert adapter.ReasonLogitsProcessor in loaded
        assert all(issubclass(c, runner) for c in loaded)


def test_a_runner_that_feeds_stale_texts_fails_the_sample(adapter):
    hooks = adapter.ReasonLogitsProcessor(config(asynchronous=True), "cpu", False)
    from vllm.v1.sample.logits_processor import BatchUpdate

    hooks.update_state(BatchUpdate(1, [], [(0, params(PROBE), [1], [4, -1])], []))
    hooks.apply(logits(1))
    assert "does not pass the generated tokens" in hooks.take_reports(["a"])["a"]["failure"][1]


def test_a_request_that_is_computed_again_keeps_its_memory(adapter):
    from vllm.v1.sample.logits_processor import BatchUpdate

    hooks, said = adapter.ReasonLogitsProcessor(config(), "cpu", False), []
    for row in (0, 1):
        hooks.update_state(BatchUpdate(2, [], [(row, params(PROBE), [1], said)], []))
        hooks.apply(logits(2))
        hooks.update_state(BatchUpdate(2, [row], [], []))
        said = [*said, 3]
    assert hooks.take_reports(["a"])["a"]["extras"]["entropy_probe"]["positions"] == [0, 1]


def test_reports_that_nobody_fetches_are_bounded(adapter, monkeypatch):
    monkeypatch.setattr(adapter, "MAX_REPORTS", 3)
    hooks = adapter.ReasonLogitsProcessor(config(), None)
    for slot in range(5):
        hooks.add_request(slot, params(PROBE, name=str(slot)))
    assert hooks.take_reports([str(i) for i in range(5)]).keys() == {"2", "3", "4"}
