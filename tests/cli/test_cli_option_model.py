"""`option_model`: typer commands whose arguments and options are the fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from reason.cli.command import is_default, option_model
from reason.cli.options import ReasoningOptions
from reason.core.errors import UserError
from typer.testing import CliRunner


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Maximum number of tokens.")] = None
    names: Annotated[list[str], typer.Option("--name", help="A name. Repeatable.")] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class GreetOptions:
    question: Annotated[str, typer.Argument(help="The question.")] = "why?"
    limits: LimitOptions
    loud: Annotated[bool, typer.Option("--loud", help="Capital letters.")] = False


@pytest.fixture
def received() -> list[GreetOptions]:
    return []


@pytest.fixture
def app(received: list[GreetOptions]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @option_model
    def greet(options: GreetOptions) -> None:
        """Greet."""
        received.append(options)

    return app


def test_options_of_groups_are_options_of_the_command(app, received):
    arguments = ["who?", "--max-tokens", "3", "--name", "a", "--name", "b", "--loud"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    limits = LimitOptions(max_tokens=3, names=["a", "b"])
    assert received == [GreetOptions(question="who?", limits=limits, loud=True)]
    assert not is_default(received[0])
    assert not is_default(received[0].limits)


def test_defaults_are_those_of_the_fields(app, received):
    assert CliRunner().invoke(app, []).exit_code == 0
    assert received == [GreetOptions(limits=LimitOptions())]
    assert is_default(received[0])


def test_constraints_and_help_come_from_the_fields(app, received):
    assert CliRunner().invoke(app, ["--max-tokens", "0"]).exit_code == 2
    assert received == []
    assert "Maximum number of tokens." in CliRunner().invoke(app, ["--help"]).output


def test_a_command_called_directly_runs_with_its_defaults():
    received = []

    @option_model
    def greet(options: GreetOptions) -> None:
        received.append(options)

    greet()
    greet(loud=True)
    assert [options.loud for options in received] == [False, True]


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, None),
        ({"model": "m"}, "m"),
        ({"api_base": "http://h/v1"}, "http://h/v1"),
        ({"model": "Qwen/m", "api_base": "http://h/v1"}, "Qwen/m@http://h/v1"),
    ],
)
def test_the_main_model_has_the_address_of_its_server(options, model):
    assert ReasoningOptions(**options).main_model == model


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(UserError, match="--api-base 'h:1' is not an address"):
        ReasoningOptions(api_base="h:1").main_model  # noqa: B018
