"""Trained routers' files: written and read, and every way to damage one."""

import json

import pytest
from pydantic import ValidationError
from reason.core.errors import DataError
from reason.routers.router_files import (
    AutoRouterFile,
    load_auto_router_file,
    save_router_file,
)
from support.trained_routers import SPACE, arm, auto_file, line, trained_on

AUTO = auto_file(arm("cot", line(0.1, 1.0), 80), arm("self-consistency", line(0.4, 0.5), 640))


def test_files_survive_writing_and_reading(tmp_path):
    made, load = AUTO, load_auto_router_file
    path = tmp_path / "deep" / "mine.json"
    save_router_file(made, path)
    found = load(path)
    assert found.name == "mine"
    assert found.model_copy(update={"name": ""}) == made
    assert found.digest == made.digest
    assert str(found).startswith("mine (")


def test_damaged_files_name_the_file_and_the_command(tmp_path):
    made, load = AUTO, load_auto_router_file
    path = tmp_path / "mine.json"
    with pytest.raises(DataError, match=r"there is no .*mine\.json.*train_router.py"):
        load(path)
    whole = made.model_dump_json()
    for text, why in (
        (whole[:100], "not a complete JSON file"),
        ("[]", "no .*file"),
        (json.dumps({**json.loads(whole), "kind": "other"}), "is no"),
        (json.dumps({**json.loads(whole), "format": 2}), "has format 2"),
        (json.dumps({**json.loads(whole), "space": {"names": ["a"], "means": [], "scales": []}}), "damaged: space"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=why) as caught:
            load(path)
        assert "mine.json" in caught.value.message
        assert "train_router.py" in caught.value.hint


def test_inconsistent_files_are_rejected():
    with pytest.raises(ValidationError, match="over other features"):
        auto_file(arm("cot", line(0.1, 1.0), 80), arm("cot", line(0.1, 1.0), 90), space=SPACE)
    with pytest.raises(ValidationError, match="at least 2"):
        auto_file(arm("cot", line(0.1, 1.0), 80))
    with pytest.raises(ValidationError, match="main model"):
        trained_on(models={})
    assert isinstance(AUTO, AutoRouterFile)


def test_training_questions_are_recognised_whatever_their_whitespace():
    trained = trained_on("What is  2?")
    assert trained.contains("what is 2?")
    assert not trained.contains("What is 3?")


def test_another_model_is_named():
    trained = trained_on(engines={"main": "a", "small": "b"})
    assert trained.difference({"main": "a"}) == ""
    assert trained.difference({"main": "c"}) == "its main model is a, and this one is c"
    assert trained.difference({"main": "a"}, "small") == "its small model is b, and this one is none"
    assert trained.difference({"main": "a"}, "judge") == ""
