"""`reason`: inference-time reasoning strategies and verification under one budget, one trace, one run store.

    from reason import Reasoner, ask

    print(ask("What is the capital of France?").answer)

    async with Reasoner(strategy="self-consistency", budget={"tokens": 2000}) as reasoner:
        answer = await reasoner.aask("What is 17 times 23?")

Names are loaded when they are first used: importing the package loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agents.asking import aask, ask, astream
    from .agents.reasoner import Reasoner
    from .agents.verify_text import TextVerification, averify_text, verify_text
    from .core.answer import Answer, Candidate, Solution, Verification
    from .core.budget import Budget
    from .core.errors import ReasonError
    from .core.messages import Completion, Message, NextToken, Prompt, Request, Sampling
    from .core.question import Document, Question
    from .core.settings import Settings
    from .core.version import __version__
    from .reasoning.strategy import Models, Parameters, Strategy
    from .serving.model import Capabilities, LanguageModel

_HOMES = {
    ".agents.asking": ("aask", "ask", "astream"),
    ".agents.reasoner": ("Reasoner",),
    ".agents.verify_text": ("TextVerification", "averify_text", "verify_text"),
    ".core.answer": ("Answer", "Candidate", "Solution", "Verification"),
    ".core.budget": ("Budget",),
    ".core.errors": ("ReasonError",),
    ".core.messages": ("Completion", "Message", "NextToken", "Prompt", "Request", "Sampling"),
    ".core.question": ("Document", "Question"),
    ".core.settings": ("Settings",),
    ".core.version": ("__version__",),
    ".reasoning.strategy": ("Models", "Parameters", "Strategy"),
    ".serving.model": ("Capabilities", "LanguageModel"),
}

__all__ = [
    "Answer",
    "Budget",
    "Candidate",
    "Capabilities",
    "Completion",
    "Document",
    "LanguageModel",
    "Message",
    "Models",
    "NextToken",
    "Parameters",
    "Prompt",
    "Question",
    "ReasonError",
    "Reasoner",
    "Request",
    "Sampling",
    "Settings",
    "Solution",
    "Strategy",
    "TextVerification",
    "Verification",
    "__version__",
    "aask",
    "ask",
    "astream",
    "averify_text",
    "verify_text",
]


if not TYPE_CHECKING:  # checkers would take it for every name there could be

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home, __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
