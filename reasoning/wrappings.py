r"""What answers come wrapped in: markdown emphasis, quotes, `$…$`, `\(…\)`, `\text{…}`, full stops."""

from __future__ import annotations

import re

MAX_ANSWER_CHARS = 4000
"""Longest answer taken, in characters; what is longer is no answer but a text."""

_MAX_LAYERS = 16  # wrappings taken off one another; deeper nesting is not writing
_PAIRS = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("_", "_"),
    ("```", "```"),
    ("`", "`"),
    ('"', '"'),
    ("“", "”"),
    ("«", "»"),
    ("「", "」"),
    ("'", "'"),
    ("‘", "’"),  # noqa: RUF001 (typographic quotes)
)
_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|boxed|fbox|operatorname)\s?\{")
_EDGE_LEFT = " \t\r\n:=>*#,;"
_EDGE_RIGHT = " \t\r\n.,;:*。"
_SPACING = re.compile(r"\\(?:displaystyle|quad|qquad|[,;:!])\s?")


def closing_brace(text: str, after_open: int, end: int) -> int | None:
    r"""Position of the brace that closes the one just before `after_open`; escaped braces (`\{`) do not count.

    Args:
        text: Any text.
        after_open: Position after the opening brace.
        end: Where to give up; may lie beyond the text.
    """
    end = min(end, len(text))
    depth = 1
    i = after_open
    while i < end:
        character = text[i]
        if character == "\\":
            i += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def unwrap(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks, final punctuation and wrappings around it; may be empty."""
    for _ in range(_MAX_LAYERS):
        before = (start, end)
        start, end = _edges(text, start, end)
        start, end = _pair(text, start, end)
        start, end = _command(text, start, end)
        if (start, end) == before:
            break
    return start, end


def _edges(text: str, start: int, end: int) -> tuple[int, int]:
    """Without blanks and punctuation; emphasis at one end alone is a leftover and goes, too."""
    while (
        start < end and (text[start] in _EDGE_LEFT or text[start].isspace()) and not text.startswith(("**", "*"), start)
    ):
        start += 1
    while end > start and (text[end - 1] in _EDGE_RIGHT or text[end - 1].isspace()) and text[end - 1] != "*":
        if text[end - 1] in " ," and _escaped(text, start, end - 1):  # "\ " and "\,": LaTeX space
            end -= 1
        end -= 1
    if end - start > 1 and text[end - 1] in "!?" and text[end - 2].isalpha() and end - start > 2:  # "n!" is a factorial
        end -= 1
    leading, trailing = text[start:end].startswith("*"), text[start:end].endswith("*")
    if leading != trailing:
        while start < end and text[start] == "*":
            start += 1
        while end > start and text[end - 1] == "*":
            end -= 1
    spacing = _SPACING.match(text, start, end)
    if spacing and spacing.end() < end:
        start = spacing.end()
    return start, end


def _escaped(text: str, start: int, position: int) -> bool:
    return position > start and text[position - 1] == "\\"


def _pair(text: str, start: int, end: int) -> tuple[int, int]:
    for opening, closing in _PAIRS:
        inner_start, inner_end = start + len(opening), end - len(closing)
        if (
            inner_start < inner_end
            and text.startswith(opening, start, end)
            and text.startswith(closing, inner_end)
            and text.find(closing, inner_start, inner_end) < 0
            and not _escaped(text, start, inner_end)
        ):
            return inner_start, inner_end
    if text.startswith("$", end - 1) and end - start > 1 and text.count("$", start, end) == 1:
        return start, end - 1  # the other half of a formula that began outside
    return start, end


def _command(text: str, start: int, end: int) -> tuple[int, int]:
    command = _COMMAND.match(text, start, end)
    if command and end - start <= MAX_ANSWER_CHARS and closing_brace(text, command.end(), end) == end - 1:
        return command.end(), end - 1
    return start, end
