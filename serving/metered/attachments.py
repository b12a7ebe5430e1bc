"""The attachments of a question in the prompts of its run: references in all of them, contents where they are sent."""

from __future__ import annotations

from collections.abc import Mapping

from ...core.messages import Attachment, Message, Prompt
from ...core.types import Question


def with_attachments(prompt: Prompt, question: Question) -> Prompt:
    """The prompt with the question's attachments at the user's last message that has its text, else at the first one.

    A raw text has no messages, and stays as it is.
    """
    users = [i for i, message in enumerate(prompt.messages) if message.role == "user"]
    if not users:
        return prompt
    at = next((i for i in reversed(users) if question.text in prompt.messages[i].content), users[0])
    own = prompt.messages[at].attachments
    added = tuple(attachment for attachment in question.attachments if attachment not in own)
    return _with_message(prompt, at, (*own, *added)) if added else prompt


def with_contents(prompt: Prompt, attachments: Mapping[str, Attachment]) -> Prompt:
    """The prompt with the contents of its attachments, by their digests."""
    for i, message in enumerate(prompt.messages):
        if message.attachments:
            prompt = _with_message(prompt, i, tuple(attachments.get(a.sha256, a) for a in message.attachments))
    return prompt


def _with_message(prompt: Prompt, index: int, attachments: tuple[Attachment, ...]) -> Prompt:
    messages: list[Message] = list(prompt.messages)
    messages[index] = messages[index].model_copy(update={"attachments": attachments})
    return prompt.model_copy(update={"messages": tuple(messages)})
