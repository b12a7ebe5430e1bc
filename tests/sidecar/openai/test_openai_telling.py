"""Translation of run events to thoughts: each sample is complete and contiguous, whatever events are missing."""

from hypothesis import given
from hypothesis import strategies as st
from reason.core.events import (
    CallFinished,
    CallStarted,
    EventsDropped,
    SampleFinished,
    StageStarted,
    TextDelta,
    VerificationFinished,
    VoteUpdated,
)
from reason.core.messages import Completion, Thought
from reason.core.types import CheckedClaim, Evidence, Verification
from reason.sidecar.openai.streaming import AnswerText, EventTranslator, answer_call, join_text
from support.stored_runs import run_config


def config(strategy="self-consistency", **fields):
    parameters = {"n": 3} if strategy == "self-consistency" else {}
    return run_config(**{"strategy": strategy, "parameters": parameters, **fields})


def started(number, samples, requests=1, role="main"):
    fields = {"operation": "generate", "requests": requests, "replayed": 0}
    return CallStarted(number=number, role=role, model="m", samples=samples, **fields)


def ended(number, call):
    return CallFinished(number=number, parent=call, role="main", model="m", seconds=0, tokens=1)


def finished(number, call, sample, text, thought=None):
    completion = Completion(text=text, finish_reason="stop", sample_index=sample, thought=thought)
    return SampleFinished(number=number, parent=call, request=0, sample=sample, completion=completion)


def delta(number, text, call=1, sample=0, thought=""):
    return TextDelta(number=number, parent=call, request=0, sample=sample, text=text, thought=thought, tokens=1)


def pieces(telling, events):
    return [piece for event in events for piece in telling.take(event)]


@st.composite
def runs(draw):
    """Events of two calls with three samples each, in any valid order, and the text of each sample."""
    texts = {(c, s): f"({c}{s} " + "x" * draw(st.integers(0, 4)) + ")" for c in (1, 2) for s in range(3)}
    left = {key: list(text) for key, text in texts.items()}
    waiting = [started(1, 3), started(2, 3)]
    events, number = [waiting[0], waiting[1]], 2
    while left:
        key = draw(st.sampled_from(sorted(left)))
        number += 1
        what = draw(st.sampled_from(["text", "text", "text", "line", "gap"]))
        if what == "line":
            events.append(VoteUpdated(number=number, votes={f"vote{number}": 1}, total=1))
        elif what == "gap" and left[key]:
            left[key].pop(0)  # its delta is missing
            events.append(EventsDropped(count=1))
        elif left[key]:
            events.append(delta(number, left[key].pop(0), *key))
        else:
            del left[key]
            events.append(finished(number, *key, texts[key]))
            if not any(other[0] == key[0] for other in left):
                number += 1
                events.append(ended(number, key[0]))
    return events, texts


@given(runs())
def test_every_sample_is_told_once_and_in_one_piece(run):
    events, texts = run
    telling = EventTranslator(config(), AnswerText())
    told = join_text(pieces(telling, events) + telling.finish())
    for (_, sample), text in texts.items():
        assert told.count(f"[{sample + 1}] {text}\n\n") + told.endswith(f"[{sample + 1}] {text}") == 1
    lines = [f"Votes: vote{e.number} (1)." for e in events if isinstance(e, VoteUpdated)]
    assert [line for line in told.split("\n") if line.startswith("Votes")] == lines


@given(st.integers(0, 12), st.integers(0, 12))
def test_a_reader_that_missed_something_of_the_answer_says_nothing_wrong(after, at):
    text = "The answer."
    said = AnswerText()
    telling = EventTranslator(config("cot"), said, after=after)
    events = [started(1, 1), *(delta(2 + i, c) for i, c in enumerate(text))]
    events[at : at + 2] = [EventsDropped(count=2)] if at else []
    content = ""
    for event in [*events, finished(30, 1, 0, text), ended(31, 1)]:
        content += "".join(p.text for p in telling.take(event) if p.kind == "content")
        assert text.startswith(content)
    assert content + said.finish(text) == text


def test_thoughts_and_texts_of_samples_are_told_apart():
    parts = [("five ", ""), ("and two", ""), ("", "It "), ("", "is 7.")]
    deltas = [
        delta(2 + i, text, 1, s, thought)
        for i, (s, (thought, text)) in enumerate((s, part) for part in parts for s in (0, 1))
    ]
    thought = Thought(text="five and two", tokens=2)
    ends = [finished(20 + s, 1, s, "It is 7.", thought) for s in (0, 1)]
    telling = EventTranslator(config(), AnswerText())
    told = join_text(pieces(telling, [started(1, 2), *deltas, *ends, ended(30, 1)]))
    assert told == "[1] five and two\n\nIt is 7.\n\n[2] five and two\n\nIt is 7."
    without_deltas = EventTranslator(config(), AnswerText())
    assert join_text(pieces(without_deltas, [started(1, 2), *ends, ended(30, 1)])) == told


def test_a_thought_before_the_answer_is_no_content():
    telling = EventTranslator(config("cot"), AnswerText())
    events = [started(1, 1), delta(2, "", thought="hm"), delta(3, "42")]
    assert [(p.kind, p.text) for p in pieces(telling, events)] == [("reasoning", "hm"), ("content", "42")]
    assert not telling.late


def test_thoughts_that_were_streamed_as_content_are_noticed():
    """The chat template opened the thought, and the backend learnt that from its end."""
    said = AnswerText()
    telling = EventTranslator(config("cot"), said)
    thought = Thought(text="Six sevens.", tokens=3)
    events = [started(1, 1), delta(2, "Six sevens."), finished(3, 1, 0, "The answer is 42.", thought)]
    content = "".join(p.text for p in pieces(telling, events))
    assert telling.late
    assert content + said.finish("The answer is 42.", late=True) == "Six sevens.The answer is 42."


def test_what_a_judge_writes_is_no_thought():
    telling = EventTranslator(config(), AnswerText())
    events = [started(1, 1, role="judge"), finished(2, 1, 0, "7 of 10"), ended(3, 1)]
    assert pieces(telling, events) == []


def test_verification_is_told_where_there_is_some():
    stage = StageStarted(number=1, stage="verify")
    assert EventTranslator(config(), AnswerText()).take(stage) == []
    (line,) = EventTranslator(config(verify=("davinci",)), AnswerText()).take(stage)
    assert line.text == "The answer is being verified.\n"


def test_the_end_of_a_verification_counts_the_claims():
    claims = tuple(CheckedClaim(text=text, verdict="not_enough_evidence") for text in ("A.", "B."))
    proven = CheckedClaim(text="C.", verdict="supported", evidence=(Evidence(source="a.md", text="C."),))
    verification = Verification(verdict="not_enough_evidence", claims=(*claims, proven), verifiers=("davinci",))
    event = VerificationFinished(number=1, verification=verification)
    (line,) = EventTranslator(config(verify=("davinci",)), AnswerText()).take(event)
    assert line.text == "Verification: not enough evidence, 1 of 3 claims supported, 2 open.\n"


def test_when_the_text_is_certain():
    assert answer_call(config("cot")) == 1
    assert answer_call(config()) == 0
    assert answer_call(config(parameters={"n": 1})) == 1
    assert answer_call(config("coat")) == 0
    assert answer_call(config("cot", verify=("davinci",), repairs=0)) == 1
    assert answer_call(config("cot", verify=("davinci",), repairs=1)) == 0
    assert answer_call(config("cot", verify=("davinci",), repairs=0, require_verified=True)) == 0


def test_a_text_that_may_be_repaired_is_not_told_and_its_thought_is():
    telling = EventTranslator(config("cot", verify=("davinci",), repairs=1), AnswerText())
    done = finished(4, 1, 0, "I cancelled it.", Thought(text="Hm."))
    events = [started(1, 1), delta(2, "", thought="Hm."), delta(3, "I cancelled it."), done, ended(5, 1)]
    assert join_text(pieces(telling, events)) == "Hm."
