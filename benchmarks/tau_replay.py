"""tau-bench's airline conversations through `reason`: the same calls, and the same database at the end.

    python benchmarks/tau_replay.py --tau-bench DIR [--conversations 200]

DIR is a copy of https://github.com/sierra-research/tau-bench (MIT), of which this uses the tools, the data, and the 200
recorded conversations of gpt-4o. A scripted model writes the recorded messages of the assistant, the recorded messages
of the user are asked one after the other, and `reason` executes the tools. Compared with direct execution of the
recorded calls are the calls in the run store, in order, and what has changed in the database.

Results are not compared with the recorded ones: for `get_user_details` the recording says "province" where the data
says "state".
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reason import Reasoner
from reason.agents.loop.records import ToolCallStore
from reason.agents.loop.tool import ExecutableTool, schema_tool
from reason.core.messages import Message, ToolCall
from reason.core.settings import Settings
from reporting import made_here

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.agent_model import AgentModel
from support.injected_models import loaded_models

TABLES = ("flights", "reservations", "users")


def load_tools(directory: Path) -> list[Any]:
    """The classes of the airline's tools."""
    sys.path.insert(0, str(directory))
    airline = types.ModuleType("tau_bench.envs.airline")  # its own `__init__` needs more packages
    airline.__path__ = [str(directory / "tau_bench/envs/airline")]
    sys.modules[airline.__name__] = airline
    from tau_bench.envs.airline.tools import ALL_TOOLS

    return list(ALL_TOOLS)


def airline_tools(kinds: Sequence[Any], data: dict[str, Any]) -> list[ExecutableTool]:
    """Executable tools over a database."""
    return [schema_tool(**kind.get_info()["function"], call=partial(kind.invoke, data)) for kind in kinds]


class World:
    """The airline's database, which is restored after each conversation."""

    def __init__(self, directory: Path) -> None:
        files = directory / "tau_bench/envs/airline/data"
        self._pristine = {table: json.loads((files / f"{table}.json").read_text()) for table in TABLES}
        self.data = copy.deepcopy(self._pristine)

    def restore(self) -> dict[tuple[str, str], Any]:
        """Restore it; returns the rows that differed."""
        changed = {}
        for table, rows in self._pristine.items():
            now = self.data[table]
            for key in now.keys() | rows.keys():
                if now.get(key) != rows.get(key):
                    changed[table, key] = now.pop(key, None)
                    if key in rows:
                        now[key] = copy.deepcopy(rows[key])
        return changed


def as_message(recorded: Mapping[str, Any]) -> Message:
    """A recorded message of the assistant."""
    calls = tuple(
        ToolCall(name=call["function"]["name"], arguments=call["function"]["arguments"], id=call["id"])
        for call in recorded.get("tool_calls") or ()
    )
    return Message(role="assistant", content=recorded.get("content") or "", tool_calls=calls)


def execute_directly(kinds: Mapping[str, Any], calls: Sequence[ToolCall], data: dict[str, Any]) -> None:
    """Execute calls as tau-bench's environment does."""
    for call in calls:
        try:
            kinds[call.name].invoke(data, **json.loads(call.arguments))
        except Exception:  # noqa: BLE001 - the environment catches it too, and tells the model
            continue


async def replay(directory: Path, num_conversations: int) -> Counter[str]:
    """Replay conversations; returns how many of them gave the same calls and the same database."""
    classes = load_tools(directory)
    by_name = {kind.get_info()["function"]["name"]: kind for kind in classes}
    recorded = json.loads((directory / "historical_trajectories/gpt-4o-airline.json").read_text())[:num_conversations]
    ours, direct, counts = World(directory), World(directory), Counter[str]()
    turns: list[Message] = []
    """The assistant's messages of the present conversation."""

    def turn(messages: Sequence[Message]) -> Message | str:
        number = sum(message.role == "assistant" for message in messages)
        return turns[number] if number < len(turns) else ""

    model = AgentModel(turn)
    with tempfile.TemporaryDirectory() as scratch, loaded_models({model.name: model}):  # type: ignore[dict-item]
        settings = Settings(model=model.name, store=Path(scratch) / "runs.sqlite3")
        async with Reasoner(settings=settings) as reasoner:
            store = ToolCallStore(await reasoner.open_store())
            for row in recorded:
                messages = row["traj"]
                turns[:] = [as_message(message) for message in messages if message["role"] == "assistant"]
                calls = [call for message in turns for call in message.tool_calls]
                system = messages[0]["content"] if messages[0]["role"] == "system" else ""
                async with reasoner.conversation(
                    tools=airline_tools(classes, ours.data), system=system, approve="never"
                ) as chat:
                    for message in messages:
                        if message["role"] == "user":
                            await chat.ask(message["content"])
                    made = [call for run in chat.runs for call in await store.list(run)]
                execute_directly(by_name, calls, direct.data)
                counts["conversations"] += 1
                counts["calls"] += len(made)
                counts["equal calls"] += [(c.tool, c.arguments) for c in made] == [(c.name, c.arguments) for c in calls]
                counts["equal databases"] += ours.restore() == direct.restore()
    return counts


def main() -> None:
    """Replay the conversations and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tau-bench", type=Path, required=True, help="Directory of tau-bench's repository.")
    parser.add_argument("--conversations", type=int, default=200, help="Number of recorded conversations.")
    options = parser.parse_args()
    for name, count in asyncio.run(replay(options.tau_bench, options.conversations)).items():
        print(f"{name}: {count}")
    print(made_here())


if __name__ == "__main__":
    main()
