"""Steps that are lines, of models that leave no blank lines, and of those that leave some."""

import pytest
from reason.reasoning.prompts import lines_instruction, question_prompt, steps_instruction
from support.scripted_model import END, ScriptedModel
from support.two_models import QUESTION, TwoModels, written_in

WHOLE = ["1. Two and two.", "2. That is 2 + 2.", "3. Count.", "The answer is 4."]


def lines(between):
    """The script of a model that writes these lines with this between them."""
    text = between.join(WHOLE) + END

    def script(prompt):
        written = written_in(prompt)
        if "Therefore" in written:
            return {(" 4" + END)[len(written.rpartition(" is")[2])]: 1.0}
        if between == "\n\n" and written.endswith("\n") and not written.endswith("\n\n"):
            return {"\n": 1.0}  # the blank line that it would have left
        return {text[len(written) if text.startswith(written) else _place(text, written)]: 1.0}

    def _place(text, written):
        """A line on, where the chain was joined without the blank lines."""
        at = 0
        for line in written.splitlines():
            at = text.index(line, at) + len(line) if line else at
        return at + len(between) if written.endswith("\n") else at

    return script


@pytest.mark.parametrize("between", ["\n", "\n\n"])
async def test_each_line_is_a_step(store, between):
    harness = TwoModels(store, *(ScriptedModel(lines(between), name=who) for who in ("small", "large")))
    made = await harness.solve(threshold=100, steps="lines", answer="writer")
    assert [step.text for step in made.best.steps] == WHOLE
    assert (made.notes["ended"], made.best.answer) == ("answer", "4")
    asked = [r for call in harness.small.generate_calls for r in call if r.sampling.stop]
    assert {r.sampling.stop for r in asked} == {("\n",)}
    assert asked[0].prompt == question_prompt(QUESTION, lines_instruction(QUESTION))
    contexts = ["".join(line + "\n" for line in WHOLE[:i]) for i in range(len(WHOLE))]
    if between == "\n":
        assert [r.prompt.prefix for r in asked] == contexts
    else:  # the blank line ends a step before it has begun, and the same model goes on behind it
        behind = [[context, context + "\n"] for context in contexts[1:]]
        assert [r.prompt.prefix for r in asked] == ["", *(c for pair in behind for c in pair)]
    again = await harness.solve(threshold=100, steps="lines", answer="writer", replay=True)
    assert again == made


async def test_paragraph_is_one_step(store):
    harness = TwoModels(store, *(ScriptedModel(lines("\n"), name=who) for who in ("small", "large")))
    made = await harness.solve(threshold=100, answer="writer")
    assert [step.text for step in made.best.steps] == ["\n".join(WHOLE)]
    assert harness.small.generate_calls[0][0].prompt == question_prompt(QUESTION, steps_instruction(QUESTION))
