"""The commands of a block of shell, and whether `reason` would take those that are its own."""

from __future__ import annotations

import functools
import re
import shlex
from typing import Any

import typer.main
from reason.cli.main import ParserError, complete_app

_ENDS = {"|", "||", "&&", ";", "&"}
_SET = re.compile(r"[A-Za-z_]\w*=.*", re.S)
_SHELL = {"for", "do", "done", "while", "if", "then", "fi"}


def commands(code: str) -> list[list[str]]:
    """The arguments of each command, without environment assignments and redirections."""
    found: list[list[str]] = []
    for line in _lines(code):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        rest = iter(list(lexer))
        for word in rest:
            if word in _ENDS:
                found.append(words)
                words = []
            elif word in (">", ">>", "<", "2>"):
                next(rest, None)
            elif words or not (_SET.fullmatch(word) or word in ("export", "do", "then")):
                words.append(word)
        found.append(words)
    return [words for words in found if words and words[0] not in _SHELL]


@functools.cache
def _reason() -> Any:
    return typer.main.get_command(complete_app())


def _lines(code: str) -> list[str]:
    """Whole commands: lines with those that continue them, or that belong to the same quotation."""
    found, held = [], ""
    for line in code.split("\n"):
        held += line
        if held.endswith("\\"):
            held = held[:-1]
            continue
        try:
            shlex.split(held, comments=True)
        except ValueError:  # the quotation goes on
            held += "\n"
            continue
        found.append(held)
        held = ""
    if held.strip():
        raise ValueError(f"a quotation is never closed: {held}")
    return found


def shown_commands(code: str) -> str:
    """The input of a console block: the lines after `$ `, and their continuation lines."""
    kept, goes_on = [], False
    for line in code.split("\n"):
        if line.startswith("$ ") or goes_on:
            kept.append(line.removeprefix("$ "))
            goes_on = line.endswith("\\")
    return "".join(f"{line}\n" for line in kept)


def refused(words: list[str]) -> str:
    """Why the command line would refuse a command of `reason`; empty if it takes it.

    Nothing is run: options, their values and the number of arguments are looked at. Files that are named need not be
    there.
    """
    command = _reason()
    context, rest = None, list(words[1:])
    try:
        while True:
            context = command.make_context(words[0], rest, parent=context)
            rest = [*getattr(context, "_protected_args", []), *context.args]
            if not hasattr(command, "resolve_command") or not rest:
                return ""
            _, command, rest = command.resolve_command(context, rest)
    except ParserError as e:
        return str(e.format_message())
    except typer.Exit:  # --version, --help
        return ""
