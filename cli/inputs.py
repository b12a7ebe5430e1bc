"""What the user gives a question with, read and checked: the question itself, files, choices, parameters."""

from __future__ import annotations

import json
import math
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError, UserError

if TYPE_CHECKING:
    from ..core.question import Document

MAX_CONTEXT_BYTES = 5_000_000
"""Largest context file taken, in bytes."""

STDIN = "-"
_SOURCE = re.compile(r"[a-z][a-z0-9+]+:\S")


def check_one_stdin(wanted: Sequence[bool]) -> None:
    """Refuse to read standard input twice.

    Raises:
        UserError: More than one thing is to be read from it.
    """
    if sum(wanted) > 1:
        raise UserError("standard input can be read only once", hint="use - for the question or for one --context")


def read_question(given: str) -> str:
    """The question, from the command line or, for `-`, from standard input.

    Raises:
        UserError: It is empty, too long or no text.
    """
    from ..core.question import MAX_QUESTION_CHARS

    text = given
    if given == STDIN:
        raw = sys.stdin.buffer.read(4 * MAX_QUESTION_CHARS + 1)
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            if len(raw) <= 4 * MAX_QUESTION_CHARS:
                raise UserError("the question on standard input is not UTF-8 text") from e
            text = raw.decode("utf-8", "replace")  # cut within a character, and too long anyway
    text = text.strip()
    if not text:
        raise UserError("the question is empty", hint="give it as an argument, or - to read standard input")
    if len(text) > MAX_QUESTION_CHARS:
        raise UserError(
            f"the question has more than {MAX_QUESTION_CHARS:,} characters",
            hint="ask a short question and give the long text with --context FILE",
        )
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError("the question is not valid UTF-8 text")
    return text


def sort_contexts(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """What `--context` names: files, whose text goes to the model; and what is to be asked for knowledge.

    A folder is asked, and so is what begins with a word and a colon; a file that is there stays a file.
    """
    files, sources = [], []
    for name in given:
        if name == STDIN or Path(name).is_file() or not (Path(name).is_dir() or _SOURCE.match(name)):
            files.append(Path(name))
        else:
            sources.append(name)
    return files, sources


def read_contexts(paths: Sequence[Path]) -> tuple[Document, ...]:
    """The context files as documents, in the order given; `-` is standard input.

    Raises:
        DataError: A file is missing, not readable, too large or no UTF-8 text; names it.
    """
    return tuple(_read_context(path) for path in paths)


def _read_context(path: Path) -> Document:
    from ..core.question import Document

    name = "standard input" if str(path) == STDIN else str(path)
    try:
        if str(path) == STDIN:
            raw = sys.stdin.buffer.read(MAX_CONTEXT_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_CONTEXT_BYTES + 1)
    except FileNotFoundError as e:
        raise DataError(f"context file {name!r} does not exist", hint="check --context") from e
    except OSError as e:
        raise DataError(f"cannot read the context file {name!r}: {e.strerror}", hint="check --context") from e
    if len(raw) > MAX_CONTEXT_BYTES:
        raise DataError(
            f"context file {name!r} is larger than {MAX_CONTEXT_BYTES // 1_000_000} MB",
            hint="give the part that matters",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(
            f"context file {name!r} is not UTF-8 text (byte {e.start})", hint="convert it to a text file"
        ) from e
    if "\0" in text:
        raise DataError(f"context file {name!r} is binary", hint="convert it to a text file")
    return Document(name=name, text=text)


def parse_choices(given: str | None) -> tuple[str, ...]:
    r"""Choices from `A|B|C`; a `\|` is a bar within a choice.

    Raises:
        UserError: There are fewer than two, or one is empty.
    """
    if given is None:
        return ()
    choices = tuple(part.strip().replace("\\|", "|") for part in re.split(r"(?<!\\)\|", given))
    if len(choices) < 2 or not all(choices):
        raise UserError(f"--choices {given!r} is not a list of choices", hint="write them as 'red|green|blue'")
    return choices


def parse_verify_parameters(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parameters of verifiers from `NAME.key=value`, by verifier.

    Raises:
        UserError: One names no verifier, or as `parse_parameters`.
    """
    for item in given:
        name, dot, key = item.partition("=")[0].partition(".")
        if not (name.strip() and dot and key.strip()):
            raise UserError(f"--verify-set {item!r} is not NAME.key=value", hint="for example --verify-set davinci.k=8")
    return parse_parameters(given, "--verify-set")


def parse_parameters(given: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Parameters from `key=value`, nested ones with dots in the key.

    A value is read as JSON or else as TOML where it is one of a single line (`8`, `0.7`, `true`, `null`, `"a"`,
    `[1, 2]`); anything else stays the text it is.

    Args:
        given: What was given.
        option: The option's name, for errors.

    Raises:
        UserError: One has no `=` or no key, or two contradict each other; names it.
    """
    parameters: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path):
            raise UserError(f"{option} {item!r} is not key=value", hint=f"for example {option} n=8")
        node = parameters
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{option} {item!r} contradicts an earlier {option} of {part!r}")
        if isinstance(node.get(path[-1]), dict):
            raise UserError(f"{option} {item!r} contradicts an earlier {option} of a part of {path[-1]!r}")
        node[path[-1]] = _read_value(value.strip())
    return parameters


def _read_value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _read_toml_value(text)
    if isinstance(value, float) and not math.isfinite(value):
        return text
    return value


def _read_toml_value(text: str) -> Any:
    if "\n" in text or "#" in text:  # what TOML would take for a second line or a comment is meant as text
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        json.dumps(value)  # a parameter is stored as JSON: a date, for one, is none and stays text
    except (ValueError, TypeError, RecursionError):
        return text
    return value
