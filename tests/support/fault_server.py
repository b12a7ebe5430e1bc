"""An OpenAI-compatible server on a real socket that speaks like vLLM over a script, and fails on demand."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from reason.core.errors import UserError
from reason.core.messages import Completion, LogitsProcessorSpec, Message, Prompt, Request, SamplingParams, TopToken
from reason.serving.logits_processors import ProcessorState, logits_processor_names, make_logits_processors
from reason.serving.logits_processors.registry import PROCESSORS_PAGE, REPORTS_PAGE

from support.scripted_model import END, ScriptedModel, replies
from support.wires.http import HttpServer, Reply

VOCABULARY = 256
"""Tokens of a sample under processors."""

Fault = str
"""One of: "429 <seconds>", "429", "<status>", "truncated", "garbage", "wrong json", "hang",
"disconnect", "cut", "cut <pieces>", "no usage", "error event"."""


def _text(content: Any) -> str:
    """The text of a message, whose content may be parts; images and files are left out."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class FaultServer(HttpServer):
    """Serves a `ScriptedModel`.

    Args:
        model: The script.
        vllm: Whether it knows vLLM's fields and pages; else it ignores the fields, as servers do.
        fault: What goes wrong with the n-th request (from 0) for text; None for a healthy answer.
        key: The only key that is let in; None lets everybody in.
        pause_s: Seconds before each token.
        processors: Whether processors are installed; else `vllm_xargs` are ignored, as vLLM does.
        reports: Whether our endpoint plug-in is installed, which hands out what processors measured.
        logprobs: Whether log-probabilities are shown.
        schemas: Whether texts are held to JSON schemas; else these are ignored, as servers do.
        many: Whether a request gets as many samples as it asks for; else `n` is ignored, as many servers do.
        priorities: Whether a priority is taken; else any but 0 is refused, as vLLM did before it ignored them.

    Attributes:
        root: The weights that it lists under the served name.
    """

    def __init__(
        self,
        model: ScriptedModel,
        *,
        served: str = "small",
        vllm: bool = True,
        fault: Callable[[int], Fault | None] = lambda n: None,
        key: str | None = None,
        pause_s: float = 0.0,
        processors: bool = True,
        reports: bool = True,
        logprobs: bool = True,
        schemas: bool = False,
        many: bool = True,
        priorities: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.served = served
        self.vllm = vllm
        self.fault = fault
        self.key = key
        self.pause_s = pause_s
        self.processors = processors
        self.reports = reports
        self.told: dict[str, dict[str, Any]] = {}
        """What processors have reported and nobody has fetched."""
        self.logprobs = logprobs
        self.schemas = schemas
        self.many = many
        self.priorities = priorities
        self.root = f"scripts/{served}"
        self.headers: list[dict[str, str]] = []
        """Headers of the requests for text."""
        self.answered: list[str] = []
        """The last user message of every request that was answered in full."""

    async def _answer(self, reply: Reply, method: str, path: str, headers: dict[str, str], body: Any) -> None:
        self.requests.append((path, body))
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            await reply.error(401, "no such key", code="invalid_api_key")
            return
        if path == "/v1/models":
            entry = {"id": self.served, "object": "model"}
            if self.vllm:
                length = self.model.capabilities.context_tokens
                entry |= {"owned_by": "vllm", "max_model_len": length, "root": self.root}
            await reply.json(200, {"object": "list", "data": [entry]})
            return
        if path in ("/v1/chat/completions", "/v1/completions"):
            self.headers.append(headers)
            if body.get("priority") and not self.priorities:
                await reply.error(400, "Got priority 1 but Priority scheduling is not enabled.")
                return
            await self._write(reply, path, body)
            return
        if self.vllm:
            page = {
                "/version": self._version,
                "/tokenize": self._tokenize,
                "/detokenize": self._detokenize,
                **({PROCESSORS_PAGE: self._processors, REPORTS_PAGE: self._reports} if self.reports else {}),
            }.get(path)
            if page is not None:
                await reply.json(200, page(body))
                return
        await reply.error(404, f"no page {path}")
        return

    # -- vLLM's pages

    def _version(self, body: Any) -> Any:
        return {"version": "0.32.0"}

    def _tokenize(self, body: Any) -> Any:
        text = body["prompt"] if "prompt" in body else self._rendered(body["messages"], body)
        return {"tokens": [ord(c) for c in text], "count": len(text)}

    def _detokenize(self, body: Any) -> Any:
        return {"prompt": "".join(map(chr, body["tokens"]))}

    def _processors(self, body: Any) -> Any:
        return {"logits_processors": sorted(logits_processor_names()) if self.processors else []}

    def _reports(self, body: Any) -> Any:
        return {"reports": {i: self.told.pop(i) for i in body["ids"] if i in self.told}}

    def _rendered(self, messages: Any, body: Any) -> str:
        return self.model.render(self._prompt(messages, body))

    def _prompt(self, messages: Any, body: Any) -> Prompt:
        turns = [Message(role=m["role"], content=_text(m["content"])) for m in messages]
        if self.vllm and body.get("continue_final_message"):
            # chat templates commonly strip what they are given
            return Prompt(messages=tuple(turns[:-1]), prefix=turns[-1].content.strip())
        return Prompt(messages=tuple(turns))

    # -- text

    async def _text(self, reply: Reply, path: str, body: Any, number: int) -> None:
        await self._writing(reply, path, body, self.fault(number))

    async def _writing(self, reply: Reply, path: str, body: Any, fault: Fault | None) -> None:
        if body.get("model") != self.served:
            await reply.error(404, f"the model {body.get('model')} does not exist", code="model_not_found")
            return
        if fault is not None and fault.startswith("429"):
            *_, asked = fault.split(" ")
            headers = {} if fault == "429" else {"Retry-After": asked}
            await reply.error(429, "too many requests", headers=headers)
            return
        if fault is not None and fault.isdigit():
            await reply.error(int(fault), f"status {fault} on demand")
            return
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "wrong json":
            await reply.raw(200, "text/event-stream", b"data: {broken\n\ndata: [DONE]\n\n")
            return
        if fault == "garbage":
            await reply.raw(200, "text/event-stream", b'data: {"object": "chat.completion.chunk"}\n\n')
            return
        if fault == "disconnect":
            raise ConnectionResetError
        request = self._request(path, body)
        need = self.model.count_tokens(request.prompt) + request.sampling.max_tokens
        if need > (self.model.capabilities.context_tokens or need):
            told = f"this model's maximum context length is exceeded by {need} tokens"
            await reply.error(400, told, param="input_tokens" if self.vllm else None)
            return
        if request.sampling.top_logprobs > 20:
            await reply.error(400, "top_logprobs is at most 20")
            return
        await self._stream(reply, path, body, request, fault)

    def _request(self, path: str, body: Any) -> Request:
        if path == "/v1/completions":
            given = body["prompt"]
            prompt = Prompt(text=given if isinstance(given, str) else "".join(map(chr, given)))
            top = body.get("logprobs") or 0
        else:
            prompt = self._prompt(body["messages"], body)
            top = body.get("top_logprobs") or 0
        stop = body.get("stop") or ()
        return Request(
            prompt=prompt,
            sampling=SamplingParams(
                temperature=body.get("temperature", 1.0),
                max_tokens=body.get("max_tokens", 16),
                n=(body.get("n") or 1) if self.many else 1,
                stop=(stop,) if isinstance(stop, str) else tuple(stop),
                top_logprobs=top,
                logprobs=True,  # what is shown is decided with each piece
            ),
        )

    async def _stream(self, reply: Reply, path: str, body: Any, request: Request, fault: Fault | None) -> None:
        chat = path == "/v1/chat/completions"
        seed = body.get("seed")
        base = random.randrange(1 << 30) if seed is None else seed
        n = request.sampling.n
        if not body.get("stream"):
            await reply.json(200, self._whole(request, body))
            return
        writers = []
        writing = self._held(body) or self.model
        for i in range(n):
            # like vLLM: sample i of a request with seed s is the sample of seed s + i
            changed = request.sampling.model_copy(update={"seed": base + i, "n": 1})
            hooked = (body.get("vllm_xargs") or {}).get("reason") if self.vllm and self.processors else None
            if hooked:
                writers.append(self._hooked(request.prompt, changed, bool(body.get("ignore_eos")), json.loads(hooked)))
                continue
            [[made]] = await writing.generate([request.model_copy(update={"sampling": changed})])
            writers.append(_pieces(made))
        shape = "chat.completion.chunk" if chat else "text_completion"
        frame = {"id": f"r{self.count}", "object": shape, "created": 1, "model": self.served}
        await reply.start("text/event-stream")
        made = sum(map(len, writers))
        sent = 0
        for turn in range(max(len(p) for p in writers)):
            for i, pieces in enumerate(writers):
                if turn >= len(pieces):
                    continue
                if fault is not None and fault.startswith("cut") and sent == int(fault[4:] or 2):
                    raise ConnectionResetError
                if fault == "truncated" and sent == 2:
                    await reply.end()
                    return
                if fault == "error event" and sent == 2:
                    await reply.event({"error": {"message": "engine died", "code": 500}})
                    await reply.end()
                    return
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
                first = turn == 0
                choice = self._choice(chat, i, pieces[turn], body, first)
                await reply.event({**frame, "choices": [choice]})
                sent += 1
        if fault != "no usage" and (body.get("stream_options") or {}).get("include_usage"):
            prompt_tokens = self.model.count_tokens(request.prompt)
            usage = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": made,
                "total_tokens": prompt_tokens + made,
                "prompt_tokens_details": {"cached_tokens": prompt_tokens // 16 * 16},
            }
            await reply.event({**frame, "choices": [], "usage": usage})
        self.answered.append(_last_user_message(request.prompt))
        await reply.event("[DONE]")
        await reply.end()

    def _held(self, body: Any) -> ScriptedModel | None:
        """A script that writes what a request's JSON schema asks for; None if it asks for nothing, or is not heard."""
        form = body.get("response_format") or {}
        given = (body.get("structured_outputs") or {}).get("json") if self.vllm else None
        schema = given if given is not None else (form.get("json_schema") or {}).get("schema")
        if schema is None or not self.schemas:
            return None
        return ScriptedModel(replies(json.dumps(instance(schema))))

    def _hooked(self, prompt: Prompt, sampling: SamplingParams, endless: bool, order: Any) -> list[Piece]:
        """A sample under real processors, over a vocabulary of the first `VOCABULARY` characters."""
        specs = [LogitsProcessorSpec.model_validate(c) for c in order["logits_processors"]]
        processors = make_logits_processors(specs, "fault server")
        before = self.model.render(prompt)
        said: list[int] = []
        ends = frozenset({ord(END)})
        states = {
            n: ProcessorState([*map(ord, before)], said, order.get("sample", 0), eos_ids=ends) for n, _ in processors
        }
        draw = random.Random(f"{sampling.seed}/hooked")
        pieces: list[Piece] = []
        failure = None
        while len(said) < sampling.max_tokens:
            chances = self.model._script(before + "".join(map(chr, said)))
            # as good as impossible, but a processor can allow it
            exact = [math.log(chances[chr(i)]) if chances.get(chr(i)) else -60.0 for i in range(VOCABULARY)]
            row = np.array(exact, dtype=np.float32)
            try:
                for name, processor in processors:
                    row = processor(row, states[name])
            except UserError as e:
                failure = ["user_error", f"a logits processor failed: {e}"]
            if failure is not None:
                row = np.full(VOCABULARY, -np.inf, dtype=np.float32)
                row[ord(END)] = 0.0
            weights = np.exp((row - row.max()).astype(float) / (sampling.temperature or 1.0))
            token = int(row.argmax()) if not sampling.temperature else draw.choices(range(VOCABULARY), weights)[0]
            best = sorted(range(VOCABULARY), key=exact.__getitem__, reverse=True)[: sampling.top_logprobs]
            top = tuple(TopToken(token_id=i, token=chr(i), logprob=exact[i]) for i in best)
            said.append(token)
            ended = token == ord(END) and not endless
            finish = "stop" if ended else "length" if len(said) == sampling.max_tokens else None
            pieces.append(Piece("" if token == ord(END) else chr(token), token, exact[token], top, finish))
            if ended:
                break
        extras = {name: state.extras for name, state in states.items() if state.extras}
        if order.get("id"):
            self.told[order["id"]] = {"extras": extras, "failure": failure}
        return pieces

    def _choice(self, chat: bool, index: int, piece: Piece, body: Any, first: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": piece.finish, "logprobs": None}
        if self.vllm and body.get("return_token_ids"):
            choice["token_ids"] = [piece.token_id]
        if self.vllm and (piece.finish is not None or not chat):
            choice["stop_reason"] = piece.stopped_by or None
        if chat:
            choice["delta"] = {"content": piece.text, **({"role": "assistant"} if first else {})}
        else:
            choice["text"] = piece.text
        if body.get("logprobs") is not None and body["logprobs"] is not False and self.logprobs:
            choice["logprobs"] = self._logprobs(chat, piece, body)
        return choice

    def _logprobs(self, chat: bool, piece: Piece, body: Any) -> dict[str, Any]:
        def name(token_id: int) -> str:
            as_ids = self.vllm and body.get("return_tokens_as_token_ids")
            return f"token_id:{token_id}" if as_ids else chr(token_id)

        ranked = [(name(t.token_id), t.logprob) for t in piece.top]
        token = name(piece.token_id)
        if not chat:
            return {"tokens": [token], "token_logprobs": [piece.logprob], "top_logprobs": [dict(ranked)]}
        entry: dict[str, Any] = {"token": token, "logprob": piece.logprob, "bytes": list(token.encode())}
        entry["top_logprobs"] = [{"token": t, "logprob": lp, "bytes": None} for t, lp in ranked]
        return {"content": [entry]}

    def _whole(self, request: Request, body: Any) -> dict[str, Any]:
        """The reply to a scoring request, not streamed."""
        text = request.prompt.text or ""
        rows = [None, *(self._row(text, i) for i in range(1, len(text)))]
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length", "logprobs": None}
        if self.vllm and body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = rows
        usage = {"prompt_tokens": len(text), "completion_tokens": 1, "total_tokens": len(text) + 1}
        frame = {"id": "r", "object": "text_completion", "created": 1, "model": self.served}
        return {**frame, "choices": [choice], "usage": usage}

    def _row(self, text: str, i: int) -> dict[str, Any]:
        chances = self.model._script(text[:i])
        p = chances.get(text[i], 0.0)
        rank = 1 + sum(q > p for q in chances.values())
        return {str(ord(text[i])): {"logprob": math.log(p) if p else -1e9, "rank": rank, "decoded_token": text[i]}}


def _last_user_message(prompt: Prompt) -> str:
    """Also of a conversation that was sent as tokens, with the beginning of its response."""
    if prompt.messages:
        return prompt.messages[-1].content
    return (prompt.text or "").rpartition("user: ")[2].partition("\nassistant: ")[0]


def instance(schema: Any) -> Any:
    """Something small that satisfies a schema of objects, lists, texts, numbers and enumerations."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: instance(field) for name, field in schema["properties"].items()}
    if schema["type"] == "array":
        return [instance(schema["items"])] * schema.get("minItems", 0)
    return {"string": "a text", "integer": 3, "number": 0.5, "boolean": True}[schema["type"]]


@dataclass(frozen=True)
class Piece:
    """What one token adds to a sample."""

    text: str
    token_id: int
    logprob: float
    top: tuple[TopToken, ...]
    finish: str | None = None
    stopped_by: str | None = None


def _pieces(made: Completion) -> list[Piece]:
    """A scripted sample token by token: one token is one character, and those of a stop string have no text."""
    last = len(made.token_ids) - 1
    tops = made.top_logprobs or ((),) * len(made.token_ids)
    return [
        Piece(
            made.text[i : i + 1],
            token,
            logprob,
            top,
            made.finish_reason if i == last else None,
            made.stop_reason if i == last else None,
        )
        for i, (token, logprob, top) in enumerate(zip(made.token_ids, made.logprobs or (), tops, strict=True))
    ]
