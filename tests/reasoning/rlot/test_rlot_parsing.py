"""Parsing of responses: yes or no strictly, lists and numbers tolerantly, steps without labels."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reason.core.messages import Completion
from reason.reasoning.rlot.block_runner import MAX_ITEM_CHARS, read_list, read_number, read_step, read_yes_no


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("yes", True),
        ("Yes.", True),
        ("**Yes**, it does", True),
        ("'YES'", True),
        ("\n yes", True),
        ("no", False),
        ("No, but yes later", False),
        ("<think>yes</think>no", False),
        ("yesterday", None),
        ("eyes", None),
        ("The answer is yes", None),
        ("not yet", None),
        ("nothing", None),
        ("yes-man", None),
        ("", None),
        ("42", None),
    ],
)
def test_first_word_decides_yes_or_no(reply, said):
    assert read_yes_no(reply) is said


@given(st.text(max_size=40))
@example("0\x85*")
def test_parsing_never_raises(text):
    assert read_yes_no(text) in (True, False, None)
    items = read_list(text, 3)
    assert len(items) <= 3
    assert all(0 < len(item) <= MAX_ITEM_CHARS for item in items)
    number = read_number(text, 3)
    assert number is None or 1 <= number <= 3
    step = read_step(Completion(text=text, finish_reason="length"))
    assert step == step.strip()


@pytest.mark.parametrize(
    "reply",
    [
        "1. Count them.\n2. Subtract two.",
        "1) Count them.\n2) Subtract two.",
        "(1) Count them.\n(2) Subtract two.",
        "Here are the subtasks:\n\n1. Count them.\n2. Subtract two.\n\nThese solve it.",
        "- Count them.\n- Subtract two.",
        "* Count them.\n* Subtract two.",
        "Subtask 1: Count them.\nSubtask 2: Subtract two.",
        "### Subtask 1\nCount them.\n\n### Subtask 2\nSubtract two.",
        "**Subtask 1:**\n\nCount them.\n\n**Subtask 2:**\n\nSubtract two.",
        "1. **Count them.**\n2. **Subtract two.**",
        "1. Count\n   them.\n2. Subtract two.",
        "1. Subtask 1: Count them.\n2. **Subtask 2:** Subtract two.",
        "1. Count them.\n1. Count them.\n2. Subtract two.",
        "1. Count them.\n2. Subtract two.\n3.",
        "<think>1. no</think>1. Count them.\n2. Subtract two.",
    ],
)
def test_lists_are_parsed_in_any_form(reply):
    assert read_list(reply, 5) == ["Count them.", "Subtract two."]


def test_nested_bullets_and_excess_items():
    assert read_list("1. Count\n   - the red\n2. Add\n3. Stop", 2) == ["Count - the red", "Add"]
    assert read_list("We count them, then subtract two.", 5) == []
    assert read_list("It costs 1.5 euros and 2.5 more.\n3.5 in all", 5) == []
    assert read_list("1. " + "x" * 999, 5) == ["x" * MAX_ITEM_CHARS]


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("2", 2),
        ("2, because it is short", 2),
        ("Plan 2", 2),
        ("Plan 3: it counts", 3),
        ("**Plan 2** is fine", 2),
        ("(2)", 2),
        ("The most promising is plan 3.", 3),
        ("Plans 1 and 2 are slow, so I choose plan 3", 3),
        ("I think plan 2 is the most promising of all.", 2),
        ("I would go along with plan 2 here", 2),
        ("4", None),
        ("0", None),
        ("12", None),
        ("2.5 is what it comes to", None),
        ("plan 1 and plan 2 are both fine", None),
        ("", None),
        ("none", None),
    ],
)
def test_number_of_a_choice(reply, number):
    assert read_number(reply, 3) == number


@pytest.mark.parametrize(
    ("text", "reason", "step"),
    [
        ("Step 1: Count.", "stop", "Count."),
        ("**Step 12:** Count.", "stop", "Count."),
        ("## Step 2 - Count. **", "stop", "Count."),
        ("Step 2\nCount.", "stop", "Count."),
        ("Step 2, improved: Count.", "stop", "Count."),
        ("Result of subtask 3: 4 apples.", "stop", "4 apples."),
        ("Step back and count.", "stop", "Step back and count."),
        ("<think>hm</think> Count.", "stop", "Count."),
        ("Step 1:", "stop", ""),
        ("Step 1: Count. Then tak", "length", "Count."),
        ("Step 1: Count and th", "length", "Count and th"),
        ("3 + 4 = 7.", "stop", "3 + 4 = 7."),
    ],
)
def test_step_has_no_label_and_complete_sentences(text, reason, step):
    assert read_step(Completion(text=text, finish_reason=reason)) == step
