"""What a user passes to a command, parsed and checked: questions, files, choices, parameters."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError, UserError

if TYPE_CHECKING:
    from ..core.messages import Attachment
    from ..core.types import CodeTest, Document

MAX_ATTACHMENT_FILE_BYTES = 20_000_000
"""Maximum size of an image or PDF in bytes."""
MAX_TEXT_BYTES = 5_000_000
"""Maximum size of a text file in bytes."""

STDIN = "-"
_SOURCE = re.compile(r"[a-z][a-z0-9+]+:\S")


def check_one_stdin(uses: Sequence[bool]) -> None:
    """Refuse to read standard input twice.

    Raises:
        UserError: More than one input is `-`.
    """
    if sum(uses) > 1:
        raise UserError("standard input can be read only once", hint="use - for the question or for one --context")


def read_question(argument: str) -> str:
    """The question, from the command line or, for `-`, from standard input.

    Raises:
        UserError: It is empty, too long or not text.
    """
    from ..core.types import MAX_QUESTION_CHARS

    text = argument
    if argument == STDIN:
        raw = sys.stdin.buffer.read(4 * MAX_QUESTION_CHARS + 1)
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            if len(raw) <= 4 * MAX_QUESTION_CHARS:
                raise UserError("the question on standard input is not UTF-8 text", hint="convert it to UTF-8") from e
            text = raw.decode("utf-8", "replace")  # cut within a character, and too long anyway
    text = text.strip()
    if not text:
        raise UserError("the question is empty", hint="pass it as an argument, or - to read standard input")
    if len(text) > MAX_QUESTION_CHARS:
        raise UserError(
            f"the question has more than {MAX_QUESTION_CHARS:,} characters",
            hint="ask a short question and pass the long text with --context FILE",
        )
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError("the question is not valid UTF-8 text", hint="convert it to UTF-8")
    return text


def split_contexts(values: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Values of `--context` as (files, whose text is part of the prompt; knowledge sources, which are searched).

    A directory is a knowledge source, and so is `scheme:…` unless a file has that name.
    """
    files, sources = [], []
    for name in values:
        if name == STDIN or Path(name).is_file() or not (Path(name).is_dir() or _SOURCE.match(name)):
            files.append(Path(name))
        else:
            sources.append(name)
    return files, sources


def read_contexts(paths: Sequence[Path]) -> tuple[Document, ...]:
    """The context files as documents, in order; `-` is standard input.

    Raises:
        DataError: A file is missing, unreadable, too large or not UTF-8 text; names it.
    """
    from ..core.types import Document

    return tuple(Document(name=input_name(path), text=read_text(path, "context file", "--context")) for path in paths)


def input_name(path: Path) -> str:
    """The path as messages show it."""
    return "standard input" if str(path) == STDIN else str(path)


def read_text(path: Path, kind: str, option: str) -> str:
    """The text of a file, or of standard input for `-`.

    Args:
        path: The file.
        kind: What it is, for error messages.
        option: The option that names it.

    Raises:
        DataError: It is missing, unreadable, too large or not UTF-8 text.
    """
    name = input_name(path)
    try:
        if str(path) == STDIN:
            raw = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        else:
            with path.expanduser().open("rb") as file:
                raw = file.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError as e:
        raise DataError(f"{kind} {name!r} does not exist", hint=f"check {option}") from e
    except OSError as e:
        raise DataError(f"cannot read the {kind} {name!r}: {e.strerror}", hint=f"check {option}") from e
    if len(raw) > MAX_TEXT_BYTES:
        raise DataError(
            f"{kind} {name!r} is larger than {MAX_TEXT_BYTES // 1_000_000} MB", hint="pass only the relevant part"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{kind} {name!r} is not UTF-8 text (byte {e.start})", hint="convert it to UTF-8") from e
    if "\0" in text:
        raise DataError(f"{kind} {name!r} is binary", hint="convert it to a text file")
    return text


def read_attachments(paths: Sequence[Path]) -> tuple[Attachment, ...]:
    """Images and PDFs with their contents.

    Raises:
        DataError: A file is missing, unreadable, too large, or neither an image nor a PDF.
    """
    from ..core.messages import Attachment

    read = []
    for path in paths:
        try:
            with path.expanduser().open("rb") as file:
                content = file.read(MAX_ATTACHMENT_FILE_BYTES + 1)
            if len(content) > MAX_ATTACHMENT_FILE_BYTES:
                raise ValueError(f"it is larger than {MAX_ATTACHMENT_FILE_BYTES // 1_000_000} MB")
            read.append(Attachment.of(content, name=path.name[:255]))
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) else str(e)
            raise DataError(f"cannot attach {str(path)!r}: {reason}", hint="check --attach") from e
    return tuple(read)


def read_tests(path: Path | None) -> tuple[CodeTest, ...]:
    """The tests in a file; none without one.

    Raises:
        DataError: The file is missing, unreadable, too large or not UTF-8 text.
        UserError: It has no tests.
    """
    if path is None:
        return ()
    from ..reasoning.code_test_files import parse_tests

    return parse_tests(read_text(path, "test file", "--tests"), input_name(path))


def parse_choices(value: str | None) -> tuple[str, ...]:
    r"""Choices from `A|B|C`; `\|` is a bar within a choice.

    Raises:
        UserError: There are fewer than two, or one is empty.
    """
    if value is None:
        return ()
    choices = tuple(part.strip().replace("\\|", "|") for part in re.split(r"(?<!\\)\|", value))
    if len(choices) < 2 or not all(choices):
        raise UserError(f"--choices {value!r} is not a list of choices", hint="write them as 'red|green|blue'")
    return choices


def parse_verifier_parameters(items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parameters of verifiers from `NAME.key=value`, by verifier.

    Raises:
        UserError: An item names no verifier, or as `parse_parameters`.
    """
    for item in items:
        name, dot, key = item.partition("=")[0].partition(".")
        if not (name.strip() and dot and key.strip()):
            raise UserError(f"--verify-set {item!r} is not NAME.key=value", hint="for example --verify-set davinci.k=8")
    return parse_parameters(items, "--verify-set")


def parse_parameters(items: Sequence[str], option: str = "--set", example: str = "n=8") -> dict[str, Any]:
    """Parameters from `key=value`; dots in a key make nested tables.

    A value is JSON (`8`, `0.7`, `true`, `null`, `"a"`, `[1, 2]`) or else text.

    Raises:
        UserError: An item has no `=` or no key, or contradicts an earlier one; names it.
    """
    parameters: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not equals or not all(path):
            raise UserError(f"{option} {item!r} is not key=value", hint=f"for example {option} {example}")
        node = parameters
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{option} {item!r} contradicts an earlier {option} of {part!r}")
        if isinstance(node.get(path[-1]), dict):
            raise UserError(f"{option} {item!r} contradicts an earlier {option} of a part of {path[-1]!r}")
        node[path[-1]] = _parse_value(value.strip())
    return parameters


def _parse_value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def parse_texts(items: Sequence[str], option: str) -> dict[str, str]:
    """Texts from `key=value`.

    Raises:
        UserError: An item has no `=` or no key, or a key is repeated.
    """
    texts: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{option} {item!r} is not key=value", hint=f"write {option} KEY=VALUE")
        if key.strip() in texts:
            raise UserError(f"{option} names {key.strip()!r} twice", hint="pass each key once")
        texts[key.strip()] = value.strip()
    return texts
