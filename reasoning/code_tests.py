"""Tests of answers that are code: given with a question, in its text, or in a file; and code that a question gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from ..core.errors import UserError
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


def parse_tests(source: str, name: str) -> tuple[CodeTest, ...]:
    """The tests in a file: its functions `test_…` (without parameters), else its asserts, else its examples.

    What else stands at the top level of the file comes before each test.

    Raises:
        UserError: There is no test, or the file is no Python.
    """
    examples = example_tests(source)
    tree = parsed_code(source)
    if tree is None and not examples:
        raise UserError(f"the tests in {name!r} are no Python", hint="write functions test_…, asserts, or >>> examples")
    statements = [] if tree is None else tree.body
    functions = [node for node in statements if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    for function in functions:
        if function.args.args or function.args.kwonlyargs or function.args.posonlyargs:
            raise UserError(
                f"{name}:{function.lineno}: {function.name} has parameters, and there are no fixtures",
                hint="write it without parameters",
            )
    chosen: Sequence[ast.stmt] = functions or [node for node in statements if isinstance(node, ast.Assert)]
    if not chosen:
        if examples:
            return examples
        raise UserError(f"there is no test in {name!r}", hint="write functions test_…, asserts, or >>> examples")
    if len(chosen) > MAX_TESTS:
        raise UserError(f"{name!r} has {len(chosen)} tests, more than {MAX_TESTS}", hint="join some of them")
    others = "\n".join(ast.unparse(node) for node in statements if node not in chosen)
    tests = []
    for node in chosen:
        code = ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            tests.append(CodeTest(name=node.name, code=f"{others}\n{code}\n{node.name}()".lstrip("\n")))
        else:
            shown = code if len(code) <= 100 else f"{code[:99]}…"
            tests.append(CodeTest(name=shown, code=f"{others}\n{code}".lstrip("\n")))
    return tuple(tests)


def _compares(source: str) -> bool:
    """Whether a source is one comparison."""
    tree = parsed_code(source)
    statement = tree.body[0] if tree is not None and len(tree.body) == 1 else None
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Compare)
