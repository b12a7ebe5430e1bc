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


def test_runner_v1_rows_move(adapter: Any) -> None:
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


def test_runner_v2_slots_stay_and_rows_are_shuffled(adapter: Any) -> None:
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


def test_both_loaders_take_the_class_and_the_plugin(adapter: Any) -> None:
    from importlib.metadata import entry_points

    from reason.serving.vllm.options import PROCESSOR
    from vllm.v1.sample.logits_processor import LogitsProcessor as RunnerV1
    from vllm.v1.sample.logits_processor import _load_custom_logitsprocs
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as RunnerV2
    from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs

    [plugin] = entry_points(group="vllm.logits_processors", name="reason")
    assert plugin.load() is adapter.ReasonLogitsProcessorPlugin
    for load, runner in ((_load_custom_logitsprocs, RunnerV1), (_load_v2_logitsprocs, RunnerV2)):
        loaded = load((PROCESSOR,))
        assert {adapter.ReasonLogitsProcessor, adapter.ReasonLogitsProcessorPlugin} <= set(loaded)
        assert all(issubclass(c, runner) for c in loaded)


def test_the_plugin_is_idle_where_the_class_is_named(adapter: Any) -> None:
    from reason.serving.vllm.options import PROCESSOR
    from vllm.v1.sample.logits_processor import BatchUpdate

    entered = BatchUpdate(1, [], [(0, params(ONLY), [1], [])], [])
    for named, touched in ((), True), ((PROCESSOR,), False):
        plugin = adapter.ReasonLogitsProcessorPlugin(config(named=named), "cpu", False)
        plugin.update_state(entered)
        assert bool(np.isinf(plugin.apply(logits(1)).numpy()).any()) == touched


def test_a_runner_that_would_feed_stale_texts_is_refused(adapter: Any) -> None:
    from reason.serving.vllm.options import PROCESSOR

    with pytest.raises(ValueError, match="--logits-processors"):
        adapter.ReasonLogitsProcessorPlugin(config(asynchronous=True), "cpu", False)
    adapter.ReasonLogitsProcessorPlugin(config(asynchronous=True, named=(PROCESSOR,)), "cpu", False)
    hooks = adapter.ReasonLogitsProcessor(config(asynchronous=True), "cpu", False)
    from vllm.v1.sample.logits_processor import BatchUpdate

    hooks.update_state(BatchUpdate(1, [], [(0, params(PROBE), [1], [4, -1])], []))
    hooks.apply(logits(1))
    assert "does not pass the generated tokens" in hooks.take_reports(["a"])["a"]["failure"][1]


def test_a_request_that_is_computed_again_keeps_its_memory(adapter: Any) -> None:
    from vllm.v1.sample.logits_processor import BatchUpdate

    hooks, said = adapter.ReasonLogitsProcessor(config(), "cpu", False), []
    for row in (0, 1):
        hooks.update_state(BatchUpdate(2, [], [(row, params(PROBE), [1], said)], []))
        hooks.apply(logits(2))
        hooks.update_state(BatchUpdate(2, [row], [], []))
        said = [*said, 3]
    assert hooks.take_reports(["a"])["a"]["extras"]["entropy_probe"]["positions"] == [0, 1]


def test_reports_that_nobody_fetches_are_bounded(adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "MAX_REPORTS", 3)
    hooks = adapter.ReasonLogitsProcessor(config(), None)
    for slot in range(5):
        hooks.add_request(slot, params(PROBE, name=str(slot)))
    assert hooks.take_reports([str(i) for i in range(5)]).keys() == {"2", "3", "4"}


def pair_order(role: str, name: str, *, together: bool = False, scope: str = "s") -> Any:
    hook = {"name": "contrast", "args": {"pair": "p", "role": role, "plausible": 0, "strength": 1}}
    order = {KEY: {"id": name, "logits_processors": [hook], "scope": scope, "together": together}}
    return SimpleNamespace(extra_args=order, all_stop_token_ids={0})


def test_contrast_mixes_rows_of_runner_v1(adapter: Any) -> None:
    import torch
    from vllm.v1.sample.logits_processor import BatchUpdate

    hooks = adapter.ReasonLogitsProcessor(config(), "cpu", False)
    added = [(0, pair_order("amateur", "a"), [1], []), (1, params(), [1], []), (2, pair_order("expert", "e"), [2], [])]
    hooks.update_state(BatchUpdate(3, [], added, []))
    rows = logits(3)
    changed = hooks.apply(rows.clone())
    assert torch.allclose(changed[2], 2 * rows[2] - rows[0])
    assert torch.equal(changed[0], changed[2])
    assert torch.equal(changed[1], rows[1])
    hooks.update_state(BatchUpdate(2, [0], [], []))  # the partner leaves
    assert torch.equal(hooks.apply(rows.clone())[2], rows[2])
    assert hooks.take_reports(["e"])["e"]["extras"] == {"contrast": {"mixed": 1}}


def test_contrast_mixes_slots_of_runner_v2_in_any_order(adapter: Any) -> None:
    import torch

    ids = torch.zeros(8, 16, dtype=torch.int64)
    states = SimpleNamespace(
        prompt_len=SimpleNamespace(np=np.array([0, 0, 3, 0, 0, 5, 0, 0])), all_token_ids=SimpleNamespace(gpu=ids)
    )
    hooks = adapter.ReasonLogitsProcessor(config(), states)
    assert hooks.add_request(2, pair_order("expert", "e", together=True))
    assert hooks.add_request(5, pair_order("amateur", "a", together=True))

    def step(slots: list[int], positions: list[int]) -> Any:
        ctx = SimpleNamespace(
            idx_mapping_np=np.array(slots), expanded_idx_mapping=torch.tensor(slots), pos=torch.tensor(positions)
        )
        return hooks.apply(logits(len(slots)), ctx)

    for said in (0, 1):
        rows = logits(2)
        changed = step([5, 2], [4 + said, 2 + said])
        assert torch.allclose(changed[1], 2 * rows[1] - rows[0])
        assert torch.equal(changed[0], changed[1])
    changed = step([5, 2], [6, 5])  # one is a token ahead
    assert [int(torch.isfinite(row).sum()) for row in changed] == [1, 1]  # both are ended
    assert hooks.take_reports(["e"])["e"]["failure"][0] == "lockstep_lost"
