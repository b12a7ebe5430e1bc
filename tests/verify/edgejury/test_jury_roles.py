"""The roles of jurors, and the form of their answers."""

import pytest
from reason.core.types import Question
from reason.reasoning.answers.extraction import extract_answer
from reason.verify.edgejury.answering import answer_prompt
from reason.verify.edgejury.jurors import ROLES

CAPITAL = Question(text="What is the capital of France?", choices=("Lyon", "Paris"))
OPEN = Question(text="Why is the sky blue?")


def test_requested_headings_are_declared():
    for role in ROLES:
        asked_for = [word for word in ("Concerns", "Risks", "Steps", "Example") if f'"{word}:"' in role.system]
        assert list(role.headings) == asked_for


def test_answer_prompt_has_role_and_form():
    role = ROLES[1]
    prompt = answer_prompt(role, CAPITAL)
    system, user = prompt.messages
    assert (system.role, system.content) == ("system", role.system)
    assert user.content.startswith("What is the capital of France?\n\nA) Lyon\nB) Paris\n\n")
    assert user.content.endswith('end with a last line that has "Answer:" and the letter of the correct option.')
    (alone,) = answer_prompt(None, OPEN).messages
    assert alone.role == "user"
    assert alone.content.endswith("Start with the answer itself, and use fewer than 200 words.")


@pytest.mark.parametrize(
    ("question", "line", "answer"),
    [
        (CAPITAL, "Answer: B", "B"),
        (Question(text="How many legs has a spider?"), "Answer: 8", "8"),
        (Question(text="Is water wet?"), "Answer: yes", "yes"),
        (Question(text="x", kind="math"), "Answer: \\boxed{2x}", "2x"),
    ],
)
def test_requested_form_can_be_parsed(question, line, answer):
    assert line.split()[0] in answer_prompt(None, question).messages[0].content
    found = extract_answer(f"It could be otherwise, with 7 or A.\n{line}", question)
    assert found is not None
    assert (found.value, found.is_explicit) == (answer, True)
