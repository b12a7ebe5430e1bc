"""Tools from strings and objects, and what a stored run keeps of them."""

import sys

import pytest
from reason.agents.loop.tool import ToolCallContext
from reason.core.errors import UnknownName, UserError
from reason.core.settings import Settings
from reason.tools.factory import ToolPool

CONTEXT = ToolCallContext(run_id="run", intent="i")
MODULE = '''
from reason.agents.loop.tool import tool_of

def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b

class Shop:
    @staticmethod
    def buy(item: str) -> str:
        """Buy an item."""
        return item

both = [add, tool_of(Shop.buy, effect="idempotent")]
number = 4
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_tools.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_tools"
    sys.modules.pop("my_tools", None)


async def opened(spec, **settings):
    return await ToolPool().open(spec, Settings(**settings))


async def test_a_function_of_a_module_in_the_working_directory(module):
    (tool,) = await opened("my_tools:add")
    assert (tool.name, tool.effect, tool.source) == ("add", "write", "python:my_tools:add")
    assert await tool.call({"a": 1}, CONTEXT) == 3
    (nested,) = await opened("my_tools:Shop.buy")
    assert nested.name == "buy"
    (again,) = await opened(tool.source)
    assert again.source == tool.source


async def test_a_list_of_a_module_is_several_tools(module):
    assert [(t.name, t.effect) for t in await opened("my_tools:both")] == [("add", "write"), ("buy", "idempotent")]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("pyton", UnknownName, "unknown tool 'pyton'.*did you mean 'python'.*or MODULE:FUNCTION"),
        ("my_tools:ad", UnknownName, "unknown function of my_tools 'ad'.*did you mean 'add'"),
        ("my_tool:add", UserError, "the module 'my_tool' cannot be imported: ModuleNotFoundError"),
        ("my_tools:number", UserError, "my_tools:number is a int, not a tool"),
        ("documents", UserError, "nothing to search.*--context"),
    ],
)
async def test_what_is_no_tool_is_refused(module, spec, error, message):
    with pytest.raises(error, match=message):
        await opened(spec)
