"""Real runs with tools over a scripted model, as their events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reason.agents.loop.tool import tool_of
from reason.agents.reasoner import Reasoner
from reason.core.events import Event, MemorySink
from reason.core.messages import Message
from reason.core.settings import Settings

from support.agent_model import AgentModel, Turn, call
from support.injected_models import loaded_models


def search_orders(customer: str) -> str:
    """Find the orders of a customer."""
    return f'[{{"order": "17", "customer": "{customer}"}}]'


def read_page(url: str) -> str:
    """Read a page."""
    raise ValueError(f"cannot open {url}")


def cancel_order(order: str) -> str:
    """Cancel an order."""
    return f"{order} is cancelled"


TOOLS = [
    tool_of(search_orders, effect="read"),
    tool_of(read_page, effect="read"),
    tool_of(cancel_order, effect="write"),
]
LOOK_UP = Message(
    role="assistant",
    content="I look the order up.",
    tool_calls=(call("search_orders", customer="ada@example.com"), call("read_page", url="shop")),
)
TURNS: tuple[Turn, ...] = (LOOK_UP, [call("cancel_order", order="17")], "The answer is 17 is cancelled.")


async def agent_run(
    folder: Path,
    question: str = "Cancel Ada's order.",
    turns: Sequence[Turn] = TURNS,
    sinks: Sequence[Any] = (),
    **options: Any,
) -> list[Event]:
    """The events of a run."""
    seen = MemorySink()
    settings = Settings(model="agent", store=folder / "runs.sqlite3", cache_dir=folder / "cache", seed=5)
    with loaded_models({"agent": AgentModel(turns)}):
        async with Reasoner(settings=settings, **{"tools": TOOLS, "approve": "never", **options}) as reasoner:
            await reasoner.aask(question, sinks=[seen, *sinks], stream_text=True)
    return seen.events
