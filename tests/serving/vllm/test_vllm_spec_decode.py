"""Drafting on vLLM before vLLM runs: settings, the arguments made of them, refusals, counters, repairs."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import LogitsProcessorSpec, SamplingParams
from reason.core.settings import VllmSettings, load_settings
from reason.serving.spec_decode import SpecDecodeCounters
from reason.serving.vllm.metrics import SpecDecodeStatsLogger
from reason.serving.vllm.options import (
    PROCESSOR,
    check_speculative_request,
    engine_arguments,
    is_speculative,
    speculative_arguments,
    speculative_identity,
)
from reason.serving.vllm.shared_cache import shared_cache_arguments

FOLDER = Path("/models/x")


# --- Settings and arguments


def test_nothing_is_drafted_unless_it_is_requested() -> None:
    assert not is_speculative(VllmSettings())
    arguments = engine_arguments(FOLDER, VllmSettings(), None, cpu=True)
    assert "speculative_config" not in arguments
    assert arguments["logits_processors"] == [PROCESSOR]


def test_ngrams_become_vllms_configuration_and_leave_no_processors() -> None:
    chosen = VllmSettings(speculative_method="ngram")
    arguments = engine_arguments(FOLDER, chosen, None, cpu=True)
    expected = {"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_max": 4, "prompt_lookup_min": 4}
    assert arguments["speculative_config"] == expected
    assert arguments["logits_processors"] == []
    assert is_speculative(chosen)


def test_suffixes_become_vllms_configuration_where_their_package_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "arctic_inference")
    actual = speculative_arguments(VllmSettings(speculative_method="suffix"))
    assert actual == {"speculative_config": {"method": "suffix", "num_speculative_tokens": 32}}


def test_suffixes_without_their_package_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"arctic-inference.*pip install arctic-inference"):
        engine_arguments(FOLDER, VllmSettings(speculative_method="suffix"), None, cpu=True)


@pytest.mark.parametrize("field", ["speculative_config", "spec_method", "spec_model", "spec_tokens"])
def test_the_drafting_method_is_set_once(field: str) -> None:
    both = VllmSettings(
        speculative_method="ngram", engine={field: {"method": "ngram"} if field == "speculative_config" else "x"}
    )
    with pytest.raises(UserError, match=rf"vllm\.speculative_method and vllm\.engine\.{field}.*remove one"):
        engine_arguments(FOLDER, both, None, cpu=True)


def test_vllms_own_arguments_leave_no_processors_either() -> None:
    own: dict[str, Any] = {"method": "ngram", "num_speculative_tokens": 2}
    chosen = VllmSettings(engine={"speculative_config": own})
    arguments = engine_arguments(FOLDER, chosen, None, cpu=True)
    assert (arguments["speculative_config"], arguments["logits_processors"]) == (own, [])


def test_workers_on_one_cache_are_refused_next_to_drafts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, '
        '"vocab_size": 50, "intermediate_size": 64, "max_position_embeddings": 512}'
    )
    chosen = VllmSettings(speculative_method="ngram", shared_workers=True)
    with pytest.raises(UserError, match=r"vllm\.speculative_method is incompatible with vllm\.shared_workers"):
        shared_cache_arguments(tmp_path, chosen, "0.32.0", {"logits_processors": []}, cpu=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPECULATIVE_METHOD", "trie"),
        ("NUM_SPECULATIVE_TOKENS", "0"),
        ("NUM_SPECULATIVE_TOKENS", "129"),
        ("PROMPT_LOOKUP_TOKENS", "0"),
    ],
)
def test_settings_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"REASON_VLLM__{name}", value)
    with pytest.raises(UserError, match=rf"vllm\.{name.lower()}"):
        load_settings()


# --- Refusals and names


@pytest.mark.parametrize(
    ("sampling", "what"),
    [
        (
            {"logits_processors": (LogitsProcessorSpec(name="only_tokens", args={"ids": [1]}),)},
            "logits processor only_tokens",
        ),
        ({"json_schema": {"type": "object"}}, "json_schema"),
    ],
)
def test_what_drafting_excludes_is_refused_with_the_remedy(sampling: dict[str, Any], what: str) -> None:
    with pytest.raises(CapabilityMissing, match=rf"{what}.*vllm\.speculative_method = \"off\"") as caught:
        check_speculative_request(SamplingParams(**sampling), "vllm/x", samples_exactly=True)
    assert (caught.value.feature, caught.value.model) == (what, "vllm/x")


def test_sampling_is_refused_where_it_would_be_wrong() -> None:
    check_speculative_request(SamplingParams(temperature=1), "vllm/x", samples_exactly=True)
    check_speculative_request(SamplingParams(temperature=0), "vllm/x", samples_exactly=False)
    with pytest.raises(CapabilityMissing, match="temperature above 0"):
        check_speculative_request(SamplingParams(temperature=1), "vllm/x", samples_exactly=False)


def test_a_models_identity_tells_how_it_drafts() -> None:
    assert speculative_identity(None) == ""
    ngram = SimpleNamespace(method="ngram", num_speculative_tokens=5, prompt_lookup_min=4, prompt_lookup_max=4)
    assert speculative_identity(ngram) == "+ngram-5-4-4"
    assert speculative_identity(SimpleNamespace(method="suffix", num_speculative_tokens=32)) == "+suffix-32"


# --- Counters


def step(latencies: int, firsts: int, written: int, drafted: tuple[int, int] | None = None) -> tuple[Any, Any]:
    reported = None if drafted is None else SimpleNamespace(num_draft_tokens=drafted[0], num_accepted_tokens=drafted[1])
    return SimpleNamespace(spec_decoding_stats=reported), SimpleNamespace(
        inter_token_latencies_iter=[0.1] * latencies,
        time_to_first_tokens_iter=[0.1] * firsts,
        num_generation_tokens=written,
    )


def test_steps_are_added_up() -> None:
    listening = SpecDecodeStatsLogger()
    assert listening(None) is listening
    listening.record(None, None)
    listening.record(*step(0, 2, 2))  # two prompts
    first = listening.counters
    assert first == SpecDecodeCounters()
    assert first.tokens_per_pass == 1.0
    listening.record(*step(2, 0, 6, (10, 4)))
    listening.record(*step(2, 0, 2))
    listening.record(*step(1, 1, 2))
    assert listening.counters == SpecDecodeCounters(passes=5, drafted=10, accepted=4, tokens=9)
    assert listening.counters.tokens_per_pass == pytest.approx(9 / 5)
    since = listening.counters - SpecDecodeCounters(passes=2, drafted=10, accepted=4, tokens=6)
    assert since == SpecDecodeCounters(passes=3, tokens=3)


# --- Corrections in vLLM's workers


def sampler_of(*, expands: bool = True, bears: bool = True, refuses: bool = True) -> ModuleType:
    """A stand-in for vLLM's module, whose functions are right or wrong as those of the CPU build are."""
    import torch
    from reason.serving.vllm.rejection_sampler import expand_batch_to_tokens

    module = ModuleType("rejection_sampler")

    def unwritten(x: Any, ends: Any, count: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        return torch.full((count,), 1e-33).to(x)

    def sample(outputs: Any, ends: Any, drafts: Any, _: Any, probs: Any, *rest: Any) -> None:
        behind, instead, chances, _greedy, _most, _rates = rest
        row = probs.storage_offset()
        flat = probs.as_strided((row + probs.numel(),), (1,), 0).tolist()
        for at, draft in enumerate(drafts.tolist()):
            chance = flat[row + at * probs.shape[1] + draft]
            if chance >= chances[at] and not (refuses and draft < 0):
                outputs[0, at] = draft
            else:
                outputs[0, at] = instead[at]
                return
        outputs[0, len(drafts)] = behind[0, 0]

    def constrain(logits: Any, ends: Any, how: Any) -> Any:
        maximum = how.top_k if bears or len(logits) else how.top_k[:0]
        return logits / maximum.max()

    module.apply_sampling_constraints = constrain  # type: ignore[attr-defined]
    module.expand_batch_to_tokens = expand_batch_to_tokens if expands else unwritten  # type: ignore[attr-defined]
    module._rejection_random_sample = sample  # type: ignore[attr-defined]
    return module


def stand_in(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *, cpu: bool = True) -> None:
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: cpu)  # type: ignore[attr-defined]
    sample = ModuleType("vllm.v1.sample")
    sample.rejection_sampler = module  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.v1"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setitem(sys.modules, "vllm.v1.sample", sample)
    monkeypatch.setitem(sys.modules, "vllm.v1.sample.rejection_sampler", module)


@pytest.mark.parametrize("right", [{}, {"expands": False}, {"bears": False}, {"refuses": False}])
def test_wrong_functions_are_replaced_and_correct_ones_kept(
    monkeypatch: pytest.MonkeyPatch, right: dict[str, bool]
) -> None:
    pytest.importorskip("torch", reason="the extra [local] is not installed")
    from reason.serving.vllm import rejection_sampler

    module = sampler_of(**right)
    was = [getattr(module, name) for name in rejection_sampler.PATCHED]
    stand_in(monkeypatch, module)
    assert rejection_sampler.ensure_exact_sampling()
    mended = [getattr(module, name) for name in rejection_sampler.PATCHED]
    kept = [one is other for one, other in zip(was, mended, strict=True)]
    assert kept == [right.get(name, True) for name in ("expands", "bears", "refuses")]
    assert rejection_sampler.ensure_exact_sampling()
    assert mended == [getattr(module, name) for name in rejection_sampler.PATCHED]


def test_steps_with_draft_tokens_are_constrained(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="the extra [local] is not installed")
    from reason.serving.vllm.rejection_sampler import accepting_empty

    module = sampler_of(bears=False)
    how = SimpleNamespace(top_k=torch.tensor([2]))
    constrain = accepting_empty(module.apply_sampling_constraints)
    assert constrain(torch.ones(1, 4), torch.tensor([1]), how).tolist() == [[0.5] * 4]
    assert constrain(torch.ones(0, 4), torch.tensor([0]), how).shape == (0, 4)


def test_what_cannot_be_corrected_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the extra [local] is not installed")
    from reason.serving.vllm.rejection_sampler import ensure_exact_sampling

    module = sampler_of()
    module._rejection_random_sample = lambda outputs: None  # type: ignore[attr-defined]  # takes other arguments
    stand_in(monkeypatch, module)
    assert not ensure_exact_sampling()
    del module._rejection_random_sample
    assert not ensure_exact_sampling()
    stand_in(monkeypatch, module, cpu=False)
    assert ensure_exact_sampling()


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 2.5]), st.integers(0, 4)), min_size=1, max_size=6))
def test_each_draft_gets_its_requests_number(requests: list[tuple[float, int]]) -> None:
    torch = pytest.importorskip("torch", reason="the extra [local] is not installed")
    from reason.serving.vllm.rejection_sampler import expand_batch_to_tokens

    heat = torch.tensor([t for t, _ in requests])
    ends = torch.tensor([n for _, n in requests], dtype=torch.int32).cumsum(0).to(torch.int32)
    actual = expand_batch_to_tokens(heat, ends, int(ends[-1]), replace_from=0, replace_to=1)
    assert actual.dtype == heat.dtype
    expected = [t or 1.0 for t, n in requests for _ in range(n)]
    assert all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(actual.tolist(), expected, strict=True))
