"""Tests of answers that are code: given with a question, or in its text; and code that a question gives."""

from __future__ import annotations

import ast
import re

from ..core.types import MAX_TESTS, CodeTest, Question
from .answers.extraction import code_blocks, parsed_code


def question_code(question: Question) -> str:
    """The imports and definitions in a question's fenced code, which its answer completes or replaces; often empty."""
    kept = []
    for start, end in code_blocks(question.text):
        tree = parsed_code(question.text[start:end])
        for node in () if tree is None else tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
                kept.append(ast.unparse(node))
    return "\n".join(kept)


def question_tests(question: Question) -> tuple[CodeTest, ...]:
    """The tests of a question: those given with it, else the examples in its text (`>>> …`), one test each."""
    if question.tests:
        return question.tests
    return example_tests(question.text)


def example_tests(text: str) -> tuple[CodeTest, ...]:
    """The examples in a text, as in a docstring: each is a test, after the examples without a result before it.

    A comparison without a result (`>>> f(1) == 2`) is to be true.
    """
    if ">>>" not in text:
        return ()
    import doctest  # which imports a debugger and a test framework

    tests: list[CodeTest] = []
    setup = ""
    for block in re.split(r"^[ ]*(?:`{3}|~{3}|\"{3}|'{3}).*$", text, flags=re.MULTILINE):
        try:
            examples = doctest.DocTestParser().get_examples(block.expandtabs(4))
        except ValueError:  # a prompt without its blank, or examples with different indents
            continue
        for example in examples:
            lines = example.source.rstrip("\n").split("\n")
            source = "".join(f"{'...' if i else '>>>'} {line}\n" for i, line in enumerate(lines))
            wanted = example.want or ("True\n" if _compares(example.source) else "")
            if not wanted:
                setup += source
            elif len(tests) < MAX_TESTS:
                shown = lines[0] if len(lines[0]) <= 80 else f"{lines[0][:79]}…"
                tests.append(CodeTest(name=f"example {len(tests) + 1}: {shown}", code=setup + source + wanted))
    return tuple(tests)


def _compares(source: str) -> bool:
    """Whether a source is one comparison."""
    tree = parsed_code(source)
    statement = tree.body[0] if tree is not None and len(tree.body) == 1 else None
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Compare)
