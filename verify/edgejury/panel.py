"""`Panel`: one stage of a jury, whose requests to several models are sent concurrently; and lenient JSON parsing.

A failed request fails its own juror alone. A token budget that does not cover all requests is shared equally.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ...core.concurrency import gather
from ...core.errors import BackendError, BudgetExceeded, ReasonError, StoreError
from ...core.events import JuryStageEnded
from ...core.messages import Completion, Failure, Message, Prompt, Request
from ...core.run import Run
from ...reasoning.quoting import quote_line
from ...serving.metered.model import MeteredModel
from ...serving.output_schemas import MAX_PARSED_CHARS
from ...serving.quick_calls import quick_params
from .types import Stage, StageCost

MAX_REPEATED_CHARS: Final = 1500
"""Characters of an unreadable completion that its author is shown again."""


@dataclass(frozen=True)
class JurorRequest:
    """One request to one juror, for one sample."""

    juror: int
    model: MeteredModel
    request: Request

    def within(self, tokens: float, thinking_tokens: float) -> JurorRequest:
        """The request with a limit of its tokens, thought and answer together; unchanged if its own is lower."""
        limits = (limit if limit >= 1 else math.inf for limit in (tokens, thinking_tokens))  # below 1, it is refused
        request, unbounded = self.model.within(self.request, *limits), self.model.within(self.request, math.inf)
        is_bounded = request.sampling.total_tokens < unbounded.sampling.total_tokens
        return JurorRequest(self.juror, self.model, request) if is_bounded else self


class Panel:
    """One stage of a jury.

    Attributes:
        is_limited: Whether a budget prevented a request or truncated a completion.
        error: The first error of a model.
        cost: The cost of the stage, once it has ended.
    """

    def __init__(self, run: Run, stage: Stage) -> None:
        self.is_limited = False
        self.error: BackendError | None = None
        self.cost = StageCost(stage=stage)
        self._run, self._stage = run, stage
        self._requested: set[int] = set()
        self._responded: set[int] = set()

    @contextmanager
    def open(self) -> Iterator[None]:
        """The context of the stage, which measures its cost."""
        run, ledger = self._run, self._run.ledger
        before, began_s = ledger.usage(), ledger.elapsed_s
        with run.stage(f"jury: {self._stage}"):
            yield
            now, usd = ledger.usage(), None
            if before.cost_usd is not None and now.cost_usd is not None:
                usd = max(0.0, now.cost_usd - before.cost_usd)
            self.cost = StageCost(
                stage=self._stage,
                calls=now.model_calls - before.model_calls,
                prompt_tokens=now.prompt_tokens - before.prompt_tokens,
                completion_tokens=now.completion_tokens - before.completion_tokens,
                latency_ms=1000 * max(0.0, ledger.elapsed_s - began_s),
                cost_usd=usd,
            )
            run.emit(
                JuryStageEnded(
                    stage=self._stage,
                    num_requests=len(self._requested),
                    num_responses=len(self._responded),
                    report=self.cost.model_dump(mode="json"),
                )
            )

    async def call(self, requests: Sequence[JurorRequest]) -> list[Completion]:
        """The completion of each request, in order; one with a `failure` where the model or the budget failed."""
        if not requests:
            return []
        view = self._run.ledger.view()
        share, thinking_share = view.tokens_per_sample(len(requests)), view.remaining("thinking_tokens") / len(requests)
        completions = await gather([self._complete(one, one.within(share, thinking_share)) for one in requests])
        self._requested |= {one.juror for one in requests}
        self._responded |= {one.juror for one, c in zip(requests, completions, strict=True) if c.ok and c.text.strip()}
        return list(completions)

    async def _complete(self, original: JurorRequest, fitted: JurorRequest) -> Completion:
        run = self._run
        error: ReasonError
        try:
            ((completion,),) = await fitted.model.generate([fitted.request])
        except BudgetExceeded as e:
            run.record_limit(e)
            self.is_limited, error = True, e
        except BackendError as e:
            self.error, error = self.error or e, e
        except StoreError as e:
            if run.recording:
                raise
            error = e  # a replay has no response where the run itself got an error
        else:
            is_cut = completion.finish_reason in ("length", "thinking") and fitted is not original
            if is_cut and run.ledger.exhausted is None:
                run.record_limit(run.ledger.exceeded("tokens"))
            self.is_limited |= is_cut or completion.finish_reason == "budget"
            return completion
        return _failed(error)


def _failed(error: ReasonError) -> Completion:
    return Completion(text="", finish_reason="error", failure=Failure(code=error.code, message=error.message))


def thought_of(completion: Completion) -> str:
    """The reasoning tokens of a completion; empty without any."""
    return "" if completion.thought is None else completion.thought.text.strip()


def repair_request(first: JurorRequest, completion: str, instruction: str, temperature: float) -> JurorRequest:
    """The request after an unreadable completion: the conversation so far and a simpler form, without a new thought.

    Raises:
        BudgetExceeded: The model cannot answer without thinking, for which the budget has no room.
    """
    previous = quote_line(completion, MAX_REPEATED_CHARS) or "(nothing)"
    turns = (Message(role="assistant", content=previous), Message(role="user", content=instruction))
    prompt = Prompt(messages=(*first.request.prompt.messages, *turns))
    max_tokens = first.request.sampling.max_tokens
    sampling = quick_params(first.model, default_temperature=temperature, max_tokens=max_tokens)
    return JurorRequest(first.juror, first.model, Request(prompt=prompt, sampling=sampling, is_attempt=False))


def find_text(completion: str, key: str) -> tuple[str, bool] | None:
    """The text of a field in malformed or truncated JSON, and whether it is terminated; None if there is none."""
    text = completion[:MAX_PARSED_CHARS]
    field = re.search(rf"[\"']?{re.escape(key)}[\"']?\s{{0,4}}:\s{{0,4}}\"", text, re.IGNORECASE)
    if field is None:
        return None
    body = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL).match(text, field.end())
    raw = body[0] if body else ""
    try:
        value = json.JSONDecoder(strict=False).decode(f'"{raw}"')
    except ValueError:  # an escape that JSON does not know
        value = raw.replace("\\n", "\n").replace('\\"', '"').replace("\\", "")
    value = value.encode("utf-8", "replace").decode()
    return (value, body is not None and body.end() < len(text)) if value.strip() else None


def texts_in(value: Any, maximum: int, max_chars: int) -> tuple[str, ...]:
    """The non-blank texts of a list, or a single text in its place."""
    items = value if isinstance(value, list) else [value]
    texts = [" ".join(item.split())[:max_chars] for item in items if isinstance(item, str)]
    return tuple(text for text in texts if text)[:maximum]


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, or a single object in its place."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]
