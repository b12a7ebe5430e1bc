"""What the decision reads of a claim and its passages: what is found, what is missing, what is about something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.knowledge import Passage
from reason.verify.davinci.features import (
    FEATURE_NAMES,
    VERBATIM,
    bears_on,
    claim_features,
    compare,
    missing_words,
    replaced_term,
    with_verbatim,
)
from reason.verify.types import Support

YES, NO, SILENT = Support(0.85, 0.1, 0.05), Support(0.05, 0.9, 0.05), Support(0.02, 0.02, 0.96)
BRIDGE = "The bridge opened on 12 June 1926."


def passage(text: str, title: str = "", name: str = "p") -> Passage:
    return Passage(id=name, source=name, text=text, title=title)


def features(claim: str, *texts: str, supports: list[Support] | None = None) -> dict[str, float]:
    passages = [passage(text, name=f"p{i}") for i, text in enumerate(texts)]
    return dict(zip(FEATURE_NAMES, claim_features(claim, passages, supports or [YES] * len(texts)), strict=True))


# -- numbers, units and dates


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("The firm has more than 100 employees.", "There are 120 employees."),
        ("It opened on 12 June 1926.", "June 12, 1926 was the opening day."),
        ("It opened on 12 June 1926.", "Opening: 1926-06-12."),
        ("It opened in 1926.", "It opened on 12 June 1926."),
        ("It opened in June 1926.", "It opened on 12 June 1926."),
        ("The firm has three employees.", "There are 3 employees."),
        ("The city has 1.2 million people.", "Population: 1,200,000."),
        ("Turnover rose by 12 percent.", "A rise of 12% was reported."),
        ("The 10-year plan was adopted.", "A plan for 10 years."),
    ],
)
def test_equal_numbers_are_found_however_they_are_written(claim, text):
    assert features(claim, text)["number missing"] == 0.0
    assert replaced_term(claim, [passage(text)]) is None


@pytest.mark.parametrize(
    ("claim", "text", "replaced"),
    [
        ("The track is 1.5 km long.", "The track is 1.6 km long.", ("1.5 km", "1.6 km")),
        (BRIDGE, "The bridge opened on 13 June 1926.", ("12 June", "13 June")),
        ("The bridge opened in 1926.", "The bridge opened in 1927.", ("1926", "1927")),
        ("The firm has three employees.", "The firm has 40 employees.", ("three employees", "40 employees")),
        ("Turnover rose by 12 percent.", "Turnover rose by 15%.", ("12 percent", "15%")),
    ],
)
def test_a_number_in_place_of_the_claims_is_named(claim, text, replaced):
    found = features(claim, text)
    assert (found["number missing"], found["another number instead"]) == (1.0, 1.0)
    assert replaced_term(claim, [passage(text)]) == replaced


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        ("The track is 1.5 km long.", "The track opened in 1927."),
        ("The bridge opened in 1926.", "The bridge is 300 m long."),
        ("The firm has three employees.", "The firm was founded in 1990."),
    ],
)
def test_a_number_of_another_kind_replaces_nothing(claim, text):
    found = features(claim, text)
    assert (found["number missing"], found["another number instead"]) == (1.0, 0.0)
    assert replaced_term(claim, [passage(text)]) is None


# -- names and negations


def test_the_share_of_missing_names():
    claim = "The firm was founded by Anna Berg."
    assert features(claim, "The firm was founded by Clara Meier.")["names missing"] == 1.0
    assert features(claim, "The firm was founded by Anna Berg in Bern.")["names missing"] == 0.0
    assert features(claim, "The firm was founded by Anna Meier.")["names missing"] == 0.5
    assert features(claim, "The firm was founded long ago.")["names missing"] == 1.0


def test_a_negation_on_one_side_is_seen_in_the_nearest_sentence():
    claim = "The bridge was damaged in the flood."
    assert features(claim, "The bridge was not damaged in the flood. It opened in May.")["negation on one side"] == 1.0
    assert features(claim, "It was never closed. The bridge was damaged in the flood.")["negation on one side"] == 0.0


# -- what bears on a claim


@pytest.mark.parametrize(
    ("claim", "text", "title"),
    [
        (BRIDGE, "The bridge was opened on June 12, 1926.", ""),
        (BRIDGE, "Opening took place in 1926.", "Bridge"),
        ("Tyler Perry is Chinese.", "Tyler Perry is an American actor.", "Tyler Perry"),
        ("Ann Lee is a judge.", "She is an actor.", "Ann Lee"),
        ("Ann Lee was born in 1950.", "Ann Lee (1961 - 2010) was an actor.", "Ann Lee"),
        ("The tower stands in Paris.", "The tower is in Lyon.", ""),
        ("The tower weighs 7,300 tonnes.", "The tower has a mass of 10,000 tonnes.", ""),
        ("Touchscreens are only used in laptops.", "Touchscreens serve in ticket machines.", ""),
    ],
)
def test_a_passage_about_the_same_statement_bears_on_it(claim, text, title):
    assert bears_on(claim, passage(text, title))


@pytest.mark.parametrize(
    ("claim", "text", "title"),
    [
        (BRIDGE, "It was not damaged in the flood of 1953.", ""),
        (BRIDGE, "The bridge was not damaged in the flood of 1953.", ""),
        (BRIDGE, "The bridge was not damaged in the flood of 1953.", "Bridge"),
        (BRIDGE, "The bridge was damaged in the flood of 1953.", ""),
        ("The museum charges an entrance fee.", "The museum burned down.", "Museum"),
        ("Anna Berg founded a bank.", "Anna Berg never married.", "Anna Berg"),
        (BRIDGE, "Bread is baked from flour.", ""),
    ],
)
def test_a_passage_about_the_same_subject_alone_does_not(claim, text, title):
    assert not bears_on(claim, passage(text, title))


# -- the vector


def test_a_passage_with_the_claim_as_a_sentence_supports_it_whatever_the_judge_says():
    stated = passage("It is long. the bridge opened on 12 June 1926! It is red.")
    other = passage("The bridge was opened on 12 June 1926.")
    sure = Support(0.99, 0.005, 0.005)
    found = with_verbatim(BRIDGE, [stated, stated, stated, other], [NO, sure, None, NO])
    assert found == [VERBATIM, sure, None, NO]
    assert features(BRIDGE, stated.text, supports=[NO]) == features(BRIDGE, stated.text, supports=[VERBATIM])


def test_each_ratio_is_the_largest_of_a_passage():
    texts = ("The bridge was opened on 12 June 1926.", "The bridge was not damaged in the flood of 1953.")
    both = features(BRIDGE, *texts, supports=[YES, NO])
    assert both["supports"] == features(BRIDGE, texts[0], supports=[YES])["supports"]
    assert both["refutes"] == features(BRIDGE, texts[1], supports=[NO])["refutes"]


def test_there_is_a_number_for_each_feature_and_none_is_unbounded():
    certain = features(BRIDGE, "The bridge opened on 12 June 1926.", supports=[Support(1.0, 0.0, 0.0)])
    assert certain["supports"] == pytest.approx(6.91, abs=0.01)
    assert certain["words found"] == 1.0
    nothing = features(BRIDGE)
    assert nothing["supports"] == nothing["refutes"] == pytest.approx(-6.91, abs=0.01)
    assert nothing["words found"] == 0.0


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=40))
def test_any_text_has_features(claim, text, title):
    values = claim_features(claim, [passage(text, title)], [YES])
    assert len(values) == len(FEATURE_NAMES)
    assert all(-7 < value < 7 for value in values)
    start, end = compare(claim, passage(text, title)).nearest
    assert 0 <= start <= end <= len(text)


@given(st.permutations(range(3)))
def test_the_order_of_passages_changes_nothing(order):
    texts = ["The bridge opened in 1926.", "The bridge opened in June.", "Trams use the bridge."]
    supports = [YES, SILENT, NO]
    given_order = features(BRIDGE, *texts, supports=supports)
    other = features(BRIDGE, *(texts[i] for i in order), supports=[supports[i] for i in order])
    assert other == pytest.approx(given_order)


# -- what a user reads


@pytest.mark.parametrize(
    ("claim", "texts", "missing"),
    [
        ("The bridge has a toll.", ["The bridge has two lanes."], ["a toll"]),
        ("The firm was founded by Anna Berg.", ["The firm was founded early."], ["Anna Berg"]),
        ("The bridge opened in 1926.", ["The bridge is long."], ['"opened"', "1926"]),
        ("Visitors borrow umbrellas.", ["Visitors pay."], ['"borrow"', '"umbrellas"']),
        ("The bridge opened in 1926.", ["The bridge opened.", "Built in 1926."], []),
    ],
)
def test_what_no_passage_has_is_named_as_the_claim_writes_it(claim, texts, missing):
    assert missing_words(claim, [passage(text) for text in texts]) == missing
