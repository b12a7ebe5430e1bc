"""Public names and their labels are those that were written down, and a stable one is called as it was."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from typing import Any

import pytest
import reason
import support.public_api as described
from stability_labels import EXPERIMENTAL, LABELS, MEMBERS, NAMES, of_module

REWRITE = "python tests/support/public_api.py --write"
POLICY = (
    "docs/stability.md, 'Deprecation', says how a public name may go or change: a stable one only after a release in "
    f"which it still worked and warned. If what is below is allowed, run `{REWRITE}` and tell of it in CHANGELOG.md:"
)
FORGOTTEN = f"new public names: give them their label in docs/stability_labels.py, and run `{REWRITE}`:"


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return described.public_api()


def test_what_was_public_is_so_still_and_stable_names_are_called_as_before(now: dict[str, Any]) -> None:
    broken, _ = described.changes(described.committed(), now)
    assert broken == [], "\n".join([POLICY, *broken])


def test_what_is_public_was_written_down(now: dict[str, Any]) -> None:
    _, new = described.changes(described.committed(), now)
    assert new == [], "\n".join([FORGOTTEN, *new])


def test_the_comparison_sees_a_name_that_went_one_that_was_renamed_and_another_signature() -> None:
    before = described.committed()
    after = copy.deepcopy(before)
    del after["names"]["ask"]
    after["modules"]["reason.core.budget"]["names"].remove("Budget")
    after["strategies"]["chain"] = after["strategies"].pop("cot")
    after["operations"]["GET /v1/models"] = "beta"
    after["signatures"]["Reasoner"]["members"]["aask"] = "(self) -> 'Answer'"
    broken, new = described.changes(before, after)
    assert broken[:3] == [
        "gone: / modules / reason.core.budget / names / Budget",
        "gone: / names / ask",
        "gone: / strategies / cot",
    ]
    assert [line.split(":")[1] for line in broken[3:]] == [
        " / operations / GET /v1/models",
        " / signatures / Reasoner / members / aask",
    ]
    assert "-> 'Answer'  ->  (self) -> 'Answer'" in broken[4]
    assert new == ["new: / strategies / chain"]


def test_every_name_of_the_package_has_a_label() -> None:
    assert sorted(NAMES) == sorted(reason.__all__)
    assert {*NAMES.values(), *MEMBERS.values()} <= set(LABELS)
    for member, label in MEMBERS.items():
        owner, _, name = member.partition(".")
        assert callable(inspect.getattr_static(getattr(reason, owner), name))
        assert LABELS.index(label) > LABELS.index(NAMES[owner])


def test_everything_registered_and_every_operation_has_a_label(now: dict[str, Any]) -> None:
    for kind in ("strategies", "verifiers", "operations"):
        assert now[kind]
        assert set(now[kind].values()) <= set(LABELS)


def test_what_is_called_experimental_exists_and_only_that_is() -> None:
    for module in EXPERIMENTAL:
        assert importlib.util.find_spec(module) is not None
    assert of_module("reason.routers.auto") == "experimental"
    assert of_module("reason.reasoning.rlot.blocks") == "experimental"
    assert of_module("reason.reasoning.rlots") == of_module("reason.routers") == "beta"


def test_documented_modules_exist_and_have_the_names_that_were_read_in_their_sources() -> None:
    modules = described.documented_modules()
    assert len(modules) > 60
    for module in ("reason.core.messages", "reason.reasoning.answers.extraction", "reason.serving.model"):
        assert module in modules
        loaded = importlib.import_module(module)
        names = described.names_of(module)
        assert names
        assert all(hasattr(loaded, name) for name in names)
