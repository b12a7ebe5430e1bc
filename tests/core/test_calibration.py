"""`CalibrationMap`: exact values, what holds of every curve, and every way that its file can be wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.calibration import CalibrationCurve, CalibrationMap, load_calibration_map, shown_identity
from reason.core.errors import DataError, UserError
from support.calibration_maps import make_map

probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.125, 0.5, 0.875, 1.0]))
on_log_odds = st.one_of(
    st.builds(
        CalibrationCurve,
        method=st.just("platt"),
        intercept=st.floats(-1e4, 1e4),
        slope=st.floats(0, 1e4),
        clip=st.floats(1e-12, 0.25),
    ),
    st.builds(
        CalibrationCurve,
        method=st.just("temperature"),
        slope=st.floats(0, 1e300),
        clip=st.floats(1e-12, 0.25),
    ),
)


@st.composite
def stairs(draw: st.DrawFn) -> CalibrationCurve:
    xs = sorted(draw(st.sets(probabilities, min_size=1, max_size=8)))
    ys = sorted(draw(st.lists(probabilities, min_size=len(xs), max_size=len(xs))))
    return CalibrationCurve(method="isotonic", knots=tuple(zip(xs, ys, strict=True)))


curves = st.one_of(on_log_odds, stairs())


@pytest.mark.parametrize(
    ("curve", "values"),
    [
        # logit(0.8) = ln 4; half of it is ln 2, whose sigmoid is 2/3
        (CalibrationCurve(method="temperature", slope=0.5), {0.8: 2 / 3, 0.2: 1 / 3, 0.5: 0.5}),
        # sigmoid(ln 3 + 2 ln 3) = 27/28
        (CalibrationCurve(method="platt", intercept=math.log(3), slope=2), {0.75: 27 / 28, 0.5: 3 / 4}),
        (CalibrationCurve(method="temperature", clip=1 / 16), {1.0: 15 / 16, 0.95: 15 / 16, 0.0: 1 / 16}),
        (
            CalibrationCurve(method="isotonic", knots=((0.25, 0.1), (0.5, 0.1), (0.75, 0.7))),
            {0.0: 0.1, 0.25: 0.1, 0.4: 0.1, 0.5: 0.1, 0.625: 0.4, 0.75: 0.7, 1.0: 0.7},
        ),
    ],
)
def test_a_curve_matches_hand_computed_values(curve, values):
    assert {c: curve.apply(c) for c in values} == pytest.approx(values, abs=1e-12)


def test_a_slope_of_0_is_constant():
    assert CalibrationCurve(method="platt", intercept=0.3, slope=0).constant
    assert CalibrationCurve(method="isotonic", knots=((0.5, 0.2),)).constant
    assert not CalibrationCurve(method="isotonic", knots=((0.5, 0.2), (0.6, 0.3))).constant


@given(curves, probabilities, probabilities)
def test_every_curve_is_monotone_and_stays_in_range(curve, a, b):
    low, high = curve.apply(min(a, b)), curve.apply(max(a, b))
    assert 0 <= low <= high <= 1


@given(curves, probabilities)
def test_a_curve_never_decreases_between_adjacent_floats(curve, c):
    assert curve.apply(c) <= curve.apply(min(math.nextafter(c, 2), 1.0))


@given(curves)
def test_a_curve_survives_json_exactly(curve):
    found = make_map(curve=curve)
    assert CalibrationMap.model_validate_json(found.model_dump_json()) == found
    assert CalibrationMap.model_validate(found.model_dump(mode="json")) == found
    assert all(found.apply(c) == curve.apply(c) for c in (0.0, 0.3, 1.0))


@pytest.mark.parametrize("confidence", [-0.01, 1.01, math.nan, math.inf])
def test_confidences_outside_0_and_1_are_refused(confidence):
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        CalibrationCurve(method="temperature").apply(confidence)


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "isotonic"},
        {"method": "platt", "knots": ((0.5, 0.5),)},
        {"method": "temperature", "intercept": 0.1},
        {"method": "platt", "slope": -0.1},
        {"method": "platt", "slope": math.inf},
        {"method": "platt", "intercept": math.nan},
        {"method": "platt", "clip": 0.5},
        {"method": "platt", "clip": 0.0},
        {"method": "isotonic", "knots": ((0.5, 0.5), (0.5, 0.6))},
        {"method": "isotonic", "knots": ((0.5, 0.5), (0.6, 0.4))},
        {"method": "isotonic", "knots": ((0.5, 1.5),)},
        {"method": "beta"},
    ],
)
def test_invalid_curves_are_refused(fields):
    with pytest.raises(ValidationError):
        CalibrationCurve(**fields)


def test_a_map_must_name_its_main_model():
    with pytest.raises(ValidationError, match="main model"):
        make_map(engines={"small": "x"})


def test_regressed_scores_are_listed():
    found = make_map()
    assert found.regressed_scores == ()
    assert make_map(after=found.after.model_copy(update={"ece": 0.3})).regressed_scores == ("ece",)


def test_the_digest_depends_only_on_the_content():
    found = make_map()
    assert found.digest == found.model_copy(update={"name": "other"}).digest
    assert found.digest != make_map(items=31).digest


def write(path: Path, **changed: object) -> Path:
    plain = {**make_map().model_dump(mode="json", exclude={"name"}), **changed}
    path.write_text(json.dumps(plain))
    return path


def test_a_file_gives_the_map_its_name(tmp_path):
    found = load_calibration_map(write(tmp_path / "votes.json"))
    assert found == make_map(name="votes")
    assert str(found) == "votes (isotonic, sums)"


def test_files_that_are_no_maps_are_refused(tmp_path):
    path = tmp_path / "map.json"
    with pytest.raises(DataError, match=r"no calibration map .*map\.json.*reason eval calibrate"):
        load_calibration_map(path)
    with pytest.raises(DataError, match="cannot read .*Is a directory"):
        load_calibration_map(tmp_path)
    whole = write(path).read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"map\.json is not a complete JSON file"):
            load_calibration_map(path)
    for text in (b"[]", b'{"kind": "another"}', b"3", b"null"):
        path.write_bytes(text)
        with pytest.raises(DataError, match=r"map\.json is no calibration map"):
            load_calibration_map(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"map\.json"):
        load_calibration_map(path)


def test_maps_of_another_version_or_with_invalid_values_are_refused(tmp_path):
    path = tmp_path / "map.json"
    with pytest.raises(DataError, match=r"map\.json has format 2; this version of reason reads 1.*eval calibrate"):
        load_calibration_map(write(path, format=2))
    with pytest.raises(DataError, match=r"map\.json is damaged: curve: the knots must rise"):
        load_calibration_map(write(path, curve={"method": "isotonic", "knots": [[0.5, 0.5], [0.4, 0.6]]}))
    with pytest.raises(DataError, match=r"map\.json is damaged: surprise"):
        load_calibration_map(write(path, surprise=1))


def test_an_identity_is_shown_without_the_address_of_its_server():
    shown = shown_identity("openai/m@https://host/sk-key/v1")
    assert shown == shown_identity("openai/m@https://host/sk-key/v1")
    assert shown.startswith("openai/m@")
    assert "host" not in shown
    assert "sk-key" not in shown
    assert shown != shown_identity("openai/m@https://other/v1")
    assert shown_identity("local-abc") == "local-abc"
