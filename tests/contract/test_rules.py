"""Every rule of the providers is one that requests would break without what keeps it in the product."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from reason.core.errors import CapabilityMissing, ReasonError, UserError
from reason.core.messages import EFFORTS, Attachment, Message, Prompt, Request, SamplingParams, Thought, Tool, ToolCall
from reason.core.settings import Settings
from reason.serving.litellm.factory import load_litellm_model
from support.wires.kinds import KINDS, OTHER_KINDS
from support.wires.rules import RULES, Kept, Rule
from support.wires.script import QUESTION, signature_of
from support.wires.server import WireServer

NOTHING_KNOWN: Mapping[str, Any] = {
    "thinks": "default",
    "efforts": {effort: {"reasoning_effort": effort} for effort in EFFORTS},
    "refuses": [],
    "refuses_while_thinking": [],
    "min_thinking_tokens": 0,
    "max_thinking_tokens": None,
    "cap_includes_thoughts": False,
    "responses_api": "never",
    "return_thoughts": "never",
}
"""The fields of a profile of which nothing is known."""

TOOL = Tool(
    name="look_up",
    description="Looks up.",
    parameters={"type": "object", "properties": {"x": {"type": "integer", "const": 1}}},
)
PIXEL = Attachment.of(b"\x89PNG\r\n\x1a\n")
ASK = Prompt.user(QUESTION)
TOOLS = ASK.model_copy(update={"tools": (TOOL,)})


def turn(call_id: str = "call_rabc_0", **block: str | list[str]) -> Prompt:
    """A turn of tools whose thought has one block."""
    call = ToolCall(name="look_up", arguments="{}", id=call_id)
    said = Message(role="assistant", content="", tool_calls=(call,), thought=Thought(text="I look.", blocks=(block,)))
    result = Message(role="tool", content="12", tool_call_id=call.id, name="look_up")
    return TOOLS.model_copy(update={"messages": (*ASK.messages, said, result)})


PROMPTS: Mapping[str, Prompt] = {
    "": ASK,
    "prefix": ASK.with_prefix("The"),
    "tools": TOOLS,
    "forced tools": TOOLS.model_copy(update={"tool_choice": "required"}),
    "chosen tool": TOOLS.model_copy(update={"tool_choice": "look_up"}),
    "image": TOOLS.model_copy(
        update={"messages": (Message(role="user", content=QUESTION, attachments=(PIXEL,)),)},
    ),
    "turn": turn(type="reasoning", encrypted_content="gAAArabc", summary=[]),
    "signed turn": turn(type="thinking", thinking="I look.", signature=signature_of("I look.")),
    "OpenRouter's signed turn": turn(type="reasoning.text", text="I look.", signature=signature_of("I look.")),
    "OpenRouter's sealed turn": turn("call_1", type="reasoning.encrypted", data=signature_of("I look.")),
}


class Played:
    """What a kind of model got, and what came of it."""

    def __init__(self, kept: Kept, directory: Path) -> None:
        kind = next(kind for kind in (*KINDS, *OTHER_KINDS) if kind.name == kept.kind)
        self.kind = replace(kind, model=f"{kind.provider}/{kept.model}") if kept.model else kind
        self.kept, self.directory = kept, directory
        self.error: ReasonError | None = None

    async def run(self, *, profile: Sequence[str] = (), changes: Mapping[str, Any] | None = None) -> Played:
        """Make the request; then, without the product, make it again with these changes of its body."""
        server = WireServer(self.kind, thought_words=1)
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.run()) as base:
            fields = {name: NOTHING_KNOWN[name] for name in profile}
            settings = Settings(
                providers={self.kind.model: {"api_base": self.kind.api_base(base), "max_retries": 0, "probe": False}},
                profiles={self.kind.model: fields} if fields else {},
                store=self.directory / "runs.sqlite3",
            )
            model = await load_litellm_model(self.kind.model, settings)
            if profile:
                able = {"logprobs": True, "prefix": True, "json_schema": True}
                model._can = model.capabilities.model_copy(update=able)
            sent = {"max_tokens": 64, "seed": 1, **self.kept.sent}
            request = Request(prompt=PROMPTS[sent.pop("prompt", "")], sampling=SamplingParams(**sent))
            try:
                await model.generate([request])
            except ReasonError as e:
                self.error = e
            finally:
                await model.aclose()
            if changes is not None:
                made = server.generations[-1]
                root = base.removesuffix("/v1")
                async with httpx.AsyncClient(timeout=60) as client:
                    await client.post(root + made.path, json=changed(made.body, changes))
        self.refused_by = [g.rule for g in server.generations if g.rule is not None]
        self.requests = len(server.generations)
        return self


def changed(body: Any, changes: Mapping[str, Any]) -> Any:
    """A body with other values at some paths; None removes one."""
    made = copy.deepcopy(body)
    for path, value in changes.items():
        *way, last = path.split(".")
        at: Any = made
        for name in way:
            at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
        key: Any = int(last) if isinstance(at, list) else last
        if value is None:
            del at[key]
        else:
            at[key] = value
    return made


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK", "OPENROUTER", "MISTRAL", "XAI"):
        monkeypatch.setenv(f"{provider}_API_KEY", "key")


def named(rule: Rule) -> str:
    return f"{rule.kept.kind}: {rule.message}"[:60]


@pytest.mark.parametrize("rule", RULES, ids=named)
async def test_a_rule_is_kept_and_broken_without_what_keeps_it(rule, tmp_path, monkeypatch):
    kept = rule.kept
    product = await Played(kept, tmp_path / "kept").run()
    if product.error is None:  # a request without what is refused
        is_learned = kept.by.endswith("refused_parameter")
        assert product.refused_by == [rule] * is_learned
        assert product.requests
    else:  # an error of the caller, before anything is sent
        assert isinstance(product.error, UserError | CapabilityMissing), product.error
        assert product.error.hint
        assert not product.requests
    bare = Played(kept, tmp_path / "bare")
    if kept.by == "profile":
        await bare.run(profile=kept.instead)
    elif kept.by == "litellm":
        await bare.run(changes=kept.instead)
    else:
        target = f"reason.serving.{kept.by}"
        instead = kept.instead
        if isinstance(instead, Mapping):
            made = pkgutil.resolve_name(target)

            def instead(*given: Any, **named: Any) -> Any:
                return changed(made(*given, **named), kept.instead)

        monkeypatch.setattr(target, instead)
        await bare.run()
    assert rule in bare.refused_by
