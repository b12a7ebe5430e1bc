r"""Exact checks of arithmetic in text: `48 / 2 = 24 clips`, `$5 \times 12 = $60`, chains `a = b = c`, `<<48/2=24>>`.

Both sides of a sign of equality are evaluated in fractions. A value with decimals may be the other side rounded to as
many; an integer must be exact, unless the line mentions rounding or a remainder, or the sign is ≈. A line is judged
only if both sides are plain arithmetic over numbers, without variables, functions and units between them: a "wrong"
line is certainly wrong.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# ruff: noqa: RUF001 (typographic signs of arithmetic are meant)

MAX_CHARS = 200_000
"""Checked part of a text, in characters."""
MAX_SIDE_CHARS = 200
MAX_EXPONENT = 64
MAX_BITS = 8000
"""Maximum size of a power, in bits."""

_CLEANING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), by)
    for pattern, by in (
        (r"<<([^<>\n]{1,200})>>", r"\n\1\n"),  # annotations of a calculator
        (r"\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{([^{}\n]{0,80})\}", r" \1 "),
        (r"\\[dt]?frac\s?\{\s?([0-9.]{1,20})\s?\}\s?\{\s?([0-9.]{1,20})\s?\}", r"(\1/\2)"),
        (r"\\[dt]?frac\s?([0-9])([0-9])", r"(\1/\2)"),
        (r"(?<=[0-9])(?:,|\{,\}|\\,)(?=[0-9]{3}(?![0-9]))", ""),
        (r"\\(?:left|right)(?![A-Za-z])|\\?\$|[€£`&]", ""),
        (r"\\\\|\\[\[\]()]", "\n"),
        (r"\\(?:times|cdot)(?![A-Za-z])|[×·]", "*"),
        (r"\\div(?![A-Za-z])|÷", "/"),
        (r"\\approx(?![A-Za-z])|≈", "~"),
        (r"\\%", "%"),
        (r"[–−]", "-"),
        (r"(?<=[0-9)%])\s?x\s?(?=[0-9(])", "*"),
        (r"(?<=[0-9)])\*\*(?=[0-9(-])", "^"),
        (r"\*\*", ""),
        (r"^[^\S\n]*(?:[-*•]|[0-9]{1,3}[.)])[^\S\n]+", ""),
        # a line that begins with "=" continues the one before; each run of whitespace is tried once
        (r"(?<!\s)(?=\s*\n)\s+(?==[^=])", " "),
    )
)
_SIGN = re.compile(r"(?<![<>!=~])(=|~)(?![=>])")
_BEFORE = re.compile(r"[0-9.()+\-*/^%\s]*\Z")
_AFTER = re.compile(r"[0-9.()+\-*/^%\s]*")
_WORD_BEFORE = re.compile(r"([A-Za-z]+)\s*\Z")
_OPERANDS = frozenset({"of", "by", "from", "than", "twice", "double", "triple", "half", "over", "more", "less"})
"""Words that make the expression after them an operand of something else."""
_SCALE = re.compile(r"\s*(?:hundred|thousand|million|billion|dozen|percent)\b")
_LOOSE = re.compile(r"\b(?:round\w*|remainder|left ?over|whole|ceil\w*|floor\w*|nearest|estimate\w*)\b", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9.]+)\s?%")
_NUMBER = re.compile(r"-?[0-9]*\.?([0-9]+)?%?")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """One equality.

    Attributes:
        text: Both sides, with normalized signs.
        left: Value of the left side.
        right: Value of the right side.
        verdict: "unclear" is a mismatch that a rounding may explain.
    """

    text: str
    left: Fraction
    right: Fraction
    verdict: Literal["right", "wrong", "unclear"]


@dataclass(frozen=True, slots=True)
class ArithmeticCheck:
    """The equalities of a text, each different one once, in order."""

    lines: tuple[CheckedLine, ...] = ()

    @property
    def right(self) -> int:
        """Number of right ones."""
        return sum(line.verdict == "right" for line in self.lines)

    @property
    def wrong(self) -> int:
        """Number of wrong ones."""
        return sum(line.verdict == "wrong" for line in self.lines)

    @property
    def share(self) -> float | None:
        """Share of right ones among right and wrong, in [0, 1]; None if there are neither."""
        judged = self.right + self.wrong
        return self.right / judged if judged else None


def check_arithmetic(text: str) -> ArithmeticCheck:
    """Check the arithmetic of a text. Never raises."""
    text = text[:MAX_CHARS]
    for pattern, by in _CLEANING:
        text = pattern.sub(by, text)
    return ArithmeticCheck(tuple(dict.fromkeys(checked for line in text.split("\n") for checked in _equalities(line))))


def _equalities(line: str) -> Iterator[CheckedLine]:
    parts = _SIGN.split(line)
    is_loose = _LOOSE.search(line) is not None
    for before, sign, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
        left, right = _expression_before(before), _expression_after(after)
        if left is None or right is None or (_is_number(left) and _is_number(right)):
            continue
        a, b = _value(left), _value(right)
        if a is None or b is None:
            continue
        is_right = _agree(a, b, _decimals(right)) or _agree(a, b, _decimals(left))
        if "%" in left or "%" in right:
            is_right = is_right or _agree(100 * a, b, _decimals(right)) or _agree(a, 100 * b, _decimals(left))
        mismatch: Literal["wrong", "unclear"] = "unclear" if is_loose or sign == "~" else "wrong"
        yield CheckedLine(f"{left} {sign} {right}".replace("~", "≈"), a, b, "right" if is_right else mismatch)


def _expression_before(text: str) -> str | None:
    """The expression at the end of a text; None if it is part of something else."""
    match = _BEFORE.search(text[-MAX_SIDE_CHARS:])
    assert match is not None  # it matches the empty end
    found, before = match[0], text[-MAX_SIDE_CHARS:][: match.start()]
    if before and not found[:1].isspace() and before[-1] not in ",;\"'":
        return None
    word = _WORD_BEFORE.search(before)
    if word and (word[1].lower() in _OPERANDS or (len(word[1]) == 1 and word[1] not in "aAI")):
        return None
    expression = _balanced(found.strip().lstrip(". "))
    is_signed = before.strip() == "" or not expression.startswith("-")
    return expression if expression and expression[0] in "0123456789.(-" and is_signed else None


def _expression_after(text: str) -> str | None:
    """The expression at the beginning of a text; None if more of the same expression follows."""
    match = _AFTER.match(text[:MAX_SIDE_CHARS])
    assert match is not None  # it matches the empty beginning
    found, rest = match[0], text[match.end() :]
    if rest and (_SCALE.match(rest) or (not found[-1:].isspace() and rest[0] not in ",;:?!\"'")):
        return None
    expression = _balanced(found.strip().rstrip(". "))
    return expression if expression and expression[-1] in "0123456789.)%" else None


def _balanced(expression: str) -> str:
    """The expression without an opening or closing bracket around it that belongs to the sentence."""
    if expression.startswith("(") and expression.count("(") > expression.count(")"):
        expression = expression[1:].strip()
    if expression.endswith(")") and expression.count(")") > expression.count("("):
        expression = expression[:-1].strip().rstrip(".")
    return expression


def _value(expression: str) -> Fraction | None:
    """Exact value; None if it cannot be evaluated, or if a percentage is added to something."""
    if "%" in expression and re.search(r"[+-]", expression[1:]):
        return None
    source = _PERCENT.sub(r"(\1/100)", expression).replace("^", "**")
    try:
        return _evaluate(ast.parse(source, mode="eval").body, source)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _evaluate(node: ast.expr, source: str) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            return Fraction(ast.get_source_segment(source, node) or "")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, source)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = _evaluate(left, source), _evaluate(right, source)
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if exponent.denominator != 1 or abs(exponent) > min(MAX_EXPONENT, MAX_BITS / bits):
                raise ValueError("power out of range")
            return Fraction(base ** int(exponent))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, source), _evaluate(right, source))
    raise ValueError("not arithmetic over numbers")


def _is_number(expression: str) -> bool:
    return _NUMBER.fullmatch(expression) is not None


def _decimals(expression: str) -> int | None:
    """Digits after the decimal point of a single number, those of a percentage as a fraction of 1; None if exact."""
    match = _NUMBER.fullmatch(expression)
    if match is None or "." not in expression or match[1] is None:
        return None
    return len(match[1]) + 2 * expression.endswith("%")


def _agree(a: Fraction, b: Fraction, decimals: int | None) -> bool:
    return a == b or (decimals is not None and 2 * abs(a - b) * Fraction(10) ** decimals <= 1)
