"""`Trajectory`: what a choice among loops knows of each of them."""

from __future__ import annotations

from ...core.messages import Frozen, Message, ToolCall


class Trajectory(Frozen):
    """One loop over a question.

    Attributes:
        messages: After the question, or after the segment's first message: turns and results.
        ended: Whether it ended by itself, with an answer: not by a limit, a repetition or an error.
        answer: The final answer, normalized as answers are.
        held: Changes that it proposes and that were not executed; it ends with them.
        writes: Changes that were executed with success in a world of its own.
        num_calls: Tool calls, results that were shared included.
        tokens: Generated tokens, thoughts included.
    """

    index: int
    messages: tuple[Message, ...] = ()
    ended: bool = False
    answer: str | None = None
    held: tuple[ToolCall, ...] = ()
    writes: tuple[ToolCall, ...] = ()
    num_calls: int = 0
    num_turns: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def is_eligible(self) -> bool:
        """Whether it can be chosen: it has ended by itself, or proposes changes."""
        return self.ended or bool(self.held)
