"""`reason`: inference-time reasoning strategies and verification with one budget, one trace and one run store.

    from reason import Reasoner, ask

    print(ask("What is the capital of France?").answer)

    async with Reasoner(strategy="self-consistency", budget={"tokens": 2000}) as reasoner:
        answer = await reasoner.aask("What is 17 times 23?")

Names are imported at first use: importing the package loads no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agents.loop.tool import tool
    from .agents.reasoner import Reasoner, aask, ask, astream
    from .agents.verification import TextVerification, averify_text, verify_text
    from .core.budget import Budget
    from .core.errors import ReasonError, interrupted_run
    from .core.events import CandidateAdded, Event, RunFinished, RunStarted, TextDelta
    from .core.messages import Completion, Message, NextTokenDistribution, Prompt, Request, SamplingParams
    from .core.settings import Settings
    from .core.types import Answer, Candidate, Document, Question, Solution, Verification
    from .core.version import __version__
    from .integrations.checkpoints import RunStoreSaver
    from .integrations.langchain import StrategyMiddleware
    from .reasoning.strategy import Models, Parameters, Strategy
    from .serving.model import Capabilities, LanguageModel

_MODULES = {
    ".agents.loop.tool": ("tool",),
    ".agents.reasoner": ("Reasoner", "aask", "ask", "astream"),
    ".agents.verification": ("TextVerification", "averify_text", "verify_text"),
    ".core.budget": ("Budget",),
    ".core.errors": ("ReasonError", "interrupted_run"),
    ".core.events": ("CandidateAdded", "Event", "RunFinished", "RunStarted", "TextDelta"),
    ".core.messages": ("Completion", "Message", "NextTokenDistribution", "Prompt", "Request", "SamplingParams"),
    ".core.settings": ("Settings",),
    ".core.types": ("Answer", "Candidate", "Document", "Question", "Solution", "Verification"),
    ".core.version": ("__version__",),
    ".integrations.checkpoints": ("RunStoreSaver",),
    ".integrations.langchain": ("StrategyMiddleware",),
    ".reasoning.strategy": ("Models", "Parameters", "Strategy"),
    ".serving.model": ("Capabilities", "LanguageModel"),
}

__all__ = [
    "Answer",
    "Budget",
    "Candidate",
    "CandidateAdded",
    "Capabilities",
    "Completion",
    "Document",
    "Event",
    "LanguageModel",
    "Message",
    "Models",
    "NextTokenDistribution",
    "Parameters",
    "Prompt",
    "Question",
    "ReasonError",
    "Reasoner",
    "Request",
    "RunFinished",
    "RunStarted",
    "RunStoreSaver",
    "SamplingParams",
    "Settings",
    "Solution",
    "Strategy",
    "StrategyMiddleware",
    "TextDelta",
    "TextVerification",
    "Verification",
    "__version__",
    "aask",
    "ask",
    "astream",
    "averify_text",
    "interrupted_run",
    "tool",
    "verify_text",
]


if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(module, __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
