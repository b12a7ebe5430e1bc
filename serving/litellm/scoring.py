"""Log-probabilities of given continuations, and the distribution of the next token, from a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import CapabilityMissing, InvalidResponse, UserError
from ...core.messages import (
    Completion,
    LogitsProcessorSpec,
    NextTokenDistribution,
    Prompt,
    Request,
    ScoredContinuation,
    Usage,
)
from ..entropy import min_entropy
from .requests import measuring_params, vllm_server_fields
from .vllm_server import tokenize_text

if TYPE_CHECKING:
    from .model import LiteLLMModel


async def score(
    model: LiteLLMModel, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]
) -> list[ScoredContinuation]:
    """Score continuations by the server's `prompt_logprobs`, one request for each.

    A text is tokenized together with the prompt's own text or text prefix.
    """
    if not model.capabilities.scoring:
        raise CapabilityMissing("scoring", model.name)
    if not continuations:
        return []
    before, waited = await model.retried(lambda: model.ids_of(prompt))
    pairs = await model.gather([_splitter(model, prompt, before, c) for c in continuations])
    salt = prompt.cache_salt
    scored: list[ScoredContinuation] = await model.gather(
        [_scorer(model, context_ids, ids, salt) for context_ids, ids in pairs]
    )
    first = scored[0]
    usage = first.usage.model_copy(update={"waited_s": first.usage.waited_s + waited})
    return [first.model_copy(update={"usage": usage}), *scored[1:]]


def _splitter(
    model: LiteLLMModel, prompt: Prompt, before: list[int], continuation: str | tuple[int, ...]
) -> Callable[[], Any]:
    """Finds the tokens before a continuation and its own."""

    async def split() -> tuple[list[int], list[int]]:
        if not isinstance(continuation, str):
            return before, list(continuation)
        if isinstance(prompt.prefix, str):
            grown = prompt.with_prefix(prompt.prefix + continuation)
            ids_with_text, _ = await model.retried(lambda: model.ids_of(grown))
            shared = next(
                (i for i, (a, b) in enumerate(zip(before, ids_with_text, strict=False)) if a != b),
                min(len(before), len(ids_with_text)),
            )
            return ids_with_text[:shared], ids_with_text[shared:]
        client, served = model.wire.client, model.target.served
        tail, _ = await model.retried(lambda: tokenize_text(client, served, continuation, special=False))
        return before, tail

    return split


def _scorer(model: LiteLLMModel, context_ids: list[int], scored: list[int], salt: str) -> Callable[[], Any]:
    async def run() -> ScoredContinuation:
        if not scored:
            return ScoredContinuation(token_ids=(), logprobs=(), is_greedy=True)
        ids = [*context_ids, *scored]

        async def call() -> Any:
            body = {"model": model.target.served, "prompt": ids, "max_tokens": 1, "temperature": 0}
            extra = {"prompt_logprobs": 0, **vllm_server_fields(model.target, salt)}
            assert model.wire.client is not None
            response = await model.wire.client.post_json("/completions", {**body, **extra})
            return _rows(response, ids, len(context_ids)), response.get("usage") or {}

        (rows, usage), waited = await model.retried(call)
        cost = model.prices.cost(len(ids), 0, 1)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return ScoredContinuation(
            token_ids=tuple(scored),
            logprobs=tuple(value for value, _ in rows),
            is_greedy=all(rank == 1 for _, rank in rows),
            usage=Usage(
                prompt_tokens=len(ids), cached_tokens=cached, completion_tokens=1, waited_s=waited, cost_usd=cost
            ),
        )

    return run


def _rows(response: Any, ids: list[int], start: int) -> list[tuple[float, int]]:
    """(log-probability, rank) of the tokens from `start` on; the first token of a text has neither.

    Raises:
        InvalidResponse: The server sent no such rows.
    """
    listed = response["choices"][0].get("prompt_logprobs") or response.get("prompt_logprobs")
    if not isinstance(listed, list) or len(listed) != len(ids):
        raise InvalidResponse("the server sent no log-probabilities of the prompt")
    rows = []
    for i in range(start, len(ids)):
        entry = (listed[i] or {}).get(str(ids[i]))
        if entry is None:
            raise InvalidResponse(f"the server sent no log-probability of token {i} of the prompt")
        rows.append((float(entry["logprob"]), int(entry["rank"])))
    return rows


async def next_token(model: LiteLLMModel, prompts: Sequence[Prompt], top: int) -> list[NextTokenDistribution]:
    """Distribution of the next token as far as the provider returns it; one token is sampled for each prompt.

    Where the logits processor `entropy_probe` works, the entropy is over the complete vocabulary.
    """
    if top < 1:
        raise UserError(f"top must be at least 1, got {top}")
    shown = model.capabilities.top_logprobs
    if not shown:
        raise CapabilityMissing("top_logprobs", model.name)
    processors = (LogitsProcessorSpec(name="entropy_probe"),) if model.capabilities.full_vocabulary else ()
    sampling = measuring_params(
        model.capabilities.profile,
        max_tokens=1,
        top_logprobs=min(top, shown),
        default_temperature=1.0,
        seed=0,
        logits_processors=processors,
    )
    samples = await model.generate([Request(prompt=p, sampling=sampling) for p in prompts])
    return [_distribution(model, response[0]) for response in samples]


def _distribution(model: LiteLLMModel, completion: Completion) -> NextTokenDistribution:
    rows = completion.top_logprobs
    if not rows or not rows[0]:
        raise InvalidResponse(
            completion.failure.message if completion.failure else f"{model.target.endpoint} showed no alternatives"
        )
    tokens = rows[0]
    probe: Any = completion.extras.get("entropy_probe")
    logprobs = tuple(t.logprob for t in tokens)
    return NextTokenDistribution(
        token_ids=tuple(t.token_id for t in tokens),
        tokens=tuple(t.token for t in tokens),
        logprobs=logprobs,
        entropy=min_entropy(logprobs) if probe is None else probe["entropy"][0],
        support="top_k" if probe is None else "full",
        usage=completion.usage,
    )
