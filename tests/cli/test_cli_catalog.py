"""`reason strategies` and `reason verifiers`: the lists, and one with its parameters as they are."""

import json
import re

import pytest
from reason.reasoning.strategy import STRATEGIES
from reason.verify.davinci.decision import DavinciConfig


def test_show_has_every_parameter_with_its_default(cli):
    status, out, _ = cli("verifiers", "show", "davinci")
    assert status == 0
    shown = json.loads(cli("verifiers", "show", "davinci", "--json")[1])
    by_name = {p["name"]: p for p in shown["parameters"]}
    assert set(by_name) == set(DavinciConfig.model_fields)
    defaults = DavinciConfig().model_dump(mode="json")
    assert {name: p["default"] for name, p in by_name.items()} == defaults
    assert all(name in out for name in by_name)
    assert all(p["meaning"] for p in by_name.values())


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_every_strategy_declares_in_one_sentence_what_its_confidence_means(name):
    sentence = STRATEGIES.load(name).confidence
    assert re.fullmatch(r"[A-Z][^.\n]+\.", sentence)
