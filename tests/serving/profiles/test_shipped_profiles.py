"""The shipped profiles are valid, and match the names that models have in practice."""

import tomllib
from pathlib import Path

import pytest
from reason.serving.profiles import profile as profile_module
from reason.serving.profiles.profile import merge_profile, parse_profile, shipped_layers

FILES = sorted(Path(profile_module.__file__).parent.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_have_valid_fields_only(path):
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["profile"]
    for entry in entries:
        patterns = entry.pop("match")
        assert all(pattern == pattern.lower() for pattern in patterns)
        entry.pop("switch", None)
        parse_profile(entry, path.name)


@pytest.mark.parametrize(
    ("name", "thinks", "tag"),
    [
        ("Qwen/Qwen3-8B", "default", "<think>\n"),
        ("hosted_vllm/qwen3-0.6b-awq", "default", "<think>\n"),
        ("Qwen/Qwen3-4B-Instruct-2507", "never", "<think>\n"),
        ("Qwen/Qwen3-4B-Thinking-2507", "always", "<think>\n"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "always", "<think>\n"),
        ("deepseek-ai/DeepSeek-V3.1", "opt-in", "<think>"),
        ("openai/gpt-oss-20b", "always", "<think>"),
        ("mistralai/Magistral-Small-2509", "always", "[THINK]"),
        ("ByteDance-Seed/Seed-OSS-36B-Instruct", "default", "<seed:think>"),
        ("google/gemma-4-31b-it", "opt-in", "<|channel>thought\n"),
        ("zai-org/GLM-4.6", "default", "<think>"),
        ("moonshotai/Kimi-K2-Thinking", "always", "<think>"),
        ("MiniMaxAI/MiniMax-M2", "always", "<think>\n"),
        ("ibm-granite/granite-3.3-8b-instruct", "opt-in", "<think>"),
        ("HuggingFaceTB/SmolLM3-3B", "default", "<think>\n"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "never", "<think>"),
        ("meta-llama/Llama-3.3-70B-Instruct", "never", "<think>"),
    ],
)
def test_open_models_are_matched_by_their_names(name, thinks, tag):
    profile = merge_profile(shipped_layers(name))
    assert (profile.thinks, profile.open_tag) == (thinks, tag)
    assert ("none" in profile.efforts) == (thinks in ("default", "opt-in"))


def test_a_limit_of_the_thought_is_an_argument_of_seed_oss_template():
    profile = merge_profile(shipped_layers("ByteDance-Seed/Seed-OSS-36B-Instruct"))
    assert profile.effort_fields("high", 512) == {"chat_template_kwargs": {"thinking_budget": 512}}
    assert profile.effort_fields("none") == {"chat_template_kwargs": {"thinking_budget": 0}}
