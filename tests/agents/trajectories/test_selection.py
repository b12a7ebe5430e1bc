"""Rules that choose a trajectory: exact choices, ties, abstention, and that the order plays no part."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.agents.trajectories.selection import RULES, attempt_text, choose
from reason.agents.trajectories.trajectory import Trajectory
from reason.core.errors import UserError
from reason.core.messages import Message, Tool, ToolCall
from reason.core.types import Question
from reason.reasoning.answers.equivalence import Equivalence
from support.scripted_model import ScriptedModel
from support.stored_runs import RunHarness

ASK = Question(text="How many?")
READ = Tool(name="read", effect="read", parameters={"type": "object"})
WRITE = Tool(
    name="write",
    effect="write",
    parameters={
        "type": "object",
        "properties": {"x": {"type": "number"}, "deep": {"type": "boolean", "default": False}},
    },
)


def write(**arguments):
    return ToolCall(name="write", arguments=json.dumps(arguments))


def made(index, *, calls=1, answer="4", ended=True, **more):
    return Trajectory(index=index, ended=ended, answer=answer if ended else None, num_calls=calls, **more)


async def chosen(rule, trajectories, *, tools=(READ,), **more):
    async with Equivalence() as equivalence:
        choice = await choose(rule, trajectories, tools=tools, question=ASK, equivalence=equivalence, **more)
    return None if choice.position is None else trajectories[choice.position].index, choice


async def shares(some):
    return [one.seconds for one in some]


CASES = {
    "fewest calls of those that ended": (
        "ended-fewest-calls", [made(0, calls=5), made(1, calls=1, ended=False), made(2, calls=3)], 2,
    ),
    "ties go to the fewest tokens": ("ended-fewest-calls", [made(0, tokens=9), made(1, tokens=8)], 1),
    "then to the lower index": ("ended-fewest-calls", [made(2), made(1)], 1),
    "proposed changes have ended": (
        "ended-fewest-calls", [made(0, ended=False), made(1, ended=False, calls=7, held=(write(x=1),))], 1,
    ),
    "nothing ended: fewest calls": (
        "race", [made(0, ended=False, calls=5, num_turns=2), made(1, ended=False, calls=4, num_turns=3)], 1,
    ),
    "nothing ended: not one without a turn": (
        "agreement", [made(0, ended=False, calls=0), made(1, ended=False, calls=4, num_turns=3)], 1,
    ),
    "least seconds": (
        "race", [made(0, seconds=3.0), made(1, seconds=2.0, tokens=9), made(2, ended=False, seconds=1.0)], 1,
    ),
    "tokens where no seconds are known": ("race", [made(0, tokens=3, seconds=1.0), made(1, tokens=2)], 1),
    "largest share of tests": ("tests", [made(0, seconds=0.5), made(1, calls=3, seconds=1.0), made(2, seconds=0.5)], 1),
    "equal shares: fewest calls": ("tests", [made(0, calls=2, seconds=0.5), made(1, seconds=0.5)], 1),
    "answers: a majority": (
        "agreement", [made(0, answer="5"), made(1, calls=2, answer="0.5"), made(2, answer="1/2")], 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "trajectories", "expected"), CASES.values(), ids=CASES)
async def test_a_rule_chooses(rule, trajectories, expected):
    assert (await chosen(rule, trajectories, tests=shares))[0] == expected


async def test_equal_changes_under_the_schema_are_one_vote():
    some = [
        made(0, writes=(write(x=1),)),
        made(1, calls=9, writes=(write(x=2.0, deep=False),)),
        made(2, calls=8, held=(write(x=2),)),
    ]
    index, choice = await chosen("agreement", some, tools=(READ, WRITE))
    assert (index, choice.reason) == (2, "2 of 3 agree on its changes")


async def test_two_changes_in_another_order_are_other_changes():
    some = [made(0, writes=(write(x=1), write(x=2))), made(1, writes=(write(x=2), write(x=1)))]
    assert (await chosen("agreement", some, tools=(WRITE,)))[0] is None


async def test_no_change_is_an_outcome_whose_answers_may_differ():
    some = [made(0, answer="6"), made(1, answer="7"), made(2, answer="7", calls=2), made(3, writes=(write(x=1),))]
    index, choice = await chosen("agreement", some, tools=(WRITE,))
    assert (index, choice.reason) == (1, "3 of 4 agree on no change")


async def test_half_is_no_majority_and_the_user_is_asked():
    some = [made(0, writes=(write(x=1),)), made(1, writes=(write(x=1),)), made(2), made(3, ended=False)]
    index, choice = await chosen("agreement", some, tools=(WRITE,))
    assert (index, choice.reason) == (None, "no outcome is shared by more than half of them")
    assert choice.question.text == (
        "The attempts do not agree on what to change, so nothing was changed:\n- 2 of 4: write(x=1)\n"
        "- 1 of 4: no change\nWhat should be done?"
    )


async def test_answers_without_a_majority_are_a_question_too():
    index, choice = await chosen("agreement", [made(0, answer="4"), made(1, answer="5")])
    assert index is None
    assert choice.question.text.startswith("The attempts do not agree on the answer:\n- 1 of 2: 4\n- 1 of 2: 5\n")


async def test_unknown_shares_leave_it_to_the_calls():
    async def unknown(some):
        return [None for _ in some]

    assert (await chosen("tests", [made(0, calls=2), made(1)], tests=unknown))[0] == 1


@pytest.mark.parametrize(
    ("rule", "message"),
    [("best", "there is no rule 'best'"), ("judge", "needs a judge model"), ("tests", "needs tests")],
)
async def test_a_rule_that_cannot_be_is_refused(rule, message):
    with pytest.raises(UserError, match=message):
        await chosen(rule, [made(0, answer="4"), made(1, answer="5")])


@st.composite
def trajectories(draw):
    some = [
        made(
            i,
            calls=draw(st.integers(0, 3)),
            answer=draw(st.sampled_from(["4", "5", "6"])),
            ended=draw(st.booleans()),
            held=draw(st.sampled_from([(), (), (write(x=1),), (write(x=2),)])),
            tokens=draw(st.integers(0, 3)),
            seconds=draw(st.sampled_from([0.0, 0.25, 1.0])),
            num_turns=draw(st.integers(0, 3)),
        )
        for i in range(draw(st.integers(1, 6)))
    ]
    return some, draw(st.permutations(some))


@given(trajectories(), st.sampled_from([rule for rule in RULES if rule != "judge"]), st.booleans())
async def test_the_order_plays_no_part_and_what_ended_wins(case, rule, changes):
    some, shuffled = case
    tools = (READ, WRITE) if changes else (READ,)
    index, _ = await chosen(rule, some, tools=tools, tests=shares)
    assert (await chosen(rule, shuffled, tools=tools, tests=shares))[0] == index
    if index is None:
        assert rule == "agreement"
    elif any(one.is_eligible for one in some):
        assert some[index].is_eligible


# -- judge


class PairJudge(ScriptedModel):
    """Prefers the attempt with the larger number; the one shown first gains 20 points."""

    def __init__(self, **options):
        self.compared = []
        super().__init__(self._verdict, **options)

    def _verdict(self, text):
        if "Two agents" not in text:
            return {"?": 1.0}
        first, second = (int(n) for n in re.findall(r"> number (\d+)", text))
        self.compared.append((first, second))
        return (
            {"A": 0.6, "B": 0.4}
            if first == second
            else {"A": 0.9, "B": 0.1}
            if first > second
            else {"A": 0.3, "B": 0.7}
        )


@pytest.fixture
async def judge(store):
    model = PairJudge()
    metered = await RunHarness(store, model).begin("r", strategy="x", question=ASK, budget=None, seed=1)
    return model, metered


def numbered(index, number, **more):
    text = Message(role="assistant", content=f"number {number}")
    return made(index, answer=f"number {number}", messages=(text,), **more)


async def test_the_judge_decides_where_no_majority_does(judge):
    model, metered = judge
    some = [numbered(i, n) for i, n in enumerate((3, 9, 1, 7, 5))]
    index, choice = await chosen("judge", some, judge=metered)
    assert (index, choice.reason) == (1, "the judge preferred it in 7 comparisons of the 5 of 5 that ended")
    assert sorted(model.compared) == sorted((b, a) for a, b in model.compared), "each pair in both orders"
    assert len(model.compared) == 14


async def test_the_judge_is_not_asked_where_a_majority_agrees(judge):
    model, metered = judge
    some = [numbered(0, 9), numbered(1, 3, calls=2), numbered(2, 3), numbered(3, 9, ended=False)]
    assert (await chosen("judge", [*some[:3]], judge=metered))[0] == 2
    assert model.compared == []


async def test_without_budget_for_the_judge_the_calls_decide(judge):
    _, metered = judge
    metered.run.ledger.is_closed = True
    index, choice = await chosen("judge", [numbered(0, 1), numbered(1, 9, calls=2)], judge=metered)
    assert (index, choice.reason) == (0, "it has the fewest tool calls, 1, of the 2 of 2 that ended")
    assert metered.run.degraded[0].startswith("the judge could not compare the trajectories")


def test_an_attempt_is_shown_with_its_calls_and_long_results_without_their_middle():
    messages = (
        Message(role="assistant", content="Look.", tool_calls=(write(x=1),)),
        Message(role="tool", content="a" * 1000, tool_call_id="1"),
        Message(role="assistant", content="Done."),
    )
    text = attempt_text(made(0, messages=messages))
    assert text.startswith("Look.\n→ write(x=1)\n← aaa")
    assert text.endswith("\nDone.")
    assert "[… 400 of 1,000 characters left out …]" in text
