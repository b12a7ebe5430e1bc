"""Tools of type `mcp` of the Responses API: how requests name tools that the run executes, and items show them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from pydantic import JsonValue

from ...agents.loop.records import Decision
from ...agents.loop.tool import READ_RESULT
from ...core.errors import UserError
from ...core.events import ToolFinished, ToolStarted
from ...core.run import RunConfig, ToolRule
from ...core.settings import Settings
from ...core.store.records import RunRecord
from ...core.types import Answer
from ..auth import Caller
from ..policy import allowed_server
from ..run_manager import CallAnswers, decided_by
from ..runs import ClientTurn
from .requests import InputItem, ServerTool
from .streaming import Piece

SERVERS = "mcp"
"""Key of the question's metadata that stores the request's tools of this type, by their names in the settings."""
UNNAMED = "reason"
"""Label of tools that the request does not name: those of every question."""


def servers_of(
    tools: Sequence[tuple[str, ServerTool]], settings: Settings
) -> tuple[dict[str, ToolRule], dict[str, JsonValue]]:
    """What a request's tools of type `mcp` make of the server's tools, and how the run stores them.

    Args:
        tools: Each with its location in the request.

    Raises:
        UserError: The operator has not configured a server, or a field is not supported; names the field.
    """
    rules: dict[str, ToolRule] = {}
    stored: dict[str, JsonValue] = {}
    for location, tool in tools:
        for name in ("authorization", "connector_id", "headers", "tunnel_id"):
            if getattr(tool, name):
                raise UserError(
                    f"{name} is not supported: the operator configures servers and their credentials",
                    hint="leave it out",
                    param=f"{location}.{name}",
                )
        param = f"{location}.server_label" if tool.server_url is None else f"{location}.server_url"
        spec = allowed_server(settings, tool.server_label, tool.server_url, param=param)
        if spec in rules:
            raise UserError(f"the server {tool.server_label!r} is named twice", hint="name it once", param=location)
        rules[spec], stored[spec] = tool.rule, tool.model_dump(mode="json", exclude_unset=True)
    return rules, stored


class ServerTools:
    """The tools that a turn's run executes, from the run's record."""

    def __init__(self, record: RunRecord, config: RunConfig, turn: ClientTurn) -> None:
        self._run_id, self._turn = record.id, turn
        named = config.question.metadata.get(SERVERS)
        self._named: Mapping[str, Any] = named if isinstance(named, dict) else {}
        recorded: Any = record.identities.get("tools", [])
        self._tools: dict[str, Any] = {tool["declaration"]["name"]: tool for tool in recorded}
        self._tools.pop(READ_RESULT, None)

    def lists(self) -> list[Piece]:
        """The tools of the servers that the request names; a run's first turn lists them."""
        pieces: list[Piece] = []
        for source, named in self._named.items() if self._turn.number == 1 else ():
            tools = [
                {
                    "name": name,
                    "description": tool["declaration"]["description"],
                    "input_schema": tool["declaration"]["parameters"],
                    "annotations": {"read_only": tool["effect"] == "read"},
                }
                for name, tool in self._tools.items()
                if tool["source"] == source
            ]
            label = named["server_label"]
            item_id = f"mcpl_{self._run_id}_{label}"
            item = {"id": item_id, "type": "mcp_list_tools", "server_label": label, "tools": tools}
            pieces.append(Piece("tools", item=item))
        return pieces

    def call(self, event: ToolStarted | ToolFinished) -> list[Piece]:
        """A call that begins or ends; nothing of one that a client executes."""
        if event.tool not in self._tools:
            return []
        item_id = f"mcp_{event.run_id}_{event.call}"
        if isinstance(event, ToolStarted):
            asked = request_id(event.run_id, event.call) if event.call in self._turn.asked else None
            item = self._item("mcp_call", item_id, event.tool, event.arguments)
            empty = {"approval_request_id": asked, "status": "in_progress", "output": None, "error": None}
            return [Piece("call", item={**item, **empty})]
        error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": event.text}]}
        ended: dict[str, Any] = {"status": "failed", "error": error} if event.is_error else {"output": event.text}
        return [Piece("result", item={"status": "completed", **ended, "id": item_id})]

    def approvals(self, answer: Answer) -> list[dict[str, Any]]:
        """The output items that ask for the approvals for which a run waits."""
        return [
            self._item("mcp_approval_request", request_id(answer.run_id, call.id), call.tool, call.arguments)
            for call in answer.pending
            if call.question == "approval"
        ]

    def _item(self, kind: str, item_id: str, tool: str, arguments: str) -> dict[str, Any]:
        named = self._named.get(self._tools[tool]["source"], {})
        label = named.get("server_label", UNNAMED)
        return {"id": item_id, "type": kind, "server_label": label, "name": tool, "arguments": arguments}


def request_id(run_id: str, call: str) -> str:
    """The ID of an approval request, which names the run and the call."""
    return f"mcpr_{run_id}_{call}"


def call_answers(items: Sequence[InputItem], caller: Caller) -> CallAnswers | None:
    """The approvals, and the outputs beside them, that an input ends with; None without an approval.

    Raises:
        UserError: An approval is of no request of this server, or they are of several runs.
    """
    last = list(takewhile(lambda i: i.type in ("mcp_approval_response", "function_call_output"), reversed(items)))
    by = {"by": decided_by(caller), "at": time.time()}
    decisions: dict[str, Decision] = {}
    runs: set[str] = set()
    for item in last:
        if item.type != "mcp_approval_response":
            continue
        kind, _, rest = (item.approval_request_id or "").partition("_")
        run_id, _, call = rest.partition("_")
        runs.add(run_id)
        if kind != "mcpr" or not call or len(runs) > 1:
            raise UserError(
                f"approval_request_id {item.approval_request_id!r} is of no request, or of another response's",
                hint="answer the mcp_approval_request items of one response",
                param="input",
            )
        decisions[call] = Decision(kind="approve" if item.approve else "reject", reason=item.reason or "", **by)
    if not decisions:
        return None
    return CallAnswers(runs.pop(), decisions, outputs_of(last))


def outputs_of(items: Sequence[InputItem]) -> dict[str, str]:
    """The texts of the outputs among items, by the IDs of their calls."""
    return {
        item.call_id or "": item.output
        if isinstance(item.output, str)
        else "\n".join(part.text or "" for part in item.output or ())
        for item in items
        if item.type == "function_call_output"
    }
