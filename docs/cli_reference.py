"""Writes docs/cli-reference.md: every command with its arguments and options, from the command line's own definition.

python docs/cli_reference.py            writes it
python docs/cli_reference.py --check    exits with 1 if it is not up to date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from reason.cli.main import app

PAGE = Path(__file__).resolve().parent / "cli-reference.md"
HEAD = """# Command reference

Every command with its arguments and options, made by `docs/cli_reference.py` from the program itself.
[Command line](cli.md) says what they are good for.
"""


def commands(command: Any, words: tuple[str, ...] = ("reason",)) -> Iterator[tuple[str, Any]]:
    """Each command that does something, with the words that call it."""
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name in sorted(command.commands):
        if not command.commands[name].hidden:
            yield from commands(command.commands[name], (*words, name))


def section(words: str, command: Any) -> str:
    """One command."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([words, *(argument(a) for a in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [f"| `{argument(a).strip('[]')}` | {plain(a.help)} |" for a in arguments if a.help]
    rows += [f"| {names(o)} | {plain(o.help)} |" for o in sorted(options, key=lambda o: o.opts[0].lstrip("-"))]
    table = "\n".join(["| argument or option | |", "| --- | --- |", *rows]) if rows else ""
    return "\n\n".join(part for part in (f"## {words}", plain(summary(command)), f"`{usage}`", table) if part)


def argument(param: Any) -> str:
    """An argument as it stands in a usage line."""
    name = (param.metavar or param.name).upper().strip("[]").removesuffix("...")
    shown = f"{name}..." if param.nargs == -1 else name
    return shown if param.required else f"[{shown}]"


def names(option: Any) -> str:
    """An option's spellings and what stands behind it."""
    spelt = ", ".join(f"`{name}`" for name in [*sorted(option.opts, key=len), *option.secondary_opts])
    if option.is_flag:
        return spelt
    kind = option.metavar or "VALUE"  # what stands for it without one differs among versions of typer
    if "|" in kind:  # within backticks, Markdown dialects disagree on how a bar is written in a table
        return f"{spelt} <code>{kind.replace('|', '&#124;')}</code>"
    return f"{spelt} `{kind}`"


def summary(command: Any) -> str:
    """What a command does: its help up to the first blank line."""
    return (command.help or "").strip().partition("\n\n")[0]


def plain(text: str | None) -> str:
    """Help as Markdown: on one line, without the terminal's markup."""
    text = re.sub(r"(?<!\\)\[/?(?:b|i|bold|dim|cyan|green|yellow|red)\]", "", text or "").replace("\\[", "[")
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")


def reference() -> str:
    """The whole page."""
    return "\n\n".join([HEAD.rstrip(), *(section(*found) for found in commands(typer.main.get_command(app)))]) + "\n"


def main() -> int:
    """Write or check."""
    new = reference()
    if "--check" in sys.argv:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == new else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
