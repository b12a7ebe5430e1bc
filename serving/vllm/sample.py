"""One sample on vLLM: its request, its tokens as they come, its text and its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ...core.messages import Chunk, Completion, Failure, FinishReason, Request, TopToken, Usage
from ..local.text import TextAssembler, Tokenizer


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
