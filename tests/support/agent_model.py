"""A model of an agent: each turn is a text or calls of a script, chosen by the assistant messages of the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from reason.core.messages import Completion, Message, Prompt, Request, ToolCall

from support.instant_model import InstantModel

Turn = str | list[ToolCall] | Message | tuple["Turn", ...]


def call(name: str, **arguments: object) -> ToolCall:
    """A tool call. Its id is the same for all, as some providers have it."""
    return ToolCall(name=name, arguments=json.dumps(arguments), id="call_1")


class AgentModel(InstantModel):
    """An `InstantModel` that calls tools.

    Args:
        turns: The turns, of which the one with the number of assistant messages in the prompt is made; or a function of
            the messages. A turn is a text, calls, a message with both, or a tuple with one for each sample. After the
            last one, the text is "The answer is done.".

    Attributes:
        prompts: The messages of all requests.
    """

    def __init__(self, turns: Sequence[Turn] | Callable[[Sequence[Message]], Turn]) -> None:
        super().__init__(lambda prompt, index: "")
        self.capabilities = self.capabilities.model_copy(update={"tools": True, "prefix": False})
        self._turns = turns
        self.prompts: list[tuple[Message, ...]] = []

    def _completion(self, request: Request, index: int) -> Completion:
        turn = self._turn(request.prompt)
        turn = turn[index % len(turn)] if isinstance(turn, tuple) else turn
        self.prompts.append(request.prompt.messages)
        made = super()._completion(request, index)
        if isinstance(turn, Message):
            return made.model_copy(update={"text": turn.content, "tool_calls": turn.tool_calls})
        if isinstance(turn, str):
            return made.model_copy(update={"text": turn})
        return made.model_copy(update={"tool_calls": tuple(turn)})

    def _turn(self, prompt: Prompt) -> Turn:
        if not prompt.tools:
            return "concluded"
        if callable(self._turns):
            return self._turns(prompt.messages)
        number = sum(message.role == "assistant" for message in prompt.messages)
        return self._turns[number] if number < len(self._turns) else "The answer is done."
