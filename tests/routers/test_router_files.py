"""Trained routers' files: written and read, and every way to damage one."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.errors import DataError, UserError
from reason.routers.router_files import (
    AutoRouterFile,
    QuestionRouterFile,
    load_auto_router_file,
    load_question_router_file,
    save_router_file,
    threshold_for_rate,
)
from support.trained_routers import SPACE, arm, auto_file, line, question_file, trained_on

AUTO = auto_file(arm("cot", line(0.1, 1.0), 80), arm("self-consistency", line(0.4, 0.5), 640))
QUESTION = question_file(line(-1.0, 0.5))


@pytest.mark.parametrize(("made", "load"), [(AUTO, load_auto_router_file), (QUESTION, load_question_router_file)])
def test_files_survive_writing_and_reading(made, load, tmp_path):
    path = tmp_path / "deep" / "mine.json"
    save_router_file(made, path)
    found = load(path)
    assert found.name == "mine"
    assert found.model_copy(update={"name": ""}) == made
    assert found.digest == made.digest
    assert str(found).startswith("mine (")


@pytest.mark.parametrize(("made", "load"), [(AUTO, load_auto_router_file), (QUESTION, load_question_router_file)])
def test_damaged_files_name_the_file_and_the_command(made, load, tmp_path):
    path = tmp_path / "mine.json"
    with pytest.raises(DataError, match=r"there is no .*mine\.json.*reason train"):
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
        assert "reason train" in caught.value.hint


def test_digest_depends_on_the_content_only():
    assert AUTO.model_copy(update={"name": "x"}).digest == AUTO.digest
    assert AUTO.model_copy(update={"price": 0.3}).digest != AUTO.digest


def test_inconsistent_files_are_rejected():
    with pytest.raises(ValidationError, match="over other features"):
        auto_file(arm("cot", line(0.1, 1.0), 80), arm("cot", line(0.1, 1.0), 90), space=SPACE)
    with pytest.raises(ValidationError, match="at least 2"):
        auto_file(arm("cot", line(0.1, 1.0), 80))
    with pytest.raises(ValidationError, match="both models"):
        question_file(line(0.0, 0.0), trained=trained_on())
    with pytest.raises(ValidationError, match="must not fall"):
        question_file(line(0.0, 0.0), quantiles=(1.0, *(0.5,) * 100))
    with pytest.raises(ValidationError, match="main model"):
        trained_on(models={})
    assert isinstance(AUTO, AutoRouterFile)
    assert isinstance(QUESTION, QuestionRouterFile)


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


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=101, max_size=101).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_rate_has_no_higher_threshold(quantiles, a, b):
    low, high = sorted((a, b))
    assert threshold_for_rate(quantiles, high) <= threshold_for_rate(quantiles, low)
    assert threshold_for_rate(quantiles, 0) > quantiles[-1]
    assert threshold_for_rate(quantiles, 1) == quantiles[0]


def test_threshold_routes_the_requested_share():
    chances = [i / 1000 for i in range(1000)]
    quantiles = [chances[min(i * 10, 999)] for i in range(101)]
    for rate in (0.01, 0.1, 0.25, 0.3, 0.99):
        sent = sum(c >= threshold_for_rate(quantiles, rate) for c in chances)
        assert sent == pytest.approx(1000 * rate, abs=1e-9)
    with pytest.raises(UserError, match="rate must be in"):
        threshold_for_rate(quantiles, 1.5)
    assert math.isfinite(threshold_for_rate(quantiles, 0))
