"""Contrasts of real claims by rule: what becomes of their label."""

from __future__ import annotations

import random
from typing import get_args

import pytest
from contrasts import changed_claims
from reason.verify.types import Label, Pair


def _made(pair: Pair, label: Label) -> dict[str, set[tuple[str, str]]]:
    """All claims that any seed makes, with their labels, by rule."""
    results: dict[str, set[tuple[str, str]]] = {}
    for seed in range(300):
        for one in changed_claims(pair, label, "k", "g", random.Random(seed)):
            assert one.pair._replace(claim=pair.claim) == pair
            assert one.group == "g"
            results.setdefault(one.kind.removeprefix("k: "), set()).add((one.pair.claim, one.label))
    return results


@pytest.mark.parametrize(
    ("evidence", "claim", "rule", "expected"),
    [
        ("The Nile is longer.", "The Nile is longer.", "opposite", "The Nile is shorter."),
        ("The path is 3 km long.", "The path is 3 km long.", "unit", "The path is 3 miles long."),
        ("Ortega defeated Dahl.", "Ortega defeated Dahl.", "roles", "Dahl defeated Ortega."),
        ("Dune was directed by Ortega.", "Dune was directed by Ortega.", "roles", "Ortega was directed by Dune."),
        ("All students passed.", "All students passed.", "quantifier", "No students passed."),
        ("Ortega won the cup.", "Ortega won the cup.", "denied", "Ortega did not win the cup."),
        ("Dune was released on 3 May 1990.", "Dune was released.", "denied", "Dune was not released."),
    ],
)  # fmt: skip
def test_a_supported_claim_becomes_refuted(evidence, claim, rule, expected):
    assert (expected, "refutes") in _made(Pair(evidence, claim), "supports")[rule]


@pytest.mark.parametrize(
    ("evidence", "claim", "rule", "expected"),
    [
        ("It has 8 rooms.", "Dune House has 8 rooms.", "numerals", "Dune House has eight rooms."),
        ("It opened on 3 May 1990.", "It opened on 3 May 1990.", "date format", "It opened on May 3, 1990."),
        ("It is closed.", "It is not open.", "contraction", "It isn't open."),
        ("Ortega defeated Dahl.", "Ortega defeated Dahl.", "voice", "Dahl was defeated by Ortega."),
        ("Dune was directed by Ortega.", "Dune was directed by Ortega.", "voice", "Ortega directed Dune."),
        ("It opened.", "It opened", "punctuation", "It opened."),
        ("Ortega sang.", "Ortega sang", "small letters", "ortega sang"),
    ],
)
def test_a_rewrite_keeps_the_label(evidence, claim, rule, expected):
    for label in get_args(Label):
        assert (expected, label) in _made(Pair(evidence, claim), label)[rule]


def test_bounds_of_a_year_and_of_a_count():
    made = _made(Pair("Dune opened in 1990.", "Dune was opened in 1990."), "supports")
    for claim, label in made["period"]:
        assert label == "supports"
        number = int("".join(c for c in claim if c.isdigit()))
        assert number > 1990 if "before" in claim else number < 1990 if "after" in claim else "1990s" in claim
    for claim, label in made["false period"]:
        assert label == "refutes"
        number = int("".join(c for c in claim if c.isdigit()))
        assert number < 1990 if "before" in claim else number > 1990
    made = _made(Pair("Dune has 40 rooms.", "Dune has 40 rooms."), "supports")
    for rule, is_true in (("comparison", True), ("false comparison", False)):
        for claim, label in made[rule]:
            assert label == ("supports" if is_true else "refutes")
            bound = int("".join(c for c in claim if c.isdigit()))
            is_lower = any(words in claim for words in ("more than", "at least", "over"))
            assert ((bound < 40) if is_lower else (bound > 40)) is is_true, claim


@pytest.mark.parametrize(
    ("evidence", "claim", "rule"),
    [
        ("Fewer than 10 died by 3 May 1990.", "By 3 May 1990 fewer than 10 had died.", "date"),
        ("It cost more than 9 million dollars.", "It cost more than 9 million dollars.", "unit"),
        ("He lived in North Bend.", "He lived in North Bend.", "opposite"),
        ("The path is 3 km or 3 miles.", "The path is 3 km long.", "unit"),
        ("It testified before Congress.", "It testified before Congress.", "opposite"),
        ("Acme married Dahl.", "Ortega married Dahl.", "roles"),
    ],
)
def test_a_change_that_need_not_make_it_wrong_is_not_made(evidence, claim, rule):
    assert rule not in _made(Pair(evidence, claim), "supports")


def test_only_a_denial_makes_a_refuted_claim_supported():
    made = _made(Pair("Dahl won the cup.", "Ortega won the cup in 1990."), "refutes")
    assert {rule for rule, pairs in made.items() for _, label in pairs if label == "supports"} == {"denied"}
    assert ("Ortega did not win the cup in 1990.", "supports") in made["denied"]
