"""Every family's forward, over logs with forks, against transformers on the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from reason.core.errors import CapabilityMissing, DataError
from reason.serving.local.attention import TokenChunk, group_by_cache
from reason.serving.local.config import ModelConfig
from reason.serving.local.engine import _load_model
from reason.serving.local.model import CausalLM, Decoder
from reason.serving.local.transformers_model import TransformersModel
from reason.serving.local.weights import Int4Linear, PackedLinear, PlainLinear, can_prepack

FIRST = [(13 * i + 5) % 264 for i in range(100)]
SECOND = FIRST[:40] + [(17 * i + 3) % 264 for i in range(60)]
OTHER = [(19 * i + 2) % 264 for i in range(30)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def reference(directory: Path, ids: Sequence[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.tensor([list(ids)])).logits[0]


def load(files: Callable, variant: str, weight_format: str = "fp32") -> CausalLM:
    return _load_model(files(variant), weight_format)


def forked(forward: CausalLM) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of the two texts that part at token 40, and of an unrelated one: mixed chunks and steps."""
    with torch.inference_mode():
        log, other_log = forward.new_kv_cache(64), forward.new_kv_cache(64)
        log.resize(512)
        one = log.new_table()
        parts_one = [forward.forward([TokenChunk(log, one, FIRST[:25], range(25))])]
        parts_one.append(forward.forward([TokenChunk(log, one, FIRST[25:40], range(15))]))
        two, other = log.fork(one), other_log.new_table()
        both = forward.forward(
            group_by_cache(
                [
                    TokenChunk(log, one, FIRST[40:41], [0]),
                    TokenChunk(other_log, other, OTHER[:20], range(20)),
                    TokenChunk(log, two, SECOND[40:60], range(20)),
                ]
            )
        )
        parts_one.append(both[:1])
        parts_two, parts_other = [both[1:21]], [both[21:]]
        for i in range(10):
            out = forward.forward(
                group_by_cache(
                    [
                        TokenChunk(other_log, other, OTHER[20 + i : 21 + i], [0]),
                        TokenChunk(log, one, FIRST[41 + i : 42 + i], [0]),
                        TokenChunk(log, two, SECOND[60 + i : 61 + i], [0]),
                    ]
                )
            )
            parts_other.append(out[:1])
            parts_one.append(out[1:2])
            parts_two.append(out[2:])
    return torch.cat(parts_one), torch.cat(parts_two), torch.cat(parts_other)


NATIVE = ["llama", "llama3", "qwen2", "qwen3"]


@pytest.mark.parametrize("variant", [*NATIVE, "gpt_neox", "gemma", "gemma3", "qwen2_sliding"])
def test_logits_equal_those_of_transformers(
    variant,
    tiny_files,
    tiny_directory,
):
    forward = load(tiny_files, variant)
    assert isinstance(forward, Decoder if variant in NATIVE else TransformersModel)
    one, two, other = forked(forward)
    directory = tiny_directory(variant)
    torch.testing.assert_close(one, reference(directory, FIRST[:51]), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(two, reference(directory, SECOND[:70])[40:], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(other, reference(directory, OTHER), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("variant", ["llama", "gemma3"])
def test_bf16_is_near(variant, tiny_files, tiny_directory):
    one, _, _ = forked(load(tiny_files, variant, "bf16"))
    expected = reference(tiny_directory(variant), FIRST[:51])
    assert (one - expected).abs().mean() < 0.1 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prepacked_and_plain_products_are_the_same(dtype):
    if not can_prepack(dtype):
        pytest.skip("no prepacked product here")
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 64).to(dtype), torch.randn(48).to(dtype)
    packed, plain = PackedLinear(weight, bias), PlainLinear(weight, bias)
    for rows in (1, 2, 5):
        x, other = torch.randn(rows, 64).to(dtype), torch.randn(rows, 48).to(dtype)
        for mine, theirs in (
            (packed(x), plain(x)),
            (packed.silu(x), plain.silu(x)),
            (packed.plus(x, other), plain.plus(x, other)),
            (packed.times(x, other), plain.times(x, other)),
        ):
            torch.testing.assert_close(mine.float(), theirs.float(), atol=0.25, rtol=0.02)


def test_int4_multiplies_by_weights_rounded_to_sixteen_levels():
    torch.manual_seed(0)
    weight, x = torch.randn(32, 128), torch.randn(3, 128).bfloat16()
    grouped = weight.view(32, 4, 32)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    rounded = (low + ((grouped - low) / (high - low) * 15).round() / 15 * (high - low)).view(32, 128)
    product = Int4Linear(weight)(x).float()
    torch.testing.assert_close(product, x.float() @ rounded.T, atol=0.3, rtol=0.02)
    assert (product - x.float() @ weight.T).abs().mean() > 0.15


def test_int4_runs_and_is_refused_for_other_families(tiny_files):
    one, _, _ = forked(load(tiny_files, "llama", "int4"))
    assert bool(one.isfinite().all())
    with pytest.raises(CapabilityMissing, match="int4"):
        load(tiny_files, "gemma", "int4")


def test_an_unsupported_family_is_refused(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **settings)).save_pretrained(tmp_path)
    with pytest.raises(CapabilityMissing, match="family bloom"):
        TransformersModel.load(tmp_path, "fp32", "local/bloom")


def test_variants_with_other_computations_are_not_native(tmp_path, tiny_directory):
    config = json.loads((tiny_directory("llama") / "config.json").read_text())
    for change in (
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
        {"mlp_bias": True},
        {"use_sliding_window": True, "sliding_window": 24},
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        assert not ModelConfig.is_native(tmp_path)
        with pytest.raises(DataError):
            ModelConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ModelConfig.is_native(tmp_path)


def test_configurations_of_older_releases_mean_the_same(tiny_directory):
    config = json.loads((tiny_directory("llama3") / "config.json").read_text())
    scaling = config.pop("rope_parameters")
    old = config | {"rope_theta": scaling["rope_theta"], "rope_scaling": scaling}
    expected, actual = ModelConfig.from_directory(tiny_directory("llama3")).rope, ModelConfig.from_dict(old, "old").rope
    assert expected is not None
    assert actual is not None
    assert torch.equal(actual, expected)


def test_broken_directories_are_data_errors(tmp_path, tiny_directory):
    with pytest.raises(DataError, match="cannot read"):
        ModelConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text((tiny_directory("llama") / "config.json").read_text())
    with pytest.raises(DataError, match="safetensors"):
        Decoder.load(tmp_path, "fp32")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match="not a readable"):
        Decoder.load(tmp_path, "fp32")
