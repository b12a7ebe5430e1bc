"""Jurors and chair held to JSON schemas where their models can be; what the schemas allow is what is read."""

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from reason.core.types import Question
from reason.reasoning.anonymity import Blinding
from reason.verify.edgejury.chair import chair_schema
from reason.verify.edgejury.review import review_schema
from support.scripted_jury import CAPITAL, OPEN, JuryRuns, ScriptedJuror, kind_of, model, rules, says

BLIND = Blinding(("A", "B", "C"), (2, 0, 1))
CHAIR = {
    "answer": "Canberra, chosen in 1908.",
    "choice": "B",
    "rationale": ["It is the seat."],
    "addressed": [{"issue": 1, "how": "Said it plainly."}],
    "open_questions": [],
    "disagreements": [
        {"topic": "seat", "positions": [{"candidate": "A", "stance": "Sydney"}], "resolution": "Not so."}
    ],
}


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All schemas of objects within a schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for inner in schema.values():
            yield from objects(inner)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [("choice", ["A", "D"], ["E", "Canberra"]), ("yes_no", ["yes", "no"], ["maybe"]), ("number", ["3/4"], [3])],
)
def test_schema_of_closed_question_lists_its_choices(kind, good, bad):
    choices = CAPITAL.choices if kind == "choice" else ()
    schema = chair_schema(Question(text="?", kind="auto" if choices else kind, choices=choices), BLIND.letters, 1)
    for choice in good:
        jsonschema.validate({**CHAIR, "choice": choice}, schema)
    for choice in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**CHAIR, "choice": choice}, schema)


def test_chair_schema_omits_choice_and_issues_where_there_are_none():
    fields = chair_schema(OPEN, BLIND.letters, 0)["properties"]
    assert isinstance(fields, dict)
    assert list(fields) == ["answer", "rationale", "open_questions", "disagreements"]
    schema = chair_schema(OPEN, BLIND.letters, 2)
    decision = {key: value for key, value in CHAIR.items() if key != "choice"}
    jsonschema.validate(decision, schema)
    with pytest.raises(jsonschema.ValidationError, match="3 is "):
        jsonschema.validate({**decision, "addressed": [{"issue": 3, "how": "Said it plainly."}]}, schema)


@pytest.mark.parametrize(
    "schema",
    [
        review_schema(BLIND.letters),
        chair_schema(CAPITAL, BLIND.letters, 2),
        chair_schema(OPEN, BLIND.letters, 0),
    ],
)
def test_schemas_use_features_of_all_providers(schema):
    for found in objects(schema):
        assert found["required"] == list(found["properties"])
        assert found["additionalProperties"] is False
    words = {key for found in objects({"type": "object", "": schema}) for key in found}
    assert words <= {"type", "properties", "required", "additionalProperties", ""}


def gold(text: str) -> tuple[int, int, int]:
    return (9, 8, 8) if "Canberra" in text or "chosen" in text else (3, 4, 5)


def jury(supports_schema: bool) -> dict[str, Any]:
    """Two jurors for Sydney, one for Canberra; all of them know better when they read."""
    errs = ScriptedJuror(says("Sydney", "It is the largest city."), gold)
    knows = ScriptedJuror(says("Canberra", "It was chosen in 1908."), gold)
    rest = {"open_questions": [], "disagreements": []}
    return {
        "main": model(
            ScriptedJuror(chair=rules("Canberra it is.", "Canberra", **rest)), "m/chair", json_schema=supports_schema
        ),
        "juror-1": model(errs, "a/one", json_schema=supports_schema),
        "juror-2": model(errs, "b/two"),  # cannot in any case
        "juror-3": model(knows, "c/three", json_schema=supports_schema),
    }


def asked_of(scripted: Any, kind: str) -> list[Any]:
    """The requests of a kind that a model got."""
    calls = [request for call in scripted.generate_calls for request in call]
    return [request for request in calls if kind_of(scripted.render(request.prompt)) == kind]


async def test_jury_with_schemas_reaches_same_result_and_replays(store):
    plain, supports_schema = JuryRuns(store, jury(False)), JuryRuns(store, jury(True))
    before, after = await plain.solve("plain"), await supports_schema.solve("held")
    assert (after.best.answer, after.notes["ranking"]) == (before.best.answer, before.notes["ranking"])
    assert supports_schema.spent.model_calls == plain.spent.model_calls == 3 + 3 + 1
    for role in ("juror-1", "juror-3"):
        (review,) = asked_of(supports_schema.by_role[role], "review")
        assert review.sampling.json_schema is not None
        (opinion,) = asked_of(supports_schema.by_role[role], "opinion")
        assert opinion.sampling.json_schema is None
    (other,) = asked_of(supports_schema.by_role["juror-2"], "review")
    assert other.sampling.json_schema is None
    (chair,) = asked_of(supports_schema.by_role["main"], "chair")
    assert chair.sampling.json_schema["properties"]["choice"]["enum"] == ["A", "B", "C", "D"]
    for name, runs, solution in (("plain", plain, before), ("held", supports_schema, after)):
        again = await runs.solve(name, replay=True)
        assert (again.best.answer, again.notes["ranking"]) == (solution.best.answer, solution.notes["ranking"])
