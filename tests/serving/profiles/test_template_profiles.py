"""What chat templates show of how a model thinks."""

from __future__ import annotations

from typing import Any

import pytest
from reason.serving.profiles.detect import RENDERS, profile_of_renders
from reason.serving.profiles.profile import merge_profile, parse_profile

HEAD = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


def renders(default: str, **others: str) -> dict[str, str]:
    """Renders that all equal the default one, except for those given as `enable_thinking_false=…`."""
    named = {name.rpartition("_")[0] + "=" + name.rpartition("_")[2]: text for name, text in others.items()}
    return {name: HEAD + named.get(name, default) for name in RENDERS}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(
            renders("", enable_thinking_false=EMPTY),
            {"thinks": "default", "opened_by_template": False, "open_tag": "<think>\n", "close_tag": "\n</think>\n\n"},
            id="qwen3",
        ),
        pytest.param(
            renders("<think>\n", enable_thinking_false=EMPTY),
            {"thinks": "default", "opened_by_template": True, "open_tag": "<think>\n", "close_tag": "\n</think>\n\n"},
            id="qwen3.5",
        ),
        pytest.param(
            renders("</think>", thinking_true="<think>"),
            {"thinks": "opt-in", "opened_by_template": True, "open_tag": "<think>", "close_tag": "</think>"},
            id="deepseek-v3.1",
        ),
        pytest.param(
            renders("<think>\n"),
            {"thinks": "always", "opened_by_template": True, "open_tag": "<think>\n", "close_tag": "</think>"},
            id="deepseek-r1",
        ),
        pytest.param(
            renders("", enable_thinking_false="\n<think></think>"),
            {"thinks": "default", "opened_by_template": False, "open_tag": "<think>", "close_tag": "</think>"},
            id="glm-4.5",
        ),
        pytest.param(
            renders("", enable_thinking_true="<|think|>"),
            {
                "thinks": "opt-in",
                "opened_by_template": False,
                "open_tag": "<|channel>thought\n",
                "close_tag": "<channel|>",
            },
            id="gemma-4",
        ),
        pytest.param(renders(EMPTY), {"thinks": "never"}, id="template without a switch that closes the thought"),
    ],
)
def test_template_shows_when_and_how_a_model_thinks(shown: dict[str, str], expected: dict[str, Any]) -> None:
    fields = profile_of_renders(shown)
    assert {name: fields.get(name) for name in expected} == expected
    parse_profile(fields, "chat template")


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(renders(""), id="no argument has an effect"),
        pytest.param(renders("", thinking_true="Be brief."), id="an argument that has nothing to do with thoughts"),
        pytest.param({"default": HEAD}, id="a template that refuses all arguments"),
    ],
)
def test_template_that_shows_nothing_decides_nothing(shown: dict[str, str]) -> None:
    assert profile_of_renders(shown) == {}


def test_switch_is_the_argument_of_every_effort() -> None:
    efforts = profile_of_renders(renders("", enable_thinking_false=EMPTY))["efforts"]
    assert efforts == {
        effort: {"chat_template_kwargs": {"enable_thinking": effort != "none"}}
        for effort in ("none", "minimal", "low", "medium", "high", "max")
    }


def test_harmony_has_channels_and_three_efforts() -> None:
    head = "<|start|>system<|message|># Valid channels: analysis, commentary, final.<|end|><|start|>assistant"
    fields = profile_of_renders({"default": head})
    assert (fields["thinks"], fields["thought"]) == ("always", "channel")
    sent = {effort: request["reasoning_effort"] for effort, request in fields["efforts"].items()}
    assert sent == {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "high"}


def test_open_and_close_tag_are_the_templates_own_empty_thought() -> None:
    for empty in ("<think>\n\n</think>\n\n", "<think></think>", "<think>\n</think>\n", "[THINK][/THINK]"):
        fields = profile_of_renders(renders("", enable_thinking_false=empty))
        assert f"{fields['open_tag']}{fields['close_tag']}" == empty


def test_efforts_of_a_weaker_layer_do_not_contradict_a_stronger_one() -> None:
    efforts = {"none": {}, "low": {"reasoning_effort": "low"}}
    always = merge_profile([("user", {"thinks": "always"}), ("map", {"thinks": "default", "efforts": efforts})])
    assert list(always.efforts) == ["low"]
    assert not always.can_skip_thinking
    never = merge_profile([("user", {"thinks": "never"}), ("map", {"thinks": "default", "efforts": efforts})])
    assert never.efforts == {}
