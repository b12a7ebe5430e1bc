"""`reason strategies` and `reason verifiers`: the lists, and one with its parameters as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from reason.reasoning.strategy import STRATEGIES
from reason.verify.davinci.decision import DavinciConfig

Cli = Callable[..., tuple[int, str, str]]


def test_the_list_has_names_summaries_papers(cli: Cli) -> None:
    status, out, _ = cli("verifiers")
    assert status == 0
    assert "davinci" in out
    assert "arXiv:2604.21193" in out
    assert cli("verifiers", "list")[1] == out
    (head,) = [v for v in json.loads(cli("verifiers", "list", "--json")[1]) if v["name"] == "davinci"]
    assert set(head) == {"name", "summary", "stability", "paper"}
    assert head["stability"] == "beta"


def test_show_has_every_parameter_with_its_default(cli: Cli) -> None:
    status, out, _ = cli("verifiers", "show", "davinci")
    assert status == 0
    shown = json.loads(cli("verifiers", "show", "davinci", "--json")[1])
    by_name = {p["name"]: p for p in shown["parameters"]}
    assert set(by_name) == set(DavinciConfig.model_fields)
    defaults = DavinciConfig().model_dump(mode="json")
    assert {name: p["default"] for name, p in by_name.items()} == defaults
    assert all(name in out for name in by_name)
    assert all(p["meaning"] for p in by_name.values())


def test_unknown_verifier_is_one_line(cli: Cli) -> None:
    status, out, err = cli("verifiers", "show", "davincy")
    assert (status, out) == (2, "")
    assert err == "error: unknown verifier 'davincy' (did you mean 'davinci'?)\n"


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_declares_in_one_sentence_what_its_confidence_means(name: str) -> None:
    sentence = STRATEGIES.load(name).confidence
    assert re.fullmatch(r"[A-Z][^.\n]+\.", sentence)


def test_show_says_what_a_confidence_means(cli: Cli) -> None:
    _, out, _ = cli("strategies", "show", "self-consistency")
    assert "confidence  The answer's share of the votes of all chains." in " ".join(out.split("\n"))
    shown = json.loads(cli("strategies", "show", "cot", "--json")[1])
    assert shown["confidence"] == "It has none: a single chain does not say how sure the model is."
