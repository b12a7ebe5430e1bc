import pytest
from reason.core.messages import Completion, Usage
from reason.core.types import Question
from reason.reasoning.answers.extraction import complete_sentences, read_candidate

QUESTION = Question(text="What is six times seven?")


def read(text, finish="stop"):
    completion = Completion(text=text, finish_reason=finish, logprobs=(-1.0, -2.0), usage=Usage(completion_tokens=2))
    return read_candidate(completion, QUESTION, score=0.5)


def test_a_sample_becomes_a_candidate():
    candidate = read("Six times seven is a product.\n\nThe answer is 42.")
    assert (candidate.answer, candidate.logprob, candidate.tokens, candidate.score) == ("42", -3.0, 2, 0.5)
    assert "".join(step.text for step in candidate.steps) == candidate.text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 4", None),  # of 42?
        ("The answer is 4.", None),  # of 4.2?
        ("The answer is 42. So we", "42"),
        ("So \\boxed{42} and", "42"),
        ("Six times seven is 42. So we", None),  # a step on the way
        ("It is 40.\n\nThen add", None),
        ("So \\boxed{\\frac{1}{2", None),
        ("It", None),
    ],
)
@pytest.mark.parametrize("finish", ["length", "budget", "cancelled"])
def test_text_right_at_a_cut_is_ignored(text, answer, finish):
    assert read(text, finish).answer == answer


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("a b", ""),
        ("A. b", "A."),
        ("A.", "A."),
        ("3.", ""),
        ("3.1", ""),
        ("A\nb", "A\n"),
        ("A! B? c", "A! B?"),
    ],
)
def test_complete_sentences(text, whole):
    assert complete_sentences(text) == whole
