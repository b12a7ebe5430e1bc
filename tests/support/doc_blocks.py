"""The code blocks of README.md and docs/, with page, line, language and the reason for skipping."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"( *)```(\w*)[^`\n]*")
_NOT_RUN = re.compile(r" *<!-- not run: (.+) -->")
_IN_CI = re.compile(r" *<!-- ci:(\w+) -->")


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        page: Its page, relative to the checkout.
        line: The line of its first line of code, from 1.
        language: Language of the fence.
        code: Its text, with a line break at the end.
        not_run: Reason for skipping the block; empty if it is run.
    """

    page: str
    line: int
    language: str
    code: str
    not_run: str

    @property
    def location(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page, the README first."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(p.relative_to(ROOT).as_posix() for p in found)]


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in their order.

    Raises:
        ValueError: A fence is never closed.
    """
    found, reason = [], ""
    lines = (read_page(page) if text is None else text).split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if marked := _NOT_RUN.fullmatch(line):
            reason = marked[1]
        elif in_ci := _IN_CI.fullmatch(line):
            reason = f".ci/run {in_ci[1]}"
        elif opened := _FENCE.fullmatch(line):
            first, indent = at, len(opened[1])
            while at < len(lines) and lines[at].strip() != "```":
                at += 1
            if at == len(lines):
                raise ValueError(f"{page}:{first}: the fence is not closed")
            code = "".join(f"{li[indent:]}\n" for li in lines[first:at])
            found.append(Block(page, first + 1, opened[2], code, reason))
            at, reason = at + 1, ""
        elif line.strip():
            reason = ""
    return found


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks_of(page)]


def indented_code(text: str) -> list[int]:
    """Lines at which code begins that is marked by four blanks alone, which none of this would find."""
    found, fenced, in_list, blank = [], False, False, True
    for number, line in enumerate(text.split("\n"), 1):
        if _FENCE.fullmatch(line) or line.strip() == "```":
            fenced = not fenced
        elif not fenced and line.strip():
            if re.match(r" *([-*+]|\d+\.) ", line):
                in_list = True
            elif not line.startswith(" "):
                in_list = False
            elif blank and not in_list and line.startswith("    "):
                found.append(number)
        blank = not line.strip()
    return found
