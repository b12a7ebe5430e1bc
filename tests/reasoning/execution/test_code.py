"""Code in answers and questions, and tests in files and texts."""

import pytest
from reason.core.errors import UserError
from reason.core.types import CodeTest, Question
from reason.reasoning.answers.equivalence import equal_without_algebra
from reason.reasoning.answers.extraction import answer_kind, extract_answer, find_code
from reason.reasoning.code_test_files import parse_tests
from reason.reasoning.code_tests import example_tests, question_code, question_tests


def code_in(text, wanted=()):
    span = find_code(text, wanted)
    return None if span is None else text[slice(*span)]


def test_the_last_block_that_defines_something_is_the_answer():
    text = "First:\n```python\ndef f(): return 1\n```\nBetter:\n```py\ndef f(): return 2\n```\n```\nprint(f())\n```\n"
    assert code_in(text) == "def f(): return 2\n"


def test_a_block_that_defines_what_the_tests_use_comes_first():
    text = "```python\ndef f(): return 1\n```\n```python\ndef helper(): pass\n```"
    assert code_in(text, ("f",)) == "def f(): return 1\n"


def test_blocks_of_other_languages_and_open_fences():
    assert code_in("```json\n{}\n```\n```python\nx = 1\n") == "x = 1\n"
    assert code_in("```bash\nls\n```") is None
    assert code_in("Just words, def of nothing.") is None
    assert code_in("def f():\n    return 1\n") == "def f():\n    return 1\n"


def test_broken_code_is_still_code():
    assert code_in("```python\nx = 1\n```\n```python\ndef f(:\n```") == "def f(:\n"


def test_the_questions_imports_and_definitions_come_before_the_answer():
    question = Question(text="Complete:\n```python\nimport math\nprint('no')\ndef area(r):\n    '''>>> area(1)'''\n```")
    assert question_code(question) == 'import math\ndef area(r):\n    """>>> area(1)"""'


def test_examples_are_tests_with_the_lines_before_them():
    text = (
        "Doc:\n    >>> x = 2\n    >>> f(x)\n    4\n    >>> f(3) == 9\n    >>> for i in (1,):\n    ...     f(i)\n    1\n"
    )
    tests = example_tests(text)
    assert [t.code for t in tests] == [
        ">>> x = 2\n>>> f(x)\n4\n",
        ">>> x = 2\n>>> f(3) == 9\nTrue\n",
        ">>> x = 2\n>>> for i in (1,):\n...     f(i)\n1\n",
    ]
    assert tests[0].name == "example 1: f(x)"
    assert example_tests("no examples, a > b >> c") == ()


def test_given_tests_take_precedence_over_examples():
    given = (CodeTest(name="t", code="assert f(1) == 1"),)
    assert question_tests(Question(text=">>> f(2)\n3\n", tests=given)) == given
    assert len(question_tests(Question(text=">>> f(2)\n3\n"))) == 1


def test_functions_of_a_file_are_its_tests():
    tests = parse_tests(
        "import math\ndef test_a():\n    assert f(1) == math.pi\nX = 1\ndef test_b():\n    assert X\n", "t.py"
    )
    assert [t.name for t in tests] == ["test_a", "test_b"]
    assert tests[1].code == "import math\nX = 1\ndef test_b():\n    assert X\ntest_b()"


def test_asserts_of_a_file_are_its_tests():
    tests = parse_tests("y = 2\nassert f(y) == 4\nassert f(0) == 0\n", "t.py")
    assert [t.name for t in tests] == ["assert f(y) == 4", "assert f(0) == 0"]
    assert tests[1].code == "y = 2\nassert f(0) == 0"


@pytest.mark.parametrize(
    ("source", "message"),
    [("x = 1", "no test"), ("def (", "no Python"), ("def test_a(tmp_path): pass", "test_a has parameters")],
)
def test_files_without_usable_tests_are_refused(source, message):
    with pytest.raises(UserError, match=message):
        parse_tests(source, "t.py")


def test_the_answer_of_a_question_with_tests_is_its_code():
    question = Question(text="Write f.", tests=(CodeTest(name="t", code="f()"),))
    assert answer_kind(question) == "code"
    answer = extract_answer("So \\boxed{3}. The answer is 4.\n```python\ndef f():\n    return 4\n```\nDone.", question)
    assert answer is not None
    assert (answer.method, answer.value) == ("code", "def f():\n    return 4")
    assert extract_answer("The answer is 4.", question) is None


def test_sources_are_equal_but_for_comments_and_spacing():
    assert equal_without_algebra("def f(a):\n    return a+1", "def f(a):  # add\n\n  return a + 1\n", "code")
    assert not equal_without_algebra("def f(a): return a + 1", "def f(a): return a + 2", "code")
    assert equal_without_algebra("def f( :", "def  f( :", "code")
