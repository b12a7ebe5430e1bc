"""`Meter`: what stands between a strategy's call and a model: the budget it is fitted into, the store, the trace."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import JsonValue

from ..core.budget import Need
from ..core.errors import UserError
from ..core.events import CallFinished, SampleFinished, TextDelta
from ..core.messages import Chunk, Completion, Prompt, Request, Usage
from ..core.run import Run
from ..core.store import StoredCall
from .model import LanguageModel, Listener
from .spending import tell_spending

_TOOLS_FRAME_BYTES = 2048
"""Most bytes of instructions that templates and providers are known to put around tools."""

Slot = tuple[int, int]
"""Position of a sample: (request in the batch, sample index)."""


class Meter:
    """Budget, store and trace of one model in one role of one run.

    Args:
        model: The model.
        role: Part it plays.
        run: The run that pays.
    """

    def __init__(self, model: LanguageModel, role: str, run: Run) -> None:
        self.model = model
        self.role = role
        self.run = run

    # -- budget

    def seeded(self, request: Request) -> Request:
        """The request with a seed: its own, or else the run's."""
        if request.sampling.seed is not None:
            return request
        sampling = request.sampling.model_copy(update={"seed": self.run.seed})
        return request.model_copy(update={"sampling": sampling})

    def fit(self, requests: list[Request]) -> list[Request]:
        """Bound `max_tokens` by an equal share of what the budget still allows."""
        ledger = self.run.ledger
        samples = sum(len(r.indices) for r in requests)
        share = ledger.left("tokens") / samples  # infinite without a limit
        if ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            left = ledger.left("usd") - prompt_price * sum(map(self._paid_prompt_tokens, requests))
            if left < 0:
                raise ledger.refuse("usd")
            if price > 0 and left / price / samples < share:
                share = left / price / samples
                if share < 1:
                    raise ledger.refuse("usd")
        if share < 1:
            raise ledger.refuse("tokens")
        return [
            r
            if r.sampling.max_tokens <= share
            else r.model_copy(update={"sampling": r.sampling.model_copy(update={"max_tokens": int(share)})})
            for r in requests
        ]

    def most(self, requests: Sequence[Request]) -> Need:
        """The most that the requests could spend."""
        tokens = sum(len(r.indices) * r.sampling.max_tokens for r in requests)
        usd = 0.0
        if self.run.ledger.budget.usd is not None:
            prompt_price, price = self._prices()
            usd = prompt_price * sum(map(self._paid_prompt_tokens, requests)) + price * tokens
        return Need(tokens=tokens, calls=len(requests), usd=usd)

    def _prices(self) -> tuple[float, float]:
        can = self.model.capabilities
        if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
            raise UserError(f"the price of model {self.model.name!r} is unknown", hint="limit tokens or calls instead")
        return can.usd_per_prompt_token, can.usd_per_completion_token

    def _paid_prompt_tokens(self, request: Request) -> int:
        """Prompt tokens that a request may be charged for: a backend may have to ask for each sample by itself.

        It does where a provider takes no n, where hooks are a sample's own, and where the wanted samples have gaps.
        """
        apart = self.model.capabilities.prompt_per_sample or bool(request.sampling.hooks) or request.samples is not None
        return self._prompt_tokens(request.prompt) * (len(request.indices) if apart else 1)

    def _prompt_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, or where nobody knows them its bytes: no tokenizer makes more of it."""
        counted = self.model.count_tokens(prompt)
        if counted is not None:
            return counted
        prefix = len(prompt.prefix) if isinstance(prompt.prefix, tuple) else len(prompt.prefix.encode())
        return prefix + len((prompt.text or "").encode()) + said_bytes(prompt) + 16 * len(prompt.messages)

    def ended(self, completion: Completion, clamped: bool) -> Completion:
        """The sample, ended by the budget if it met a bound that the budget set."""
        if clamped and completion.finish_reason == "length":
            if self.run.ledger.exhausted is None:
                self.run.note_limit(self.run.ledger.refuse("tokens"))
            return completion.model_copy(update={"finish_reason": "budget"})
        return completion

    def settle(
        self,
        call: int,
        requests: Sequence[Request],
        done: dict[Slot, Completion],
        replayed: frozenset[Slot],
        seconds: float,
    ) -> None:
        """Charge what a call has made, also when it was cancelled or failed half-way."""
        whole = sum(all((i, x) in replayed for x in r.indices) for i, r in enumerate(requests))
        usage = sum((c.usage for c in done.values()), Usage())
        self.charge(
            call,
            usage,
            calls=len(requests),
            replayed_calls=whole,
            replayed_tokens=sum(done[slot].usage.completion_tokens for slot in replayed),
            failed=sum(not c.ok for c in done.values()),
            seconds=seconds,
        )

    def charge(
        self,
        call: int,
        usage: Usage,
        *,
        calls: int,
        replayed_calls: int,
        seconds: float,
        replayed_tokens: int = 0,
        failed: int = 0,
    ) -> None:
        """Book what a call has spent, and tell of it."""
        run = self.run
        run.ledger.charge(
            self.role,
            self.model.name,
            usage,
            calls=calls,
            replayed_calls=replayed_calls,
            replayed_tokens=replayed_tokens,
            working_s=max(0.0, seconds - usage.waited_s),
        )
        self.tell_end(call, usage, seconds=seconds, failed=failed)
        self.tell_budget(call, usage.completion_tokens, calls)

    def tell_end(self, call: int, usage: Usage, *, seconds: float, failed: int = 0) -> None:
        """Tell that a call has ended, and what it was."""
        self.run.emit(
            CallFinished(
                role=self.role,
                model=self.model.name,
                seconds=seconds,
                tokens=usage.completion_tokens,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                failed=failed,
            ),
            parent=call,
        )

    def tell_budget(self, call: int, tokens: int, calls: int) -> None:
        """Tell what has been booked for a call, and what the run has spent so far."""
        tell_spending(self.run, call, self.role, self.model.name, tokens=tokens, calls=calls)

    # -- store and trace

    def sample_call(self, key: str, request: Request, completion: Completion, cut: bool) -> StoredCall:
        """A sample as the store keeps it."""
        asked = {"request": sampled_json(request), "seed": request.sampling.seed, "index": completion.sample_index}
        return StoredCall(
            key=key,
            role=self.role,
            model=self.model.name,
            request=asked,
            reply=completion.model_dump(mode="json"),
            cut=cut,
        )

    def measured_call(self, key: str, asked: JsonValue, reply: dict[str, JsonValue]) -> StoredCall:
        """A score or distribution as the store keeps it."""
        return StoredCall(key=key, role=self.role, model=self.model.name, request={"request": asked}, reply=reply)

    def tell_chunk(self, call: int, chunk: Chunk, listener: Listener | None) -> None:
        """Tell of a piece of a sample."""
        if self.run.wants_text and (chunk.text or chunk.token_ids or chunk.reasoning):
            self.run.emit(
                TextDelta(
                    request=chunk.request,
                    sample=chunk.sample_index,
                    text=chunk.text,
                    tokens=len(chunk.token_ids),
                    reasoning=chunk.reasoning,
                ),
                parent=call,
            )
        if chunk.completion is not None:
            self.run.emit(
                SampleFinished(request=chunk.request, sample=chunk.sample_index, completion=chunk.completion),
                parent=call,
            )
        if listener is not None:
            listener(chunk)

    def tell(
        self, call: int, slot: Slot, completion: Completion, listener: Listener | None, replayed: bool = False
    ) -> None:
        """Tell of a sample that was not streamed."""
        request, sample = slot
        self.run.emit(
            SampleFinished(request=request, sample=sample, completion=completion, replayed=replayed), parent=call
        )
        if listener is not None:
            text, ids = completion.text, completion.token_ids
            listener(
                Chunk(
                    request=request,
                    sample_index=sample,
                    text=text,
                    token_ids=ids,
                    logprobs=completion.logprobs or (),
                    reasoning=completion.reasoning,
                    completion=completion,
                )
            )


def said_bytes(prompt: Prompt) -> int:
    """Bytes of a conversation and its tools, as they are sent; what templates add to tools is reckoned in."""
    said = sum(len(m.content.encode()) for m in prompt.messages)
    called = sum(len(call.model_dump_json().encode()) + 32 for m in prompt.messages for call in m.tool_calls)
    shown = sum(len(json.dumps(tool.as_openai()).encode()) for tool in prompt.tools)
    return said + called + (shown + _TOOLS_FRAME_BYTES if prompt.tools else 0)


def sampled_json(request: Request) -> JsonValue:
    """What decides a sample's distribution: the prompt and how it is sampled, without seed, index and count."""
    sampling: dict[str, JsonValue] = request.sampling.model_dump(mode="json", exclude={"n", "seed", "json_schema"})
    if request.sampling.json_schema is not None:
        # only where there is one, since older replies are kept under keys without it; as text, for keys are made of
        # sorted fields, and the order of a schema's properties is that of the text's
        sampling["json_schema"] = json.dumps(request.sampling.json_schema)
    return {"prompt": request.prompt.model_dump(mode="json"), "sampling": sampling}
