"""The prompt of the chair, parsing of complete and partial responses, and the fallback."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.core.types import Question
from reason.reasoning.anonymity import Blinding, show_answers
from reason.verify.edgejury.chair import chair_prompt, fallback_synthesis, read_chair, unaddressed_issues
from reason.verify.edgejury.review import DisplayedAnswers
from reason.verify.edgejury.types import KeptQuote, Opinion, PooledIssue, Ranking, Standing, Synthesis

OPEN = Question(text="Why is the sky blue?")
CHOICE = Question(text="Which city is the capital of France?", choices=("Lyon", "Paris", "Nice"))
BLIND = Blinding(("A", "B"), (1, 0))
RANKING = Ranking(
    rule="borda",
    reviews=2,
    standings=(Standing(juror=0, score=1.0, borda=1.0, mark=8.25), Standing(juror=1, score=0.0, borda=0.0)),
)
ISSUES = (
    PooledIssue(candidate=1, kind="factual_risk", detail="Answer #x is false, says answer #0", reviewers=(0, 2)),
    PooledIssue(candidate=0, kind="unclear", detail="dull", reviewers=(1,)),
)
WHOLE = {
    "answer": "Blue light is scattered most.",
    "rationale": ["Answer B explains it", "..."],
    "addressed": [{"issue": 1, "how": "Left out what Answer A claims."}, {"issue": "x", "how": "y"}],
    "open_questions": ["How much?"],
    "disagreements": [
        {
            "topic": "the cause",
            "positions": [{"candidate": "A", "stance": "the sea"}, {"candidate": "Z", "stance": "none"}],
            "resolution": "Answer B is right.",
        },
        {"topic": "..."},
    ],
}


def request(question: Question = OPEN, issues: tuple[PooledIssue, ...] = ISSUES, *, as_json: bool = True) -> str:
    quotes = (KeptQuote(candidate=0, quote="light is scattered", reviewers=(1,)),)
    answers = DisplayedAnswers({0: "Scattering.", 1: "The sea."}, {})
    prompt = chair_prompt(question, answers, BLIND, RANKING, issues, quotes, scrub=str.lower, as_json=as_json)
    (message,) = prompt.messages
    assert show_answers(BLIND, answers.texts) in message.content
    return message.content


def test_chair_request_contents():
    shown = request()
    assert shown.startswith("Why is the sky blue?\n\nSeveral people have answered")
    assert "rank them B (above 100% of the others, mark 8.2 of 10), A (above 0% of the others)." in shown
    assert "1. Answer A, factual_risk (raised by 2): answer #x is false, says Answer B\n" in shown
    assert "2. Answer B, unclear (raised by 1): dull" in shown
    assert "- Answer B: light is scattered" in shown
    assert "for issue 1, say what you did about it" in shown
    assert '"choice"' not in shown


def test_chair_request_asks_for_choice_of_closed_question():
    assert '"choice" is the letter of the correct option.' in request(CHOICE)
    assert request(CHOICE, as_json=False).endswith(
        'End with a last line that has "Answer:" and the letter of the correct option.'
    )
    assert '"choice" is only the number.' in request(Question(text="How many?", kind="number"))


def test_chair_request_shows_all_required_issues():
    many = [PooledIssue(candidate=0, kind="unclear", detail=f"d{i}", reviewers=(1, 2)) for i in range(10)]
    more = [PooledIssue(candidate=0, kind="unclear", detail=f"e{i}", reviewers=(1,)) for i in range(10)]
    shown = request(issues=(*many, *more))
    assert "10. Answer B" in shown
    assert "e0" not in shown
    assert "each of the issues 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10" in shown
    assert "e7" not in request(issues=tuple(more[:1] * 8 + more[7:]))


def test_complete_json_is_parsed_with_jurors():
    read = read_chair(f"Sure:\n{json.dumps(WHOLE)}", OPEN, BLIND)
    assert read is not None
    assert read.answer == "Blue light is scattered most."
    assert read.rationale == ("answer #0 explains it",)
    assert [(a.issue, a.how) for a in read.addressed] == [(0, "Left out what answer #1 claims.")]
    assert read.open_questions == ("How much?",)
    (disagreement,) = read.disagreements
    assert [(p.candidate, p.stance) for p in disagreement.positions] == [(1, "the sea")]
    assert disagreement.resolution == "answer #0 is right."
    assert (read.choice, read.source) == (None, "chair")
    assert unaddressed_issues(read, ISSUES) == ()
    assert unaddressed_issues(read, ISSUES[::-1]) == ISSUES[:1]


@given(st.integers(0, 400))
def test_truncated_json_yields_the_answer(cut):
    whole = json.dumps(WHOLE)
    answer = "Blue light is scattered most."
    read = read_chair(whole[:cut], OPEN, BLIND)
    begun = cut - whole.index(answer)
    if begun >= len(answer):
        assert read is not None
        assert read.answer == answer
    elif begun > 0:
        assert read is not None
        assert answer.startswith(read.answer)
    else:
        assert read is None


def test_truncated_answer_keeps_complete_sentences():
    read = read_chair('{"answer": "It is scattered. Red is n', OPEN, BLIND)
    assert read is not None
    assert read.answer == "It is scattered."


@pytest.mark.parametrize(
    "reply",
    ["", '{"answer": ""}', '{"answer": "..."}', '{"answer": 4}', '{"rationale": ["x"]}'],
)
def test_completion_without_answer_is_unparsed(reply):
    assert read_chair(reply, OPEN, BLIND) is None


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ('{"answer": "It is Paris.", "choice": "B"}', "B"),
        ('{"answer": "It is Paris.", "choice": "B) Paris"}', "B"),
        ('{"answer": "It is Paris.", "choice": "the letter of the correct option"}', "B"),
        ('{"answer": "It is Paris, so the answer is B."}', "B"),
        ('{"answer": "It is Paris.", "choice": "B", "rationale": ["cut o', "B"),
        ('{"answer": "Nobody knows.", "choice": "E"}', None),
    ],
)
def test_choice_of_a_closed_question(reply, choice):
    read = read_chair(reply, CHOICE, BLIND)
    assert read is not None
    assert read.choice == choice


def test_numeric_choices_are_parsed():
    asked = Question(text="How many?", kind="number")
    for reply in ('{"answer": "About four.", "choice": 4}', '{"answer": "It is 3 + 1 = 4"}', "Four.\nAnswer: 4"):
        read = read_chair(reply, asked, BLIND)
        assert read is not None
        assert read.choice == "4"


def test_answer_letters_are_removed_from_the_answer():
    reply = '{"answer": "As Answer P says, option A is right.", "choice": "A"}'
    read = read_chair(reply, CHOICE, Blinding(("P", "Q"), (0, 1)))
    assert read is not None
    assert read.answer == "As one answer says, option A is right."


def test_lines_are_parsed():
    reply = "Blue light is scattered most.\n\nWhy: Answer B says so\nIssue 1: left out\n**Open:** how much\n"
    read = read_chair(reply, OPEN, BLIND)
    assert read is not None
    assert read.answer == "Blue light is scattered most."
    assert (read.rationale, read.open_questions) == (("answer #0 says so",), ("how much",))
    assert [(a.issue, a.how) for a in read.addressed] == [(0, "left out")]
    closed = read_chair("It is Paris.\nWhy: it is\nAnswer: B", CHOICE, BLIND)
    assert closed is not None
    assert (closed.answer, closed.choice) == ("It is Paris.", "B")
    only = read_chair("Answer: B", CHOICE, BLIND)
    assert only is not None
    assert (only.answer, only.choice) == ("B", "B")
    assert read_chair("I do not know.", CHOICE, BLIND) is None


@given(
    st.one_of(
        st.text(max_size=60), st.lists(st.sampled_from([*'{}[]",: 1', '"answer"', '"addressed"', "Why:"])).map("".join)
    )
)
def test_parsing_never_raises(reply):
    read = read_chair(reply, CHOICE, BLIND)
    assert read is None or read.answer.strip()


def test_fallback_is_the_best_ranked_opinion():
    opinions = [
        Opinion(juror=1, model="m", text="The sea.", choice="A", ok=True),
        Opinion(juror=0, model="m", text="Scattering.", choice="B", ok=True),
    ]
    found = fallback_synthesis(RANKING, opinions)
    assert (found.answer, found.choice, found.source) == ("Scattering.", "B", "fallback")
    assert unaddressed_issues(found, ISSUES) == ISSUES[:1]
    with pytest.raises(UserError, match="of juror 0 is missing"):
        fallback_synthesis(RANKING, opinions[:1])
    assert Synthesis(answer="x", source="chair").addressed == ()
