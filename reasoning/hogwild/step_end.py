r"""When a worker's step is finished.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261, and the authors' program: the newest token brings
the separator, and what stands before it ends as a sentence does. The newer version also wants every code fence and
displayed formula closed. Differs: a quotation mark, a bracket or a mark of emphasis may stand behind the full stop.
"""

from __future__ import annotations

SEPARATOR = "\n\n"
"""What stands between steps."""

_FULL_STOPS = ".?!…。．？！｡।॥۔؟։።᙮᠃"  # noqa: RUF001 (those of other scripts are meant)
_CLOSERS = " \t$\\)]}\"'*_`”’»」』）】"  # noqa: RUF001


def ends_step(text: str, piece: str, separator: str = SEPARATOR) -> bool:
    """Whether a step is finished with its newest piece.

    Args:
        text: The step so far, with the piece.
        piece: The text of the newest token.
        separator: What stands between steps.
    """
    fresh = text[max(0, len(text) - len(piece) - len(separator) + 1) :]
    if separator not in fresh:
        return False
    before = text[: text.rindex(separator)].rstrip()
    return is_closed(before) and before.rstrip(_CLOSERS).endswith(tuple(_FULL_STOPS))


def is_closed(text: str) -> bool:
    """Whether every code fence and every displayed formula that was opened is closed."""
    return text.count("```") % 2 == 0 and text.count("$$") % 2 == 0 and text.count("\\[") == text.count("\\]")
