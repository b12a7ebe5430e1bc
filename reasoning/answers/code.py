"""Code in texts: the answer's code, the code of a question that it completes, and the tests of a question."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from ...core.errors import UserError
from ...core.types import MAX_TESTS, CodeTest, Question

MAX_CODE_CHARS = 100_000
"""Maximum length of code that is read."""
_FENCE = re.compile(
    r"^(?P<indent>[ ]{0,3})(?P<marks>`{3,}|~{3,})[ ]*(?P<language>[^\s`]*)[^\n`]*\n(?P<code>.*?)"
    r"(?:^[ ]{0,3}(?P=marks)[ ]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = ("python", "python3", "py", "")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def find_code(text: str, wanted: Sequence[str] = ()) -> tuple[int, int] | None:
    """Where the Python code of an answer is: its last fenced block that defines something, else its last one.

    A block that defines one of the wanted names comes before others. A text without a block is code if Python can read
    it, and it defines something.

    Args:
        text: The answer.
        wanted: Names that its tests use.

    Returns:
        First character and one past the last, without the fences; None if there is no code.
    """
    text = text[:MAX_CODE_CHARS]
    blocks = [
        match.span("code")
        for match in _FENCE.finditer(text)
        if match["language"].lower() in _PYTHON and match["code"].strip()
    ]
    if not blocks:
        return (0, len(text)) if _defined(text) else None
    names = [_defined(text[start:end]) for start, end in blocks]
    for is_better in (lambda own: bool(own.intersection(wanted)), bool):
        defining = [block for block, own in zip(blocks, names, strict=True) if is_better(own)]
        if defining:
            return defining[-1]
    return blocks[-1]


def same_code(a: str, b: str) -> bool:
    """Whether two sources are the same but for comments and spacing."""
    try:
        return ast.dump(ast.parse(a)) == ast.dump(ast.parse(b))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return a.split() == b.split()


def question_code(question: Question) -> str:
    """The imports and definitions in a question's fenced code, which its answer completes or replaces; often empty."""
    kept = []
    for match in _FENCE.finditer(question.text[:MAX_CODE_CHARS]):
        tree = _parsed(match["code"]) if match["language"].lower() in _PYTHON else None
        for node in () if tree is None else tree.body:
            if isinstance(node, (*_DEFINITIONS, ast.Import, ast.ImportFrom)):
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

    Args:
        source: Python source, or text with examples (`>>> …`).
        name: The file, for messages.

    Raises:
        UserError: There is no test, or the file is no Python.
    """
    examples = example_tests(source)
    tree = _parsed(source)
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


def names_in(tests: Sequence[CodeTest]) -> tuple[str, ...]:
    """The names that tests use."""
    return tuple(dict.fromkeys(name for test in tests for name in re.findall(r"[A-Za-z_]\w*", test.code)))


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _compares(source: str) -> bool:
    """Whether a source is one comparison."""
    tree = _parsed(source)
    statement = tree.body[0] if tree is not None and len(tree.body) == 1 else None
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Compare)


def _defined(source: str) -> frozenset[str]:
    """Names of the functions and classes that a source defines; of a source that Python cannot read, by its lines."""
    tree = _parsed(source)
    if tree is None:
        return frozenset(re.findall(r"^(?:async[ ]+def|def|class)[ ]+(\w+)[^\n]*:", source, re.MULTILINE))
    return frozenset(node.name for node in tree.body if isinstance(node, _DEFINITIONS))
