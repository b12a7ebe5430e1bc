"""Public names and their labels are those that were written down, and a stable one is called as it was."""

from __future__ import annotations

import importlib.util
import inspect
import json
from typing import Any

import pytest
import reason
import support.public_api as described
from stability_labels import EXPERIMENTAL, LABELS, MEMBERS, NAMES, of_module

POLICY = """docs/stability.md, 'Deprecation', says how a public name may go or change: a stable one only after a release
in which it still worked and warned. New names get their label in docs/stability_labels.py. If what differs is allowed,
run `python tests/support/public_api.py --write` and tell of it in CHANGELOG.md."""


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return described.public_api()


def test_what_is_public_was_written_down_and_stable_names_are_called_as_before(now):
    assert json.loads(json.dumps(now)) == described.committed(), POLICY


def test_every_name_of_the_package_has_a_label():
    assert sorted(NAMES) == sorted(reason.__all__)
    assert {*NAMES.values(), *MEMBERS.values()} <= set(LABELS)
    for member, label in MEMBERS.items():
        owner, _, name = member.partition(".")
        assert callable(inspect.getattr_static(getattr(reason, owner), name))
        assert LABELS.index(label) > LABELS.index(NAMES[owner])


def test_everything_registered_and_every_operation_has_a_label(now):
    for kind in ("strategies", "verifiers", "operations"):
        assert now[kind]
        assert set(now[kind].values()) <= set(LABELS)


def test_what_is_called_experimental_exists_and_only_that_is():
    for module in EXPERIMENTAL:
        assert importlib.util.find_spec(module) is not None
    assert of_module("reason.routers.auto") == "experimental"
    assert of_module("reason.reasoning.rlot.blocks") == "experimental"
    assert of_module("reason.reasoning.rlots") == of_module("reason.routers") == "beta"


def test_documented_modules_exist_and_have_the_names_that_were_read_in_their_sources():
    modules = described.documented_modules()
    assert len(modules) > 60
    for module in ("reason.core.messages", "reason.reasoning.answers.extraction", "reason.serving.model"):
        assert module in modules
        loaded = importlib.import_module(module)
        names = described.names_of(module)
        assert names
        assert all(hasattr(loaded, name) for name in names)
