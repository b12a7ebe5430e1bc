"""Ends of steps, prompts of workers, and models that are accepted."""

import pytest
from reason.core.errors import UserError
from reason.core.types import Question
from reason.reasoning.hogwild.hogwild import is_listed, require_listed
from reason.reasoning.hogwild.prompts import NAMES, PAST, shared_prompt
from reason.reasoning.hogwild.team import ends_step


@pytest.mark.parametrize(
    ("text", "piece", "ends"),
    [
        ("So it is 4.\n\n", ".\n\n", True),
        ("So it is 4.\n\n", "\n\n", True),
        ("So it is 4.\n\n", "\n", True),  # the separator is complete with this line break
        ("So it is 4.\n", "\n", False),
        ("So it is 4.\n\nAnd", "And", False),  # it was complete before, and was no end then either
        ("So it is 4.\n\nAnd", "\n\nAnd", True),
        ("Is it 4?\n\n", "\n\n", True),
        ("It is!\n\n", "\n\n", True),
        ("Consider this:\n\n", "\n\n", False),
        ("Consider this\n\n", "\n\n", False),
        ("It is done.)**\n\n", "\n\n", True),
        ("那么答案是四。\n\n", "\n\n", True),
        ("अतः उत्तर चार है।\n\n", "\n\n", True),
        ("It is $$x = 4.\n\n", "\n\n", False),
        ("It is $$x = 4.$$\n\n", "\n\n", True),
        ("It is \\[x = 4.\n\n", "\n\n", False),
        ("```python\nx = 4.\n\n", "\n\n", False),
        ("```python\nx = 4\n```\nDone.\n\n", "\n\n", True),
        ("", "", False),
        ("\n\n", "\n\n", False),
    ],
)
def test_step_ends_with_sentence_and_separator(text, piece, ends):
    assert ends_step(text, piece) is ends


def test_custom_separator():
    assert ends_step("It is 4.\n", "\n", "\n")
    assert not ends_step("It is 4.", ".", "\n")
    assert ends_step("It is 4. ###", "#", " ###")
    assert not ends_step("It is 4. ##", "#", " ###")


def test_prompt_names_workers_and_answer_form():
    prompt = shared_prompt(Question(text="2 + 2?", kind="number"), NAMES[:3])
    system, user = prompt.messages
    assert all(name in system.content for name in NAMES[:3])
    assert not any(name in system.content for name in NAMES[3:])
    assert "the number in \\boxed{}" in user.content
    assert prompt.prefix == PAST
    choice = shared_prompt(Question(text="?", choices=("a", "b")), NAMES[:2])
    assert "A) a\nB) b" in choice.messages[1].content
    assert "letter" in choice.messages[1].content


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("vllm/Qwen/QwQ-32B", True),
        ("local/qwen3-8b", True),
        ("openai/Qwen3_14B", True),
        ("deepseek/deepseek-reasoner", True),
        ("vllm/DeepSeek-R1", True),
        ("vllm/DeepSeek-R1-Distill-Qwen-1.5B", False),
        ("vllm/Phi-4-reasoning-plus", True),
        ("local/qwen3-4b", False),
        ("local/qwen3-1.7b", False),
        ("local/smollm2-135m", False),
    ],
)
def test_listed_models_by_name(model, listed):
    assert is_listed(model) is listed
    if not listed:
        with pytest.raises(UserError, match="not known to work") as caught:
            require_listed(model)
        assert "any_model=true" in str(caught.value.hint)
