"""What chat templates show of how a model thinks."""

from __future__ import annotations

import pytest
from reason.serving.profiles.profile import merge_profile, parse_profile
from reason.serving.template_profiles import RENDERS, profile_of_renders

HEAD = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


def renders(default: str, **others: str) -> dict[str, str]:
    """Renders that all equal the default one, except for those given as `enable_thinking_false=…`."""
    named = {name.rpartition("_")[0] + "=" + name.rpartition("_")[2]: text for name, text in others.items()}
    return {name: HEAD + named.get(name, default) for name in RENDERS}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (renders("", enable_thinking_false=EMPTY), ("default", False, "<think>\n", "\n</think>\n\n")),
        (renders("<think>\n", enable_thinking_false=EMPTY), ("default", True, "<think>\n", "\n</think>\n\n")),
        (renders("</think>", thinking_true="<think>"), ("opt-in", True, "<think>", "</think>")),
        (renders("<think>\n"), ("always", True, "<think>\n", "</think>")),
        (renders("", enable_thinking_false="\n<think></think>"), ("default", False, "<think>", "</think>")),
        (renders("", enable_thinking_true="<|think|>"), ("opt-in", False, "<|channel>thought\n", "<channel|>")),
        (renders(EMPTY), ("never",)),
    ],
    ids=[
        "qwen3",
        "qwen3.5",
        "deepseek-v3.1",
        "deepseek-r1",
        "glm-4.5",
        "gemma-4",
        "closes the thought without a switch",
    ],
)
def test_template_shows_when_and_how_a_model_thinks(shown, expected):
    fields = profile_of_renders(shown)
    names = ("thinks", "opened_by_template", "open_tag", "close_tag")
    assert tuple(fields.get(name) for name in names[: len(expected)]) == expected
    parse_profile(fields, "chat template")


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(renders(""), id="no argument has an effect"),
        pytest.param(renders("", thinking_true="Be brief."), id="an argument that has nothing to do with thoughts"),
        pytest.param({"default": HEAD}, id="a template that refuses all arguments"),
    ],
)
def test_template_that_shows_nothing_decides_nothing(shown):
    assert profile_of_renders(shown) == {}


def test_switch_is_the_argument_of_every_effort():
    efforts = profile_of_renders(renders("", enable_thinking_false=EMPTY))["efforts"]
    assert efforts == {
        effort: {"chat_template_kwargs": {"enable_thinking": effort != "none"}}
        for effort in ("none", "minimal", "low", "medium", "high", "max")
    }


def test_harmony_has_channels_and_three_efforts():
    head = "<|start|>system<|message|># Valid channels: analysis, commentary, final.<|end|><|start|>assistant"
    fields = profile_of_renders({"default": head})
    assert (fields["thinks"], fields["thought"]) == ("always", "channel")
    sent = {effort: request["reasoning_effort"] for effort, request in fields["efforts"].items()}
    assert sent == {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "high"}


def test_open_and_close_tag_are_the_templates_own_empty_thought():
    for empty in ("<think>\n\n</think>\n\n", "<think></think>", "<think>\n</think>\n", "[THINK][/THINK]"):
        fields = profile_of_renders(renders("", enable_thinking_false=empty))
        assert f"{fields['open_tag']}{fields['close_tag']}" == empty


@pytest.mark.parametrize(("thinks", "efforts"), [("always", ["low"]), ("never", [])])
def test_efforts_of_a_weaker_layer_do_not_contradict_a_stronger_one(thinks, efforts):
    weaker = {"thinks": "default", "efforts": {"none": {}, "low": {"reasoning_effort": "low"}}}
    merged = merge_profile([("user", {"thinks": thinks}), ("map", weaker)])
    assert list(merged.efforts) == efforts
    assert not (thinks == "always" and merged.can_skip_thinking)
