"""One sample on vLLM: its request, its tokens as they come, its text and its end.

Log-probabilities of a given continuation, with the prefix taken from vLLM's cache.

By default vLLM does not read its cache for a request that wants log-probabilities of its prompt. Told to, it returns
right values behind the cached part, and whatever lay in memory for the cached part itself: the value of token i is
valid if and only if i > number of cached tokens. And text must not be made of those, which would end the engine's
output. Hence the two flags always go together, and a result whose continuation was itself cached is thrown away.

The distribution of the next token on vLLM: one token is sampled for each prompt, and its alternatives are listed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ...core.errors import BackendError
from ...core.messages import (
    Chunk,
    Completion,
    Failure,
    FinishReason,
    LogitsProcessorSpec,
    NextTokenDistribution,
    Prompt,
    Request,
    SamplingParams,
    ScoredContinuation,
    TopToken,
    Usage,
)
from ..entropy import min_entropy
from ..local.tokenizer import TextAssembler, Tokenizer


async def outputs_of(
    engine: Any, ids: Sequence[int], params: Any, request_id: str, *, salt: str = ""
) -> AsyncGenerator[Any, None]:
    """Outputs of one request; leaving early, or being cancelled, aborts it.

    The generator must be closed (`aclosing`): only then is the abort immediate.

    Args:
        engine: vLLM's `AsyncLLM`.
        ids: Tokens of the prompt.
        params: vLLM's `SamplingParams`.
        request_id: A name that no other request has.
        salt: What it computes is reused by requests with the same one alone.
    """
    from contextlib import aclosing

    from vllm.inputs import TokensPrompt

    prompt = TokensPrompt(prompt_token_ids=list(ids), **({"cache_salt": salt} if salt else {}))
    async with aclosing(engine.generate(prompt, params, request_id)) as outputs:
        async for output in outputs:
            yield output


class Growing:
    """A sample while it is being generated.

    Args:
        request: Its request.
        position: Place of the request in the batch.
        index: Which sample of the request.
        prompt_ids: Tokens of the prompt.
        eos: Tokens that end a text.
        tokenizer: Makes the text.
    """

    def __init__(
        self,
        request: Request,
        position: int,
        index: int,
        prompt_ids: Sequence[int],
        eos: frozenset[int],
        tokenizer: Tokenizer,
    ) -> None:
        self._request, self._position, self._index = request, position, index
        self._prompt_tokens, self._eos, self._tokenizer = len(prompt_ids), eos, tokenizer
        self._text = TextAssembler(tokenizer, prompt_ids, request.sampling.stop)
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._tops: list[tuple[TopToken, ...]] = []
        self._cached = 0
        self._waited_s = 0.0
        self.reason: FinishReason | None = None

    def take(self, output: Any) -> Chunk:
        """Take the tokens of an output; `reason` is set once the sample has ended."""
        self._note_prompt(output)
        completion = output.outputs[0]
        listed = completion.logprobs or [None] * len(completion.token_ids)
        text, start = "", len(self._ids)
        for token, alternatives in zip(completion.token_ids, listed, strict=True):
            text += self._take(token, alternatives)
            if self.reason is not None:
                break
        if self.reason is None and completion.finish_reason is not None:
            self.reason = {"stop": "stop", "length": "length", "abort": "cancelled"}.get(  # type: ignore[assignment]
                completion.finish_reason, "error"
            )
        if self.reason is not None:
            text += self._text.finish()
            if self._text.stopped:
                self.reason = "stop"
        return Chunk(
            request=self._position,
            sample_index=self._index,
            text=text,
            token_ids=tuple(self._ids[start:]),
            logprobs=tuple(self._logprobs[start:]) if self._request.sampling.logprobs else (),
        )

    def _take(self, token: int, alternatives: Any) -> str:
        sampling = self._request.sampling
        self._ids.append(token)
        if alternatives is not None:
            self._logprobs.append(alternatives[token].logprob)
            if sampling.top_logprobs:
                self._tops.append(best(alternatives, sampling.top_logprobs, self._tokenizer))
        if token in self._eos and not sampling.ignore_eos:
            self.reason = "stop"
            return ""
        piece = self._text.push(token)
        if self._text.stopped:
            self.reason = "stop"
        return piece

    def _note_prompt(self, output: Any) -> None:
        self._cached = max(self._cached, output.num_cached_tokens or 0)
        metrics = output.metrics
        if metrics is not None and metrics.scheduled_ts and metrics.queued_ts:
            self._waited_s = max(0.0, metrics.scheduled_ts - metrics.queued_ts)

    def end(self, report: dict[str, Any] | None) -> Completion:
        """The completion.

        Args:
            report: What the hooks say of the sample; None if it had none.
        """
        failed = None if report is None else report["failure"]
        if failed is not None:
            return self.failed(Failure(code=failed[0], message=failed[1]), report)
        return self._completion(self.reason or "cancelled", None, report)

    def failed(self, failure: Failure, report: dict[str, Any] | None = None) -> Completion:
        """A sample that failed, as far as it got."""
        return self._completion("error", failure, report)

    def _completion(self, reason: FinishReason, failure: Failure | None, report: dict[str, Any] | None) -> Completion:
        sampling = self._request.sampling
        first = self._index == self._request.indices[0]
        return Completion(
            text=self._text.text,
            token_ids=tuple(self._ids),
            logprobs=tuple(self._logprobs) if sampling.logprobs else None,
            top_logprobs=tuple(self._tops) if sampling.top_logprobs else None,
            finish_reason=reason,
            stopped_by=self._text.stopped_by if reason == "stop" else None,
            usage=Usage(
                prompt_tokens=self._prompt_tokens if first else 0,
                cached_tokens=self._cached if first else 0,
                completion_tokens=len(self._ids),
                waited_s=self._waited_s if first else 0.0,
            ),
            sample_index=self._index,
            extras={} if report is None else report["extras"],
            failure=failure,
        )


def best(alternatives: Any, count: int, tokenizer: Tokenizer) -> tuple[TopToken, ...]:
    """The most likely tokens of one position of vLLM's log-probabilities, best first.

    The chosen token is listed too, though it may not be among the best.
    """
    ranked = sorted(alternatives.items(), key=lambda item: (item[1].rank, -item[1].logprob))[:count]
    return tuple(TopToken(token_id=i, token=tokenizer.token(i), logprob=entry.logprob) for i, entry in ranked)


VALUES = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}


def scoring_arguments(cached: bool) -> dict[str, Any]:
    """Arguments of `SamplingParams` that score a prompt.

    Args:
        cached: Whether the cache may be read.
    """
    return VALUES | {"skip_reading_prefix_cache": not cached}


def is_valid(output: Any, before: int) -> bool:
    """Whether the values of all tokens from position `before` on were computed."""
    return (output.num_cached_tokens or 0) < before


def scored(output: Any, ids: Sequence[int], before: int) -> ScoredContinuation:
    """The result.

    Args:
        output: vLLM's, valid from `before` on.
        ids: All tokens.
        before: Tokens that stand before the continuation, at least one.
    """
    entries = [output.prompt_logprobs[i][ids[i]] for i in range(before, len(ids))]
    return ScoredContinuation(
        token_ids=tuple(ids[before:]),
        logprobs=tuple(e.logprob for e in entries),
        greedy=all(e.rank == 1 for e in entries),
        usage=Usage(prompt_tokens=len(ids), cached_tokens=output.num_cached_tokens or 0),
    )


def asking(prompts: Sequence[Prompt], top: int, *, whole: bool) -> list[Request]:
    """Requests whose completions tell the distributions.

    Args:
        prompts: What stands before the token.
        top: Alternatives that are listed.
        whole: Whether a hook can measure the entropy over the whole vocabulary.
    """
    hooks = (LogitsProcessorSpec(name="entropy_probe"),) if whole else ()
    sampling = SamplingParams(temperature=0, max_tokens=1, top_logprobs=top, hooks=hooks, ignore_eos=True)
    return [Request(prompt=p, sampling=sampling) for p in prompts]


def distribution(completion: Completion) -> NextTokenDistribution:
    """What such a completion tells.

    Raises:
        BackendError: It failed, or lists nothing.
    """
    if completion.failure is not None or not completion.top_logprobs:
        raise BackendError(f"vLLM returned no distribution: {completion.failure}")
    top = completion.top_logprobs[0]
    probe: Any = completion.extras.get("entropy_probe")
    logprobs = tuple(t.logprob for t in top)
    return NextTokenDistribution(
        token_ids=tuple(t.token_id for t in top),
        tokens=tuple(t.token for t in top),
        logprobs=logprobs,
        entropy=min_entropy(logprobs) if probe is None else probe["entropy"][0],
        support="top_k" if probe is None else "full",
        usage=completion.usage.model_copy(update={"completion_tokens": 0}),
    )
