"""From the messages of a chat to a `Question`: nothing is flattened; roles, turns, calls and their results stay."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue, ValidationError

from ...core.errors import UserError
from ...core.messages import Message
from ...core.question import Question
from ...core.tools import FREE, Tool, ToolCall
from .chat_request import ChatMessage, ChatTool, NamedTool


def question_of(
    messages: Sequence[ChatMessage],
    *,
    tools: Sequence[ChatTool] = (),
    tool_choice: str | NamedTool | None = None,
    metadata: dict[str, JsonValue] | None = None,
    before: Sequence[Message] = (),
    field: str = "messages",
) -> Question:
    """The question that a chat asks: the last turn of the user, with what came before it and since.

    Turns of the system and the developer stand at the head, wherever they were.

    Args:
        messages: The chat.
        tools: What the model may ask to be called.
        tool_choice: Which of them; None is "auto".
        metadata: Kept with the question.
        before: Turns that stand before the chat.
        field: What the chat is called in the request, for errors.

    Raises:
        UserError: The chat asks nothing that can be answered; names the message.
    """
    turns = [*before, *(_message(m, f"{field}.{i}") for i, m in enumerate(messages))]
    turns = _with_names(turns, field, -len(before))
    asked = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if asked is None:
        raise UserError("there is no message of the user", hint="a chat needs a question", param=field)
    if not turns[asked].content.strip():
        place = f"{field}.{asked - len(before)}"
        raise UserError("the last message of the user is empty", hint="ask something", param=place)
    last = next(turn for turn in reversed(turns) if turn.role != "system")
    if last.role == "assistant":
        raise UserError(
            "the last message is the assistant's" + (", whose calls have no results" if last.tool_calls else ""),
            hint="end with a message of the user, or with the results of the tools",
            param=field,
        )
    offered = tuple(_tool(tool, f"tools.{i}") for i, tool in enumerate(tools))
    try:
        return Question(
            text=turns[asked].content,
            conversation=tuple(turn for i, turn in enumerate(turns) if i < asked or turn.role == "system"),
            since=tuple(turn for turn in turns[asked + 1 :] if turn.role != "system"),
            tools=offered,
            tool_choice=_choice(tool_choice),
            metadata=metadata or {},
        )
    except ValidationError as e:
        said = str(e.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UserError(said, param="tool_choice" if "tool_choice" in said else "tools") from e


def text_of(content: str | Sequence[object] | None, place: str) -> str:
    """The text of a message, whose parts stand on lines of their own.

    Raises:
        UserError: A part is no text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for i, part in enumerate(content):
        kind = getattr(part, "type", "")
        text = getattr(part, "refusal" if kind == "refusal" else "text", None)
        if kind not in ("text", "refusal", "input_text", "output_text") or text is None:
            raise UserError(
                f"a content part of type {kind!r} cannot be read: strategies read text",
                hint="send parts of type text",
                param=f"{place}.content.{i}",
            )
        texts.append(text)
    return "\n".join(texts)


def _message(message: ChatMessage, place: str) -> Message:
    if message.role == "function":
        raise UserError("the role function is the form before tools", hint="use the role tool", param=f"{place}.role")
    if message.role == "tool" and not message.tool_call_id:
        raise UserError("a message of the role tool says which call it answers", param=f"{place}.tool_call_id")
    calls = message.tool_calls or ()
    for i, call in enumerate(calls):
        if call.function is None:
            raise UserError(f"a call of type {call.type!r} is not supported", param=f"{place}.tool_calls.{i}")
    if calls and message.role != "assistant":
        raise UserError(f"a message of the role {message.role} calls no tools", param=f"{place}.tool_calls")
    return Message(
        role="system" if message.role == "developer" else message.role,
        content=text_of(message.content, place),
        tool_calls=tuple(
            ToolCall(name=c.function.name, arguments=c.function.arguments, id=c.id) for c in calls if c.function
        ),
        tool_call_id=(message.tool_call_id or "") if message.role == "tool" else "",
        name=message.name or "",
    )


def _with_names(turns: Sequence[Message], field: str, first: int) -> list[Message]:
    """The turns, those of tools with the tool's name, which chat templates want and OpenAI's format leaves out."""
    called: dict[str, str] = {}
    found: list[Message] = []
    for i, turn in enumerate(turns, first):
        called |= {call.id: call.name for call in turn.tool_calls}
        if turn.role == "tool":
            if turn.tool_call_id not in called:
                raise UserError(
                    f"no message before it made the call {turn.tool_call_id!r}", param=f"{field}.{i}.tool_call_id"
                )
            turn = turn.model_copy(update={"name": called[turn.tool_call_id]})
        found.append(turn)
    return found


def _tool(tool: ChatTool, place: str) -> Tool:
    if tool.type != "function" or tool.function is None:
        raise UserError(f"a tool of type {tool.type!r} is not supported", hint="give functions", param=f"{place}.type")
    function = tool.function
    try:
        return Tool(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
            strict=function.strict,
        )
    except ValidationError as e:
        first = e.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UserError(f"tool {function.name!r}: {first['msg']}", param=f"{place}.function.{at}") from e


def _choice(choice: str | NamedTool | None) -> str:
    if choice is None or isinstance(choice, str):
        return choice or FREE
    if choice.type != "function" or choice.function is None:
        raise UserError(f"a tool choice of type {choice.type!r} is not supported", param="tool_choice")
    return choice.function.name
