"""`tool_of`, results and limits."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field
from reason.agents.loop.tool import ToolCallContext, ToolResult, cut, error_result, result_of, schema_tool, tool_of
from reason.core.errors import UserError

CONTEXT = ToolCallContext("run", "intent")


class Stop(BaseModel):
    """A stop."""

    city: str
    nights: int = 1


async def book(
    stops: list[Stop],
    cabin: Literal["economy", "business"] = "economy",
    price: Annotated[float, Field(gt=0)] | None = None,
    *,
    idempotency_key: str,
    context: ToolCallContext,
) -> dict[str, object]:
    """Book a journey.

    It takes several stops.

    Args:
        stops: The stops, in order,
            the first one first.
        cabin (str): The cabin.

    Returns:
        The booking.
    """
    return {
        "cities": [s.city for s in stops],
        "key": idempotency_key,
        "run": context.run_id,
        "cabin": cabin,
        "price": price,
    }


def test_schema_and_descriptions_come_from_the_signature_and_the_docstring():
    tool = tool_of(book)
    parameters = tool.declaration.parameters
    assert tool.name == "book"
    assert tool.declaration.description == "Book a journey.\n\nIt takes several stops."
    assert set(parameters["properties"]) == {"stops", "cabin", "price"}
    assert parameters["properties"]["stops"]["description"] == "The stops, in order, the first one first."
    assert parameters["properties"]["cabin"]["enum"] == ["economy", "business"]
    assert parameters["required"] == ["stops"]
    assert parameters["additionalProperties"] is False
    assert "title" not in json.dumps(parameters)
    assert tool.effect == "write"


async def test_call_gets_parsed_arguments_and_the_key_of_its_intent():
    value = await tool_of(book).call({"stops": [{"city": "Rome"}]}, CONTEXT)
    assert value == {"cities": ["Rome"], "key": "run:intent", "run": "run", "cabin": "economy", "price": None}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ('{"stops": [{"city": "Rome"}]}', ""),
        ('{"stops": [{"city": 3}]}', "['stops'][0]['city']: 3 is not of type 'string'"),
        ('{"stops": [], "cabin": "roof"}', "['cabin']: 'roof' is not one of ['economy', 'business']"),
        ('{"stops": [], "hotel": 1}', "Additional properties are not allowed ('hotel' was unexpected)"),
        ("{", "it is no JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "[] is not of type 'object'"),
    ],
)
def test_invalid_arguments_are_described_in_one_line(arguments, fault):
    assert tool_of(book).fault(arguments) == fault


def test_effect_is_declared_by_argument_or_attribute():
    def look(x: int) -> int:
        return x

    look.effect = "read"
    assert tool_of(look).effect == "read"
    assert tool_of(look, effect="idempotent").effect == "idempotent"


async def test_synchronous_functions_run_in_a_thread():
    import threading

    def where() -> str:
        return threading.current_thread().name

    assert await tool_of(where).call({}, CONTEXT) != threading.current_thread().name


@pytest.mark.parametrize("bad", ["args", "kwargs", "positional", "unknown"])
def test_signatures_without_a_schema_are_refused(bad):
    class Opaque:
        pass

    def args(*xs: int) -> None: ...
    def kwargs(**xs: int) -> None: ...
    def positional(x: int, /) -> None: ...
    def unknown(x) -> None: ...

    unknown.__annotations__["x"] = Opaque
    with pytest.raises(UserError, match="tool"):
        tool_of(locals()[bad])


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "text", "is_error"),
    [
        ("plain", "plain", False),
        ({"a": [1, None]}, '{"a": [1, null]}', False),
        ([Point(1)], '[{"x": 1}]', False),
        (Stop(city="Rome"), '{"city": "Rome", "nights": 1}', False),
        (None, "null", False),
        ("half \ud83d", "half ?", False),
        ({1, 2}, "[1, 2]", False),
        (b"ab", "Error: the tool returned 2 bytes, not text", True),
        (object(), "Error: the tool returned a object, which has no JSON form", True),
        (float("nan"), "Error: the tool returned a float, which has no JSON form", True),
        (ToolResult(text="x", is_error=True), "x", True),
    ],
)
def test_results_are_text_json_or_an_error(value, text, is_error):
    assert result_of(value) == ToolResult(text=text, is_error=is_error)


def test_a_result_of_50_megabytes_is_cut_in_the_middle():
    result = result_of("a" * 25_000_000 + "b" * 25_000_000)
    assert 4_000_000 <= len(result.text) < 4_000_200
    assert result.text.startswith("aaa")
    assert result.text.endswith("bbb")
    assert "[… 46,000,000 of 50,000,000 characters left out …]" in result.text


def test_a_cut_names_how_to_read_the_rest():
    shown = cut("0123456789" * 10, 20, call="c1")
    assert (
        shown
        == "0123456789\n[… 80 of 100 characters left out; read_result(call='c1', start=10) returns more …]\n0123456789"
    )
    assert cut("short", 20) == "short"


def test_errors_have_a_text():
    assert error_result(ValueError()).text == "Error: ValueError"
    assert error_result(KeyError("x")).text == "Error: 'x'"


def test_a_class_with_invoke_and_a_schema_becomes_a_tool_in_a_few_lines():
    class Cancel:
        @staticmethod
        def invoke(data, reservation_id):
            data["reservations"][reservation_id] = "cancelled"
            return "ok"

        @staticmethod
        def get_info():
            parameters = {
                "type": "object",
                "properties": {"reservation_id": {"type": "string"}},
                "required": ["reservation_id"],
            }
            return {
                "type": "function",
                "function": {"name": "cancel", "description": "Cancel.", "parameters": parameters},
            }

    data = {"reservations": {"A": "booked"}}
    info = Cancel.get_info()["function"]
    tool = schema_tool(**info, call=lambda **arguments: Cancel.invoke(data, **arguments))
    assert asyncio.run(tool.call({"reservation_id": "A"}, CONTEXT)) == "ok"
    assert data == {"reservations": {"A": "cancelled"}}
