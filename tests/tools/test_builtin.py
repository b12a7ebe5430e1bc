"""`python` and `documents`."""

import pytest
from reason.agents.loop.tool import InvalidArguments, ToolCallContext
from reason.core.errors import SandboxUnavailable, UserError
from reason.core.settings import Settings
from reason.tools.builtin import READ_RESULT_TOOL, documents_retriever, documents_tool, python_tool

CONTEXT = ToolCallContext(run_id="run", intent="i")


@pytest.fixture
async def python():
    try:
        return await python_tool()
    except SandboxUnavailable as e:
        pytest.skip(str(e))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("print('a')\n2 ** 10", "a\n1024\n"),
        ("x = 'ü'; (\n  x * 2  # twice\n)  # end", "'üü'\n"),
        ("print('x')  # print('x')", "x\n"),
        ("x = 1", "(the code printed nothing)"),
        ("", "(the code printed nothing)"),
    ],
)
async def test_python_returns_what_the_code_prints_and_its_last_value(python, code, text):
    result = await python.call({"code": code}, CONTEXT)
    assert (result.text, result.is_error) == (text, False)
    assert python.effect == "read"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("print('before')\n\n1 / 0", 'before\nError: ZeroDivisionError: division by zero\n  File "test.py", line 3'),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("open('/etc/passwd')", "FileNotFoundError"),
        ("import sys; sys.exit(3)", "it called sys.exit(3)"),
    ],
)
async def test_python_reports_errors(python, code, text):
    result = await python.call({"code": code}, CONTEXT)
    assert text in result.text
    assert result.is_error


async def test_documents_returns_passages_with_ids_to_cite(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "releases.md").write_text("# Releases\n\n## 0.3\n\nAdded the walrus.\n\n## 0.2\n\nRemoved the penguin.\n")
    (tmp_path / "more.txt").write_text("The walrus is large.")
    retriever = await documents_retriever([str(notes), str(tmp_path / "more.txt")], Settings(cache_dir=tmp_path))
    tool = documents_tool(retriever)
    assert tool.effect == "read"
    found = await tool.call({"query": "walrus"}, CONTEXT)
    assert "[notes/releases.md:" in found
    assert "Added the walrus." in found
    assert "[more.txt:0-20] more.txt\nThe walrus is large." in found
    assert "penguin" not in await tool.call({"query": "walrus", "k": 1}, CONTEXT)
    assert await tool.call({"query": "zebra"}, CONTEXT) == "no passage contains words of 'zebra'"


async def test_documents_do_not_search_servers():
    with pytest.raises(UserError, match="cannot search mcp:server.*--mcp"):
        await documents_retriever(["mcp:server"], Settings())


async def test_a_result_that_was_cut_is_read_in_parts():
    async def stored_result(call):
        return "0123456789" if call == "a1b2c3d4" else None

    context = ToolCallContext(run_id="run", intent="i", stored_result=stored_result)
    assert list(READ_RESULT_TOOL.declaration.parameters["properties"]) == ["call", "start", "length"]
    part = await READ_RESULT_TOOL.call({"call": "a1b2c3d4", "start": 3, "length": 4}, context)
    assert part == "3456\n[characters 3 to 7 of 10]"
    for call in ("other", ""):
        with pytest.raises(InvalidArguments, match="no result of a call"):
            await READ_RESULT_TOOL.call({"call": call}, context)
