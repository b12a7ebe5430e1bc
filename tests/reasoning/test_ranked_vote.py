"""Counting ranked ballots, by hand and by property; rankings read from chains; the strategy on the scripted model."""

from __future__ import annotations

from fractions import Fraction

import pytest
import reason.agents.reasoner as reasoner_module
from hypothesis import given
from hypothesis import strategies as st
from reason.agents.reasoner import Reasoner
from reason.core.errors import UserError
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import Candidate, Question
from reason.reasoning.voting.ballots import count_ballots, first_choices
from reason.reasoning.voting.ranked_vote import parse_ranking, ranking_instruction
from support.scripted_judge import judging
from support.scripted_model import ScriptedModel, replies

RULES = ("borda", "irv", "mrr")
BALLOTS = [[0, 1, 2]] * 4 + [[1, 2, 0]] * 3 + [[2, 1, 0]] * 2  # plurality 0, but most prefer 1 to 0
many_ballots = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), min_size=1, max_size=12)


def test_borda_sums():
    election = count_ballots(BALLOTS, "borda")
    assert election.scores == {1: 4 * 2 + 3 * 3 + 2 * 2, 0: 4 * 3 + 3 + 2, 2: 4 + 3 * 2 + 2 * 3}
    assert (election.winner, election.max_score, election.share) == (1, 27, Fraction(21, 27))
    assert list(election.scores) == [1, 0, 2]


def test_instant_runoff_passes_ballots_on():
    election = count_ballots(BALLOTS, "irv")
    assert (election.winner, election.eliminated) == (1, (2,))  # 2's two ballots go to 1: 5 against 4
    assert election.scores == {1: 5, 0: 4, 2: 2}
    assert election.share == Fraction(5, 9)


def runoff_round_by_round(ballots):
    """Winner and eliminated answers by the rule's own words, all ballots counted anew in each round."""
    points = count_ballots(ballots, "borda").scores
    standing, eliminated = set(points), []
    while True:
        firsts = [next((a for a in ballot if a in standing), None) for ballot in ballots]
        counts = {a: firsts.count(a) for a in standing}
        leader = max(counts, key=counts.get)
        if 2 * counts[leader] > sum(counts.values()):
            return leader, tuple(eliminated)
        eliminated.append(min(counts, key=lambda a: (counts[a], points[a], -a)))
        standing.remove(eliminated[-1])


@given(many_ballots)
def test_instant_runoff_is_that_of_counting_all_ballots_in_each_round(ballots):
    election = count_ballots(ballots, "irv")
    assert (election.winner, election.eliminated) == runoff_round_by_round(ballots)


def test_an_instant_runoff_among_many_answers_ends():
    ballots = [[i, i + 1, i + 2] for i in range(30_000)]
    election = count_ballots(ballots, "irv")
    assert election.winner not in election.eliminated
    assert len(election.eliminated) > 20_000


def test_mean_reciprocal_rank():
    election = count_ballots(BALLOTS, "mrr")
    assert election.scores == {
        1: Fraction(4, 1) / 2 / 9 + Fraction(3, 9) + Fraction(2, 2) / 9,
        0: Fraction(4, 9) + Fraction(3, 27) + Fraction(2, 27),
        2: Fraction(4, 27) + Fraction(3, 18) + Fraction(2, 9),
    }
    assert election.winner == 1


def test_ballots_of_unequal_length_have_one_scale():
    election = count_ballots([[0], [1, 0, 2], [1]], "borda")
    assert election.scores == {1: 6, 0: 5, 2: 1}
    exhausted = count_ballots([[0], [0], [1], [1], [2]], "irv")
    assert (exhausted.winner, exhausted.eliminated) == (
        0,
        (2, 1),
    )  # no candidate has more than half of the ballots that count
    assert exhausted.share == Fraction(2, 5)


def test_ties_fall_to_the_smallest():
    for rule in RULES:
        assert count_ballots([[0, 1], [1, 0]], rule).winner == 0
        assert count_ballots([[2], [1]], rule).winner == 1
    # 1 and 2 have the fewest first choices; 2 has fewer points and is eliminated, and its ballot decides for 1
    assert count_ballots([[0], [0], [1], [2, 1], [1, 0], [2]], "irv").eliminated[0] == 2


def test_a_runoff_lists_those_that_stand_by_their_ballots_and_then_those_that_fell_out():
    at_once = count_ballots([[0]] * 5 + [[1]] + [[3]] * 2 + [[2]] * 2, "irv")
    assert list(at_once.scores.items()) == [(0, 5), (2, 2), (3, 2), (1, 1)]
    # 3 is eliminated first, then 2; they rank after the others by the votes of their last round
    later = count_ballots([[0]] * 4 + [[1]] * 3 + [[2, 1]] * 2 + [[3, 1]], "irv")
    assert (later.winner, later.eliminated) == (1, (3, 2))
    assert list(later.scores.items()) == [(1, 6), (0, 4), (2, 2), (3, 1)]


def test_first_choices_list_every_answer():
    assert list(first_choices([[1, 5], [4, 0], [1], [2]]).items()) == [(1, 2), (2, 1), (4, 1), (0, 0), (5, 0)]


@pytest.mark.parametrize("ballots", [[], [[]], [[1, 1]]])
def test_what_is_no_ballot(ballots):
    with pytest.raises(UserError, match="every ballot needs one or more answers"):
        count_ballots(ballots, "borda")


def test_there_is_no_such_rule():
    with pytest.raises(UserError, match="no rule of counting is called 'approval'"):
        count_ballots([[1]], "approval")


@given(many_ballots, st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_the_order_of_ballots_does_not_matter(ballots, random, rule):
    mixed = list(ballots)
    random.shuffle(mixed)
    assert count_ballots(mixed, rule) == count_ballots(ballots, rule)


@given(many_ballots, st.sampled_from(RULES))
def test_a_count_is_sane(ballots, rule):
    election = count_ballots(ballots, rule)
    named = {answer for ballot in ballots for answer in ballot}
    assert set(election.scores) == named
    assert next(iter(election.scores)) == election.winner
    assert 0 < election.share <= 1
    if all(ballot[0] == ballots[0][0] for ballot in ballots):
        assert (election.winner, election.share) == (ballots[0][0], 1)
    if rule == "irv":
        firsts = first_choices(ballots)
        over_half = [answer for answer, count in firsts.items() if 2 * count > len(ballots)]
        assert over_half in ([], [election.winner])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=15), st.sampled_from(RULES))
def test_single_answers_make_a_plurality_vote(answers, rule):
    election = count_ballots([[a] for a in answers], rule)
    assert election.winner == min(set(answers), key=lambda a: (-answers.count(a), a))
    assert election.share == Fraction(answers.count(election.winner), len(answers))


@given(st.lists(st.permutations(range(4)), min_size=1, max_size=8))
def test_complete_ballots_count_as_in_the_authors_program(ballots):
    points = {a: sum(len(b) - b.index(a) for b in ballots) for a in range(4)}
    assert count_ballots(ballots, "borda").scores == points


NUMBER = Question(text="How many?", kind="number")
CHOICE = Question(text="Which?", choices=("red", "green", "blue"))
TEXT = Question(text="What is the capital of Australia?", kind="text")
MATH = Question(text="Simplify.", kind="math")


def ranked(text, question, most=3, finish="stop"):
    from reason.core.messages import Completion
    from reason.reasoning.candidates import read_candidate

    return parse_ranking(read_candidate(Completion(text=text, finish_reason=finish), question), question, most)


@pytest.mark.parametrize(
    ("text", "question", "expected"),
    [
        ("2 + 2.\nRanking:\n1. 4\n2. 5\n3. 3\nThe answer is 4.", NUMBER, ["4", "5", "3"]),
        ("Ranking:\n1. 1,000 (80%)\n2. 100 (likely)\n\nThe answer is 1,000.", NUMBER, ["1000", "100"]),
        ("**Ranked answers:**\n- 4\n- 4\n- 5\n", NUMBER, ["4", "5"]),
        ("Ranking: 4 > 5 > 3. The answer is 4.", NUMBER, ["4", "5", "3"]),
        ("Ranking: 1. 4 2. 5 3. 3", NUMBER, ["4", "5", "3"]),
        ("Ranking:\n1. B) green\n2. A\nThe answer is B.", CHOICE, ["B", "A"]),
        ("Ranking: B, A, C\nThe answer is (B).", CHOICE, ["B", "A", "C"]),
        ("Ranking:\n(1) Canberra\n(2) Sydney\nThe answer is Canberra.", TEXT, ["Canberra", "Sydney"]),
        ("Ranking:\n1. $\\boxed{x+1}$\n2. $\\boxed{x-1}$\n\\boxed{x+1}", MATH, ["x+1", "x-1"]),
        ("My ranking: none yet.\nRanking:\n1. 7\n2. 8\nThe answer is 7.", NUMBER, ["7", "8"]),
        ("No list here. The answer is 4.", NUMBER, ["4"]),
        ("Ranking:\nnothing comes to mind\nThe answer is 4.", NUMBER, ["4"]),
        ("I do not know.", NUMBER, []),
        ("<think>Ranking:\n1. 9</think>Ranking:\n1. 4\n2. 5", NUMBER, ["4", "5"]),
        ("Ranking:\n1. 4\n2. 5\n3. 6\n4. 7", NUMBER, ["4", "5", "6"]),
    ],
)
def test_rankings_are_read(text, question, expected):
    assert ranked(text, question) == expected


def test_a_truncated_ranking_is_parsed_to_its_last_complete_line():
    assert ranked("Ranking:\n1. 4\n2. 5\n3. 1", NUMBER, finish="length") == ["4", "5"]


@given(st.text(alphabet="Ranking: 123.\n>-;,*()ABtheanswris", max_size=120), st.sampled_from([NUMBER, CHOICE, TEXT]))
def test_no_text_breaks_the_reading(text, question):
    ballots = ranked("Ranking:" + text, question)
    assert len(ballots) <= 3
    assert len(set(ballots)) == len(ballots)


def test_the_instruction_names_the_form():
    assert "up to 4 different answers" in ranking_instruction(NUMBER, 4)
    assert "letters of the choices" in ranking_instruction(CHOICE, 3)
    assert ranking_instruction(MATH, 3).endswith("\\boxed{}.")
    assert Candidate(text="x").answer is None


@pytest.fixture
def settings(tmp_path):
    return Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)


@pytest.fixture
def scripted(monkeypatch):
    made = {}

    async def load_model(name, settings, *_):
        return made["model"]

    def of(*texts, weights=None, **options):
        made["model"] = ScriptedModel(replies(*texts, weights=weights), **options)
        return made["model"]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return of


async def ask(settings, question=NUMBER, budget=None, **parameters):
    sink = MemorySink()
    parameters = {"max_tokens": 60, **parameters}
    async with Reasoner(strategy="ranked-vote", parameters=parameters, settings=settings, budget=budget) as reasoner:
        answer = await reasoner.aask(question, sinks=[sink], run_id="r")
        replayed = await reasoner.areplay("r")
    assert replayed.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
    return answer, sink


async def test_second_choices_can_win(settings, scripted):
    scripted("Ranking:\n1. 4\n2. 6\nThe answer is 4.", "Ranking:\n1. 5\n2. 6.0\nThe answer is 5.", weights=[1, 1])
    answer, sink = await ask(settings, n=12, rule="borda")
    is_four = [c.text.endswith("4.") for c in answer.candidates]
    first, other, six = ("4", "5", "6") if is_four[0] else ("5", "4", "6.0")  # named as they were first reached
    counts = {"4": sum(is_four), "5": 12 - sum(is_four)}
    points = {first: 2 * counts[first], six: 12, other: 2 * counts[other]}
    winner = max(points, key=points.get)
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "rankings.counted"]
    assert note.data["scores"] == points
    assert (answer.answer, answer.confidence) == (winner, pytest.approx(points[winner] / 24))
    assert sink.of_type("vote.updated")[-1].votes == {**counts, six: 0}


async def test_a_winner_without_first_choices_is_represented_by_the_chain_that_ranks_it_best(settings, scripted):
    texts = [f"Ranking:\n1. {i}\n2. 9\nThe answer is {i}." for i in (4, 5, 6, 7)]
    scripted(*texts)
    answer, _ = await ask(settings, n=40)
    assert answer.answer == "9"
    assert answer.confidence == pytest.approx(0.5)
    assert sum(c.answer == "9" for c in answer.candidates) == 1


@pytest.mark.parametrize("rule", RULES)
async def test_chains_without_a_ranking_vote_with_their_answer(settings, scripted, rule):
    scripted("The answer is 4.", "I cannot tell.", weights=[3, 1])
    answer, _ = await ask(settings, n=16, rule=rule)
    share = sum(c.answer == "4" for c in answer.candidates) / 16
    assert (answer.answer, answer.confidence) == ("4", pytest.approx(share))
    assert 0 < share < 1


async def test_without_any_answer_there_is_a_candidate_and_no_confidence(settings, scripted):
    scripted("I cannot tell.")
    answer, _ = await ask(settings, n=2)
    assert (answer.answer, answer.text, answer.confidence) == (None, "I cannot tell.", 0.0)


async def test_a_spent_budget_gives_the_best_so_far(settings, scripted):
    scripted("Ranking:\n1. 4\n2. 5\nThe answer is 4.")
    answer, _ = await ask(settings, n=8, budget={"tokens": 130})
    assert (answer.answer, answer.stopped) == ("4", "budget")
    assert 0 < len(answer.candidates) < 8


LIKES = "654"
"""The judge's order of the answers."""


@pytest.fixture
def judged(monkeypatch):
    """A model whose chains give an answer alone, and that judges answers by `LIKES`."""

    def prefers(a, b):
        return 0.9 if LIKES.index(a[-2]) < LIKES.index(b[-2]) else 0.1

    def of(weights, **script):
        chains = replies(*(f"The answer is {i}." for i in "456"), weights=weights)
        model = ScriptedModel(judging(chains, prefers=prefers, **script))

        async def load_model(name, settings, *_):
            return model

        monkeypatch.setattr(reasoner_module, "load_model", load_model)
        return model

    return of


def answer_counts(answer):
    return {a: sum(c.text.endswith(f"{a}.") for c in answer.candidates) for a in "456"}


async def test_a_judge_decides_where_the_votes_of_losing_answers_go(settings, judged):
    model = judged([4, 3, 3], bias=0.05)
    answer, sink = await ask(settings, n=20, rankings="judge", rule="irv")
    counts = answer_counts(answer)
    assert counts["4"] == max(counts.values()) <= 10  # it has no majority, and the judge likes both others more
    loser = min("456", key=lambda a: (counts[a], a))
    heir = next(a for a in LIKES if a != loser)
    assert answer.answer == heir != "4"
    assert answer.confidence == pytest.approx((counts[heir] + counts[loser]) / 20)
    assert answer.usage.model_calls == 1 + 2 * 3
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "rankings.counted"]
    assert (note.data["comparisons"], note.data["ranked"]) == (3, 20)
    assert note.data["position_bias"] == pytest.approx(0.05)
    chain = model.generate_calls[0][0].prompt.messages[-1].content
    assert "Ranking" not in chain


@pytest.mark.parametrize("rule", RULES)
async def test_an_answer_with_a_majority_and_the_judge_wins(settings, judged, rule):
    judged([1, 1, 8])
    answer, _ = await ask(settings, n=20, rankings="judge", rule=rule)
    assert answer.answer == "6"


async def test_one_rank_is_a_plain_vote(settings, judged):
    judged([4, 3, 3])
    answer, _ = await ask(settings, n=20, rankings="judge", ranks=1)
    counts = answer_counts(answer)
    assert (answer.answer, answer.confidence) == ("4", pytest.approx(counts["4"] / 20))


@pytest.mark.parametrize("budget", [{"calls": 1}, None])
async def test_without_a_judgement_each_chain_votes_for_its_own_answer(settings, judged, budget):
    judged([4, 3, 3], off_scale=0.0 if budget else 0.8)
    answer, _ = await ask(settings, n=20, rankings="judge", budget=budget)
    assert (answer.answer, answer.confidence) == ("4", pytest.approx(answer_counts(answer)["4"] / 20))
    assert answer.stopped == ("budget" if budget else "done")
