"""`WireServer`: one kind of model on a real socket. It refuses what the real one refuses, and counts what it sends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from support.wires.chat import ChatStream, TextStream
from support.wires.gemini import GeminiStream
from support.wires.http import HttpServer, Reply
from support.wires.kinds import Kind
from support.wires.messages import COUNT_FIELDS, MessagesStream
from support.wires.ollama import OllamaStream
from support.wires.responses import ResponsesStream
from support.wires.rules import refusal
from support.wires.script import (
    RIGHT,
    RIGHT_CHOICE,
    Body,
    Sample,
    Token,
    content_of,
    instance,
    rest_of_answer,
    script_answer,
    script_thought,
    text_of,
    token_id,
    tokens_of,
)
from support.wires.stream import SHAPES, Choice, Generation, Shape, Stream, error_body
from support.wires.templates import State, render, state

WIRES: tuple[tuple[str, type[Stream]], ...] = (
    (r"/v1/chat/completions", ChatStream),
    (r"/v1/completions", TextStream),
    (r"/v1/responses", ResponsesStream),
    (r"/v1/messages", MessagesStream),
    (r"/v1/models/.*:streamGenerateContent", GeminiStream),
)
"""The wires by the path of their requests."""
COUNT_PAGE = "/v1/messages/count_tokens"
VLLM_PAGES = ("/version", "/tokenize", "/detokenize")
CONTEXT_TOKENS = 32768


@dataclass(frozen=True)
class Fault:
    """What a request is answered with instead of text: a status, a page of another type, or nothing.

    Attributes:
        status: The status; 0 closes the connection without a response.
        page: The body, if it is no error in the wire's form.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    page: str = ""


Calls = Sequence[tuple[str, Mapping[str, Any]]]
"""Tools that are called in one response, with their arguments."""


class WireServer(HttpServer):
    """Serves one kind of model.

    Args:
        kind: The kind.
        thought_words: Minimum words of a thought without an effort, which differs among samples; a low effort has half
            of them.
        pause_s: Seconds before each token.
        shape: How streams are cut.
        calls: The tool calls of the responses to a question, one after another; the answer follows.
        answer: Writes the answer after the calls, from the messages; None is the script's.

    Attributes:
        generations: Requests for text since `reset`.
        cuts: Chunks after which the connections of the next streams are closed, one for each.
        faults: Responses to the next requests for text.
        hold: Streams that have begun go on while it is set.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        thought_words: int = 40,
        pause_s: float = 0.0,
        shape: Shape = SHAPES[0],
        calls: Sequence[Calls] = (),
        answer: Callable[[Sequence[Body]], str] | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.shape, self.calls, self.answer = kind, shape, calls, answer
        self.thought_words, self.pause_s = thought_words, pause_s
        self.generations: list[Generation] = []
        self.cuts: list[int] = []
        self.faults: list[Fault] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self._cache: set[str] = set()

    def reset(self) -> None:
        """Forget the requests so far."""
        self.generations = []
        self.requests = []
        self.disconnects = 0

    @property
    def refusals(self) -> list[str]:
        """Why requests were refused."""
        return [g.refused for g in self.generations if g.refused is not None]

    @property
    def tokens(self) -> int:
        """Generated tokens."""
        return sum(c.tokens for g in self.generations for c in g.choices)

    @property
    def thinking_tokens(self) -> int:
        """Generated tokens of thoughts, with their tags."""
        return sum(c.thinking for g in self.generations for c in g.choices)

    # -- pages

    async def _answer(self, reply: Reply, method: str, path: str, headers: Mapping[str, str], body: Any) -> None:
        path = path.partition("?")[0]
        self.requests.append((path, body))
        path = "/v1" + path if path == "/chat/completions" else path
        if path == "/v1/models":
            entry: Body = {"id": self.kind.served, "object": "model", "owned_by": self.kind.owner}
            if self.kind.vllm:
                root = self.kind.root or f"scripts/{self.kind.served}"
                entry |= {"max_model_len": CONTEXT_TOKENS, "root": root}
            await reply.json(200, {"object": "list", "data": [entry]})
        elif self.kind.vllm and path in VLLM_PAGES:
            await reply.json(200, self._vllm_page(path, body))
        elif self.kind.wire == "messages" and path == COUNT_PAGE:
            await self._count(reply, body)
        elif any(re.fullmatch(pattern, path) for pattern, _ in WIRES):
            await self._write(reply, path, body)
        else:
            await reply.error(404, f"no page {path}")

    async def _count(self, reply: Reply, body: Body) -> None:
        """The tokens of a prompt, at Anthropic."""
        extra = sorted(set(body) - set(COUNT_FIELDS))
        if self.faults:
            await self._fail(reply, self.faults.pop(0))
        elif extra:
            await reply.json(400, error_body(self.kind, 400, f"{extra[0]}: Extra inputs are not permitted"))
        else:
            await reply.json(200, {"input_tokens": self._start(MessagesStream.chat_request(body))[2]})

    def _vllm_page(self, path: str, body: Any) -> Body:
        if path == "/version":
            return {"version": "0.32.0"}
        if path == "/detokenize":
            return {"prompt": text_of(body["tokens"])}
        text = body["prompt"] if "prompt" in body else render(self.kind, body["messages"], body)
        ids = [token_id(t) for t in tokens_of(text + _shown_tools(body))]
        return {"tokens": ids, "count": len(ids), "max_model_len": CONTEXT_TOKENS}

    # -- text

    async def _text(self, reply: Reply, path: str, body: Any, number: int) -> None:
        wire = next(one for pattern, one in WIRES if re.fullmatch(pattern, path))
        wire = OllamaStream if self.kind.wire == "ollama" else wire
        made = Generation(path, body, cache=self._cache)
        self.generations.append(made)
        body = wire.normal(body, path)
        thinking = self.kind.is_thinking(body)
        if self.faults:
            await self._fail(reply, self.faults.pop(0))
            return
        if body.get("model") not in (self.kind.served, self.kind.served.removesuffix(":latest")):
            await reply.json(404, error_body(self.kind, 404, f"the model {body.get('model')} does not exist"))
            return
        if body.get("prompt_logprobs") is not None:
            await self._score(reply, made, body["prompt"])
            return
        refused = refusal(self.kind.model, {**body, "path": path, "thinks": thinking})
        if refused is not None:
            made.rule, made.refused = refused
            await reply.json(made.rule.status, error_body(self.kind, made.rule.status, made.refused))
            return
        asked = wire.chat_request(body)
        messages, start, made.prompt_tokens = self._start(asked)
        seed = asked.get("seed")
        base = seed if seed is not None else len(self.generations)
        many = (asked.get("n") or 1) if self.kind.many else 1
        thinking = self.kind.shows != "never" if "prompt" in body else thinking
        samples = [self._sample(messages, start, asked, thinking, base + i) for i in range(many)]
        made.choices = [Choice() for _ in samples]
        await self._send(reply, wire(self.kind, body, made, samples, self.shape))

    async def _fail(self, reply: Reply, fault: Fault) -> None:
        if not fault.status:
            raise ConnectionResetError
        if fault.page:
            await reply.raw(fault.status, "text/html", fault.page.encode(), fault.headers)
        else:
            await reply.json(fault.status, error_body(self.kind, fault.status, f"status {fault.status}"), fault.headers)

    def _start(self, body: Body) -> tuple[list[Body], State, int]:
        """The conversation of a request, where the response begins, and the tokens of the prompt."""
        if "prompt" in body:
            given = body["prompt"]
            rendered = given if isinstance(given, str) else text_of(given)
            return *state(self.kind, rendered), len(tokens_of(rendered) if isinstance(given, str) else given)
        messages = body["messages"]
        if self.kind.vllm or self.kind.template_opens:
            rendered = render(self.kind, messages, body)
            seen, start = state(self.kind, rendered)
            return (messages if body.get("tools") else seen), start, len(tokens_of(rendered + _shown_tools(body)))
        text = "".join(map(content_of, messages)) + _shown_tools(body)
        continued = messages[-1]["role"] == "assistant"
        return messages, State(None, False, content_of(messages[-1]) if continued else ""), len(tokens_of(text))

    def _sample(self, messages: Sequence[Body], start: State, body: Body, thinking: bool, seed: int) -> Sample:
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        if self.kind.vllm:
            schema = schema or (body.get("structured_outputs") or {}).get("json")
        kind = self.kind
        calls = self._calls(messages, body)
        if self.answer is not None and not calls and messages[-1]["role"] == "tool":
            answer = self.answer(messages)
        else:
            answer = "" if calls else rest_of_answer(script_answer(messages, schema, seed), start.answer)
        opens, closes = kind.tags
        in_blocks = kind.shows in ("blocks", "parts", "chunks")  # which have no tags
        tokens: list[Token] = []
        begins_thought = thinking and start.thought is None and not start.answer
        if begins_thought or start.is_open:
            thought = self._thought(start.thought or "", body, seed)
            opened = [Token(t, "mark") for t in tokens_of(f"{opens}\n")] if begins_thought else []
            closed = [Token(t, "mark") for t in tokens_of(closes)]
            tokens += thought if in_blocks else [*opened, *thought, *closed]
            answer = answer if kind.is_harmony or in_blocks or calls else f"\n\n{answer}"
        elif kind.is_harmony and not start.answer and start.thought is None:
            tokens += [Token(t, "mark") for t in tokens_of("<|channel|>final<|message|>")]
        tokens += [Token(t, "answer") for t in tokens_of(answer)]
        for i, (_, arguments) in enumerate(calls):
            tokens += [Token(t, "call", call=i) for t in tokens_of(json.dumps(arguments))]
        cut = _cut(kind, tokens, body)
        if not calls:
            return cut
        finish = "tool_calls" if cut.finish == "stop" else cut.finish
        return replace(cut, finish=finish, tools=tuple(name for name, _ in calls))

    def _thought(self, given: str, body: Body, seed: int) -> list[Token]:
        words = self.thought_words + 12 * (seed % 4)
        if body.get("reasoning_effort") in ("minimal", "low"):
            words //= 2
        paragraphs = script_thought(words)
        text = "\n\n".join(paragraphs[given.strip("\n").count("\n\n") + bool(given.strip()) :])
        if given.strip() and not given.endswith("\n"):
            text = f"\n\n{text}"
        limit = body.get("thinking_token_budget") or (body.get("thinking") or {}).get("budget_tokens")
        thought = [Token(t, "thought") for t in tokens_of(text + "\n")]
        return thought[:limit] if limit else thought

    def _calls(self, messages: Sequence[Body], body: Body) -> Calls:
        """The tools that are called in the response: those of the script, and one that is forced."""
        tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or ()}
        asked = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=0)
        done = sum(bool(m.get("tool_calls")) for m in messages[asked:])
        if not tools or body.get("tool_choice") == "none":
            return ()
        is_question = done or script_answer(messages, None, 0).startswith("I go way")  # and not about its answers
        if is_question and done < len(self.calls):
            return self.calls[done]
        choice = body.get("tool_choice")
        if done or not (isinstance(choice, dict) or choice in ("required", "any")):
            return ()
        name = choice["function"]["name"] if isinstance(choice, dict) else next(iter(tools))
        return [(name, instance(tools[name].get("parameters") or {"type": "object"}))]

    async def _send(self, reply: Reply, stream: Stream) -> None:
        shape, made = self.shape, stream.made
        size = shape.tokens or self.kind.chunk_tokens
        await reply.start(stream.content_type)
        cut = self.cuts.pop(0) if self.cuts else shape.after if shape.breaks else None
        await _send_some(reply, stream.begin())
        for turn in range(max(-(-len(sample.tokens) // size) for sample in stream.samples)):
            await self._pause(reply)
            if turn:
                await self.hold.wait()
            if turn == cut and shape.breaks not in ("error", "end"):
                raise ConnectionResetError
            if turn == cut:
                await _send_some(reply, stream.broken() if shape.breaks == "error" else b"")
                await reply.end()
                return
            for index, sample in enumerate(stream.samples):
                tokens = sample.tokens[turn * size : (turn + 1) * size]
                if not tokens:
                    continue
                finish = sample.finish if (turn + 1) * size >= len(sample.tokens) else None
                choice = made.choices[index]
                choice.tokens += len(tokens)
                choice.thinking += sum(t.part in ("thought", "mark") for t in tokens)
                choice.finish = finish
                apart = finish is not None and shape.finish_apart
                data = stream.piece(index, tokens, is_first=turn == 0, finish=None if apart else finish)
                if apart:
                    data += stream.piece(index, (), is_first=False, finish=finish)
                await _send_some(reply, data + (stream.COMMENT if shape.comments else b""))
        await _send_some(reply, stream.end())
        await reply.end()

    async def _pause(self, reply: Reply) -> None:
        """Let the client read; stops the generation if it went away."""
        await asyncio.sleep(self.pause_s)
        if reply.has_gone:
            self.disconnects += 1
            raise ConnectionResetError

    async def _score(self, reply: Reply, made: Generation, prompt: str | list[int]) -> None:
        """Log-probabilities of a prompt: the right number and letter are more likely than any other."""
        tokens = tokens_of(prompt) if isinstance(prompt, str) else [text_of([i]) for i in prompt]
        rows: list[Any] = [None]
        for text in tokens[1:]:
            likely = text.strip() in (*RIGHT, RIGHT_CHOICE)
            rows.append({str(token_id(text)): {"logprob": -0.1 if likely else -3.0, "rank": 1 if likely else 5}})
        choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None, "prompt_logprobs": rows}
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1, "total_tokens": len(tokens) + 1}
        made.choices, made.prompt_tokens = [Choice(tokens=1, finish="length")], len(tokens)
        frame = {"id": "r", "object": "text_completion", "created": 1, "model": self.kind.served}
        await reply.json(200, {**frame, "choices": [choice], "usage": usage})


def _shown_tools(body: Body) -> str:
    return json.dumps(body["tools"]) if body.get("tools") else ""


async def _send_some(reply: Reply, data: bytes) -> None:
    if data:  # an empty chunk is the end
        await reply.send(data)


def _cut(kind: Kind, tokens: list[Token], body: Body) -> Sample:
    """Tokens up to the cap or a stop string."""
    cap = next((body[n] for n in ("max_completion_tokens", "max_tokens") if body.get(n) is not None), 4096)
    stop = body.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    seen = ""
    for i, token in enumerate(tokens):
        if i == cap:
            return Sample(tokens[:cap], "length")
        if token.part == "answer" or (kind.stop_ends_thoughts and token.part == "thought"):
            seen += token.text
            for one in stops:
                if one in seen:
                    kept = [*tokens[:i], Token("", token.part, token.text)]  # the stop string has no text
                    return Sample(_without(kept, len(one) - len(token.text)), "stop", one)
    if len(tokens) == cap:
        return Sample(tokens, "length")
    return Sample([*tokens, Token("", "answer")] if kind.vllm else tokens, "stop")


def _without(tokens: list[Token], chars: int) -> list[Token]:
    """Tokens whose last characters are those of a stop string, which are not shown."""
    for i in range(len(tokens) - 2, -1, -1):
        if chars <= 0:
            break
        text = tokens[i].text
        tokens[i] = replace(tokens[i], text=text[: max(0, len(text) - chars)], sampled=text)
        chars -= len(text)
    return tokens
