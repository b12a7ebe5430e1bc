"""Tests of answers that are code, in files."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from ..core.errors import UserError
from ..core.types import MAX_TESTS, CodeTest
from .answers.extraction import parsed_code
from .code_tests import example_tests


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
