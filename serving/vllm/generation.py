"""One request to vLLM's engine and what its outputs become: completions, scores, next-token distributions.

Scoring. By default vLLM does not read its cache for a request that needs log-probabilities of its prompt. With
`skip_reading_prefix_cache=False` it returns right values after the cached part, and arbitrary memory for the cached
part itself: the value of token i is valid if and only if i > number of cached tokens. And those must not be
detokenized, which would end the engine's output. Hence the two flags always go together, and a result whose
continuation was itself cached is discarded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
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
from ..entropy import token_distribution
from ..local.response import ResponseAssembler
from ..local.tokenizer import Tokenizer
from ..thoughts import SplitText

SCORING_ARGUMENTS = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}


async def stream_outputs(
    engine: Any, token_ids: Sequence[int], params: Any, request_id: str, *, salt: str = ""
) -> AsyncGenerator[Any, None]:
    """Outputs of one request; leaving early, or being cancelled, aborts it.

    The generator must be closed (`aclosing`): only then is the abort immediate.

    Args:
        salt: Only requests with the same one reuse what it computes.
    """
    from vllm.inputs import TokensPrompt

    prompt = TokensPrompt(prompt_token_ids=list(token_ids), **({"cache_salt": salt} if salt else {}))
    async with aclosing(engine.generate(prompt, params, request_id)) as outputs:
        async for output in outputs:
            yield output


async def last_output(engine: Any, token_ids: Sequence[int], params: Any, request_id: str, *, salt: str = "") -> Any:
    """The last output of a request; None if there was none. Arguments as for `stream_outputs`."""
    last: Any = None
    async with aclosing(stream_outputs(engine, token_ids, params, request_id, salt=salt)) as outputs:
        async for output in outputs:
            last = output
    return last


class CompletionBuilder:
    """A sample while it is being generated.

    Args:
        is_open: Whether the response begins inside a thought.
    """

    def __init__(
        self,
        request: Request,
        position: int,
        index: int,
        prompt_ids: Sequence[int],
        eos: frozenset[int],
        tokenizer: Tokenizer,
        *,
        is_open: bool = False,
    ) -> None:
        self._request, self._position, self._index = request, position, index
        self._num_prompt, self._eos, self._tokenizer = len(prompt_ids), eos, tokenizer
        self._text = ResponseAssembler(tokenizer, request, prompt_ids, is_open=is_open)
        self._token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._top_logprobs: list[tuple[TopToken, ...]] = []
        self._num_cached = 0
        self._waited_s = 0.0
        self.finish_reason: FinishReason | None = None

    def add(self, output: Any) -> Chunk:
        """Take the tokens of an output; `finish_reason` is set once the sample has ended."""
        self._add_prompt_stats(output)
        completion = output.outputs[0]
        logprobs = completion.logprobs or [None] * len(completion.token_ids)
        thought, text, start = "", "", len(self._token_ids)
        for token, alternatives in zip(completion.token_ids, logprobs, strict=True):
            piece = self._add_token(token, alternatives)
            thought, text = thought + piece.thought, text + piece.answer
            if self.finish_reason is not None:
                break
        if self.finish_reason is None and completion.finish_reason is not None:
            self.finish_reason = {"stop": "stop", "length": "length", "abort": "cancelled"}.get(  # type: ignore[assignment]
                completion.finish_reason, "error"
            )
        if self.finish_reason is not None:
            thought, text = self._text.finish(SplitText(thought, text))
            if self._text.stopped:
                self.finish_reason = "stop"
            elif self.finish_reason in ("stop", "length") and self._text.is_unfinished:
                self.finish_reason = "thinking"
        return Chunk(
            request=self._position,
            sample_index=self._index,
            text=text,
            thought=thought,
            token_ids=tuple(self._token_ids[start:]),
            logprobs=tuple(self._logprobs[start:]) if self._request.sampling.logprobs else (),
        )

    def _add_token(self, token: int, alternatives: Any) -> SplitText:
        sampling = self._request.sampling
        self._token_ids.append(token)
        if alternatives is not None:
            self._logprobs.append(alternatives[token].logprob)
            if sampling.top_logprobs:
                self._top_logprobs.append(top_tokens(alternatives, sampling.top_logprobs, self._tokenizer))
        if token in self._eos and not sampling.ignore_eos:
            self.finish_reason = "stop"
            return self._text.push_end()
        piece = self._text.push(token)
        self.finish_reason = "stop" if self._text.stopped else self._text.limit()
        return piece

    def _add_prompt_stats(self, output: Any) -> None:
        self._num_cached = max(self._num_cached, output.num_cached_tokens or 0)
        metrics = output.metrics
        if metrics is not None and metrics.scheduled_ts and metrics.queued_ts:
            self._waited_s = max(0.0, metrics.scheduled_ts - metrics.queued_ts)

    def build(self, report: dict[str, Any] | None) -> Completion:
        """The completion; `report` is that of the logits processors, None if the sample had none."""
        failure = None if report is None else report["failure"]
        if failure is not None:
            return self.build_failed(Failure(code=failure[0], message=failure[1]), report)
        return self._build(self.finish_reason or "cancelled", None, report)

    def build_failed(self, failure: Failure, report: dict[str, Any] | None = None) -> Completion:
        """A failed sample, as far as it got."""
        return self._build("error", failure, report)

    def _build(self, reason: FinishReason, failure: Failure | None, report: dict[str, Any] | None) -> Completion:
        sampling = self._request.sampling
        is_first = self._index == self._request.indices[0]
        thought = self._text.thought
        return Completion(
            text=self._text.text,
            token_ids=tuple(self._token_ids),
            logprobs=tuple(self._logprobs) if sampling.logprobs else None,
            top_logprobs=tuple(self._top_logprobs) if sampling.top_logprobs else None,
            finish_reason=reason,
            stop_reason=self._text.stop_reason if reason == "stop" else None,
            usage=Usage(
                prompt_tokens=self._num_prompt if is_first else 0,
                cached_tokens=self._num_cached if is_first else 0,
                completion_tokens=len(self._token_ids),
                thinking_tokens=0 if thought is None else thought.tokens,
                waited_s=self._waited_s if is_first else 0.0,
            ),
            sample_index=self._index,
            thought=thought,
            answer_from=self._text.answer_from,
            extras={} if report is None else report["extras"],
            failure=failure,
        )


def top_tokens(alternatives: Any, count: int, tokenizer: Tokenizer) -> tuple[TopToken, ...]:
    """The most likely tokens of one position of vLLM's log-probabilities, best first.

    vLLM lists the sampled token too, though it may not be among the best.
    """
    ranked = sorted(alternatives.items(), key=lambda item: (item[1].rank, -item[1].logprob))[:count]
    return tuple(TopToken(token_id=i, token=tokenizer.token(i), logprob=entry.logprob) for i, entry in ranked)


# --- Scoring


def scoring_arguments(read_cache: bool) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams` that score a prompt."""
    return SCORING_ARGUMENTS | {"skip_reading_prefix_cache": not read_cache}


def is_valid_score(output: Any, num_context: int) -> bool:
    """Whether the values of all tokens from position `num_context` on were computed."""
    return (output.num_cached_tokens or 0) < num_context


def scored_continuation(output: Any, token_ids: Sequence[int], num_context: int) -> ScoredContinuation:
    """The score of the tokens from position `num_context` on, which is at least 1, by a valid output."""
    entries = [output.prompt_logprobs[i][token_ids[i]] for i in range(num_context, len(token_ids))]
    return ScoredContinuation(
        token_ids=tuple(token_ids[num_context:]),
        logprobs=tuple(e.logprob for e in entries),
        is_greedy=all(e.rank == 1 for e in entries),
        usage=Usage(prompt_tokens=len(token_ids), cached_tokens=output.num_cached_tokens or 0),
    )


# --- Next-token distributions: one token is sampled for each prompt, and its alternatives are listed


def next_token_requests(prompts: Sequence[Prompt], top: int) -> list[Request]:
    """Requests whose completions report the distributions."""
    sampling = SamplingParams(
        temperature=0,
        max_tokens=1,
        effort="none",
        thinking_tokens=1,
        top_logprobs=top,
        logits_processors=(LogitsProcessorSpec(name="entropy_probe"),),
        ignore_eos=True,
    )
    return [Request(prompt=p, sampling=sampling) for p in prompts]


def next_token_distribution(completion: Completion) -> NextTokenDistribution:
    """The distribution that such a completion reports.

    Raises:
        BackendError: It failed, or lists nothing.
    """
    if completion.failure is not None or not completion.top_logprobs:
        raise BackendError(f"vLLM returned no distribution: {completion.failure}")
    unpaid = completion.model_copy(update={"usage": completion.usage.model_copy(update={"completion_tokens": 0})})
    return token_distribution(completion.top_logprobs[0], unpaid)
