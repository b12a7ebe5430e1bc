"""`reason verifiers`: the list, and a verifier's parameters as they are."""

from __future__ import annotations

import json
from collections.abc import Callable

from reason.verify.davinci.config import DavinciConfig

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
