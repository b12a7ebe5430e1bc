"""Validation of texts by JSON Schemas, in bounded time."""

import sys

import pytest
from reason.core.errors import UserError
from reason.core.json_schema import OBJECT_SCHEMA, check_schema, is_strict, schema_fault
from reason.serving.output_schemas import enum_schema, object_schema

SCHEMA = object_schema({"colour": enum_schema(["red", "blue"]), "shades": {"type": "integer", "minimum": 1}})


@pytest.mark.parametrize(("text", "schema"), [(' {"shades":1,"colour":"blue"}\n', SCHEMA), ("{}", OBJECT_SCHEMA)])
def test_a_valid_text_has_no_fault(text, schema):
    assert schema_fault(text, schema) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("red", "it is no JSON"),
        ('{"colour": "red", "shades": NaN}', "NaN is no JSON"),
        ('{"colour": "red", "shades": 0}', "['shades']: 0 is less than the minimum of 1"),
        ('{"colour": "green", "shades": 1}', "['colour']: 'green' is not one of"),
        ('{"colour": "red"}', "'shades' is a required property"),
        ('{"colour": "red", "shades": 1, "x": 1}', "'x' was unexpected"),
        ("[1]", "[1] is not of type 'object'"),
        ('"text"', "is not of type 'object'"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_a_fault_is_described(text, fault):
    assert fault in schema_fault(text, SCHEMA)


def test_a_schema_that_doubles_at_every_reference_is_given_up():
    levels = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(100)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**levels, "a100": {"type": "object"}}}
    with pytest.raises(UserError, match="takes too long to check"):
        schema_fault("{}", schema)
    nested = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    with pytest.raises(UserError, match="takes too long to check"):
        schema_fault("{}", {"allOf": [nested]} | {"$defs": schema["$defs"]})


@pytest.mark.parametrize("depth", [300, 5000])
def test_a_schema_that_is_nested_too_deep_is_refused(depth):
    schema = {}
    for _ in range(depth):
        schema = {"not": schema}
    with pytest.raises(UserError, match="nested too deep"):
        check_schema(schema)


@pytest.mark.parametrize("depth", range(3))
def test_a_schema_that_refers_to_itself_is_given_up_while_calls_are_traced(depth):
    """As under coverage or a debugger: the end of the stack may be met in compiled code, which depends on the depth."""

    def below(levels):
        return schema_fault("{}", {"$ref": "#"}) if levels == 0 else below(levels - 1)

    before = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        with pytest.raises(UserError, match="takes too long to check"):
            below(depth)
    finally:
        sys.settrace(before)


def test_an_expression_that_backtracks_is_given_up():
    with pytest.raises(UserError, match="takes too long to check"):
        schema_fault(f'"{"a" * 4000}!"', {"type": "string", "pattern": "^(a+)+$"})


def test_nothing_is_loaded_from_addresses():
    with pytest.raises(UserError, match="http://127.0.0.1:9/x"):
        schema_fault("{}", {"$ref": "http://127.0.0.1:9/x"})


def test_patterns():
    assert schema_fault('"ab"', {"pattern": "^a"}) == ""
    assert "does not match" in schema_fault('"ba"', {"pattern": "^a"})
    with pytest.raises(UserError, match="not a regular expression"):
        schema_fault('"ba"', {"pattern": "("})


def test_names_that_follow_patterns_are_not_checked():
    schema = {"patternProperties": {"^(a+)+$": {"type": "integer"}}, "additionalProperties": False}
    assert schema_fault('{"b": 1}', schema) == ""


def test_no_schema_is_refused_by_name():
    check_schema(SCHEMA)
    with pytest.raises(UserError, match="not a JSON Schema: 5 is not") as refused:
        check_schema({"type": 5}, "response_format")
    assert refused.value.param == "response_format"
    with pytest.raises(UserError, match="more than 20,000 values"):
        check_schema({"enum": list(range(30_000))})


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (SCHEMA, True),
        ({"type": "array", "items": SCHEMA}, True),
        (OBJECT_SCHEMA, False),
        ({**SCHEMA, "required": ["colour"]}, False),
        ({**SCHEMA, "additionalProperties": True}, False),
        (object_schema({"a": {"type": "object", "properties": {}}}), False),
    ],
)
def test_strictness(schema, strict):
    assert is_strict(schema) is strict
