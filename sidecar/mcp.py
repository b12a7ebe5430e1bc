"""An MCP server: the tools `ask` and `verify`, over standard streams or at `/mcp` of the sidecar.

`ask` and `verify` take the bodies of `/v1/reason` and `/v1/verify`. Progress notifications tell a run's events. A
request that is cancelled, or whose client leaves, cancels its run. Errors are results with `isError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from ..agents.reasoner import Reasoner
from ..agents.verification import ClaimReportSink, TextVerification, text_verification_of
from ..core.errors import ReasonError
from ..core.events import Event, RunFinished, SampleFinished
from ..core.files import Progress
from ..core.run import RunConfig
from ..core.settings import Settings, user_error_of
from ..core.types import Answer, Evidence, PendingToolCall, RunUsage, Verification
from ..core.verdicts import counts_text, verdict_name
from ..core.version import __version__
from .auth import ANONYMOUS, Caller, admit, identify
from .errors import INTERNAL, public_error
from .logs import log_fault
from .native.routes import ask_config, verify_config
from .native.schemas import AskBody, ResponseBody, VerifyBody
from .openai.streaming import line_of
from .run_manager import RunManager
from .run_start import events_and_error

RunEvents = Callable[[RunConfig, Caller], AsyncGenerator[Event, None]]
"""Runs a configuration and yields its events, the last of which has the answer."""


class AskResult(ResponseBody):
    """An answer; the fields are those of `/v1/reason`, without the candidates."""

    text: str
    answer: str | None
    confidence: float | None
    calibrated_confidence: float | None
    verification: Verification | None
    citations: tuple[Evidence, ...]
    stopped: str
    degraded: tuple[str, ...]
    strategy: str
    model: str
    seed: int
    run_id: str
    usage: RunUsage
    pending: tuple[PendingToolCall, ...] = ()


@dataclass(frozen=True)
class ToolContext:
    """What a call of a tool can use."""

    context: ServerRequestContext[Any, Any]
    caller: Caller
    reasoner: Reasoner
    run_events: RunEvents

    async def answer(self, config: RunConfig, sink: Callable[[Event], None] = lambda _: None) -> Answer:
        """Run a configuration and report its progress."""
        answer: Answer | None = None
        async with aclosing(self.run_events(config, self.caller)) as events:
            async for event in events:
                sink(event)
                if isinstance(event, RunFinished):
                    answer = event.answer
                elif line := progress_line(event):
                    await self.context.session.report_progress(event.number, message=line)
        assert answer is not None
        return answer


def progress_line(event: Event) -> str:
    """What a progress notification says of an event; empty for most events."""
    return "A sample is finished." if isinstance(event, SampleFinished) else line_of(event)


async def ask(call: ToolContext, body: AskBody) -> tuple[str, AskResult]:
    """Answer a question with an inference-time reasoning strategy: many samples, a search, or a jury of models.

    It costs more time than a direct answer. Use it where being right matters: mathematics, logic, planning.
    """
    answer = await call.answer(ask_config(body, call.reasoner, call.caller.tenant))
    pending = ", ".join(f"{one.id} ({one.tool} {one.arguments})" for one in answer.pending)
    text = f"Run {answer.run_id} waits for decisions about the tool calls {pending}" if pending else answer.text
    return text, AskResult.model_validate(answer.model_dump())


async def verify(call: ToolContext, body: VerifyBody) -> tuple[str, TextVerification]:
    """Verify a text claim by claim against documents, and its arithmetic by computation."""
    config, notes = verify_config(body, call.reasoner, call.caller.tenant)
    reports = ClaimReportSink()
    result = text_verification_of(await call.answer(config, reports), config, reports, notes)
    verification = result.verification
    lines = [f"{verdict_name(verification.verdict)}: {counts_text(verification.counts)}"]
    lines += [f"- {verdict_name(claim.verdict)}: {claim.text}" for claim in verification.claims]
    return "\n".join(lines), result


@dataclass(frozen=True)
class ToolKind:
    """A tool: its function, its arguments and its result."""

    function: Callable[[ToolContext, Any], Coroutine[Any, Any, tuple[str, BaseModel]]]
    arguments: type[BaseModel]
    result: type[BaseModel]

    def describe(self, *, is_read_only: bool) -> Tool:
        """The tool as clients see it."""
        arguments = self.arguments.model_json_schema()
        fields = arguments.pop("description", "").partition("Attributes:")[2]
        function = self.function
        description = "\n".join(line.strip() for line in (function.__doc__ or "").splitlines()).strip()
        return Tool(
            name=function.__name__,
            description=f"{description}\n\nArguments:{fields}",
            input_schema=arguments,
            output_schema=self.result.model_json_schema(mode="serialization"),
            annotations=ToolAnnotations(read_only_hint=is_read_only, open_world_hint=False),
        )


TOOLS = {
    "ask": ToolKind(ask, AskBody, AskResult),
    "verify": ToolKind(verify, VerifyBody, TextVerification),
}

INSTRUCTIONS = "Reasoning strategies and verification: ask a hard question, or verify a text."


def create_server(reasoner: Reasoner, run_events: RunEvents) -> Server[Any]:
    """The MCP server over a reasoner. A call over HTTP needs a key with the scope "ask", and counts as a request."""

    async def list_tools(_: ServerRequestContext[Any, Any], _params: PaginatedRequestParams | None) -> ListToolsResult:
        has_tools = bool(reasoner.settings.tools.use or reasoner.settings.serve.tools)
        described = [tool.describe(is_read_only=name == "verify" or not has_tools) for name, tool in TOOLS.items()]
        return ListToolsResult(tools=described)

    async def call_tool(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"unknown tool {params.name!r}: there are {', '.join(TOOLS)}")
        request = context.request
        try:
            caller = ANONYMOUS if request is None else await admit(request.scope)
            try:
                body = tool.arguments.model_validate(params.arguments or {})
            except ValidationError as e:
                raise user_error_of(e, "argument", tool.arguments.model_fields) from e
            text, result = await tool.function(ToolContext(context, caller, reasoner, run_events), body)
        except ReasonError as e:
            # over standard streams, the caller is the user, who may see everything
            shown = e if request is None else public_error(e, request_id=_request_id(request.scope))
            return CallToolResult(content=[TextContent(text=f"{shown} [{shown.code}]")], is_error=True)
        except Exception as e:  # noqa: BLE001 (the SDK would send its text)
            log_fault("mcp.fault", e)
            return CallToolResult(content=[TextContent(text=f"{INTERNAL} [internal]")], is_error=True)
        return CallToolResult(
            content=[TextContent(text=text)], structured_content=result.model_dump(mode="json", by_alias=True)
        )

    return Server(
        "reason",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _request_id(scope: Scope) -> str:
    return str(scope.get("state", {}).get("request_id", ""))


async def serve_stdio(settings: Settings, progress: Progress | None = None) -> None:
    """Serve one client over standard input and output, until it closes them.

    Args:
        settings: Settings of the models, the strategy and the store; of the server, the models that callers may name
            and the ceilings of budgets.
        progress: Receives the progress of model downloads; called from another thread.
    """
    async with Reasoner(settings=settings, progress=progress) as reasoner:
        server = create_server(reasoner, lambda config, _: reasoner.astream_run(config))
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


class McpEndpoint:
    """The endpoint `/mcp` of the sidecar: streamable HTTP, with the sidecar's keys, limits and admission.

    Args:
        stateless: Whether sessions are not kept, since another process may get a session's next request. Clients of
            protocol versions before 2026-07-28 then cannot cancel a request.
    """

    path = "/mcp"

    def __init__(self, *, stateless: bool) -> None:
        self._stateless = stateless
        self._sessions: StreamableHTTPSessionManager | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of a caller with a key, if the sidecar asks for keys."""
        scope["route"] = self  # for log and metrics
        caller = await identify(scope)
        if caller.key_id:  # a session belongs to the key that opened it
            token = AccessToken(token="", client_id=caller.key_id, scopes=sorted(caller.scopes))
            scope["user"] = AuthenticatedUser(token)
        assert self._sessions is not None
        await self._sessions.handle_request(scope, receive, send)

    @asynccontextmanager
    async def open(self, reasoner: Reasoner, run_manager: RunManager) -> AsyncIterator[None]:
        """Serve requests inside the context; at its end, those in flight are cancelled."""

        async def run_events(config: RunConfig, caller: Caller) -> AsyncGenerator[Event, None]:
            run = await run_manager.start(config, caller)
            async with run.held(), aclosing(events_and_error(run, text=False)) as events:
                async for event in events:
                    yield event

        self._sessions = StreamableHTTPSessionManager(create_server(reasoner, run_events), stateless=self._stateless)
        async with self._sessions.run():
            yield
