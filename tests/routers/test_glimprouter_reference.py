"""`glimprouter` against an independent implementation: a plain loop over the same responses and distributions."""

import math
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reason.core.messages import Chunk, Completion, Thought, TopToken, Usage
from reason.routers.transcript import alternates
from reason.serving.model import Capabilities
from support.scripted_model import THINKS
from support.two_models import TwoModels, texts

LIMIT = 24


class Canned:
    """A server that says the same at the n-th step whatever came before: a text, and the likely tokens of a probe."""

    def __init__(self, name, steps, tops=()):
        self.name, self.identity, self.steps, self.tops = name, f"{name}@1", steps, tops
        self.capabilities = Capabilities(top_logprobs=20, logprobs=True, prefix=True, profile=THINKS)

    def count_tokens(self, prompt):
        return 1

    def step(self, n):
        """Text and tokens of the n-th step, which stops at a blank line."""
        text = self.steps[n % len(self.steps)]
        return text, 1 + len(text.split())

    def probe(self, n):
        return self.tops[n % len(self.tops)]

    async def generate(self, requests, listener=None):
        made = []
        for i, request in enumerate(requests):
            n = request.prompt.thought.text.count("\n\n")
            if request.sampling.thinking_tokens == 1:
                top = tuple(TopToken(token_id=j, token=t, logprob=v) for j, (t, v) in enumerate(self.probe(n)))
                thought = Thought(text=top[0].token, tokens=1, closed=False)
                done = Completion(
                    text="",
                    thought=thought,
                    finish_reason="thinking",
                    top_logprobs=(top,),
                    usage=Usage(completion_tokens=1, thinking_tokens=1),
                )
            else:
                text, tokens = self.step(n)
                thought, closes, _ = text.partition("</think>")
                done = Completion(
                    text="",
                    thought=Thought(text=thought, tokens=tokens, closed=bool(closes)),
                    finish_reason="stop",
                    stop_reason="\n\n",
                    usage=Usage(completion_tokens=tokens, thinking_tokens=tokens),
                )
            if listener is not None:
                listener(Chunk(request=i, completion=done))
            made.append([done])
        return made


def reference(small, large, threshold):
    """Source: the main loop of Zeng et al. 2026, arXiv:2601.05110, read again and written straight down."""
    written, used = [], 0
    while True:
        shown = sorted((math.exp(v) for _, v in small.probe(len(written))), reverse=True)[:20]
        shares = [p / sum(shown) for p in shown]
        entropy = sum(-q * math.log(q) for q in shares if q > 0)
        writer = "large" if entropy >= threshold else "small"
        text, tokens = (large if writer == "large" else small).step(len(written))
        written.append((writer, text))
        used += tokens
        if "</think>" in text:
            break
        if len(written) > 2 and written[-1][1] == written[-2][1]:
            break
        if used >= LIMIT:
            break
    return written


TEXTS = st.lists(
    st.sampled_from(["so", "then two", "wait", "then a few more words", "done</think>", "x = 1\ny = 2"]),
    min_size=1,
    max_size=7,
)
TOPS = st.lists(
    st.lists(st.floats(-12, 0), min_size=1, max_size=24).map(
        lambda vs: [(str(i), v) for i, v in enumerate(sorted(vs, reverse=True))]
    ),
    min_size=1,
    max_size=7,
)


async def compared(store, name, small, large, threshold):
    harness = TwoModels(store, small, large)
    made = await harness.solve(name, threshold=threshold, thinking_tokens=LIMIT)
    expected = reference(small, large, threshold)
    expected = [(who, text.removesuffix("</think>")) for who, text in expected]
    said = [text for _, text in expected]
    # the check for alternating steps is ours
    end = next((n for n in range(4, len(said)) if alternates(said[:n])), len(said))
    assert texts(made) == expected[:end]
    assert re.match("closed|repeated|alternating|tokens", made.notes["ended"])


async def test_models_and_texts_match_the_reference(store):
    named = iter(range(10**6))

    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(TEXTS, TEXTS, TOPS, st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.8, 2.9]))
    def compare(small, large, tops, threshold):
        cases.append((Canned("small", small, tops), Canned("large", large), threshold))

    cases = []
    compare()
    for small, large, threshold in cases:
        await compared(store, f"r{next(named)}", small, large, threshold)


async def test_entropy_at_the_threshold_routes_to_the_large_model(store):
    certain = [[("a", 0.0)]]
    await compared(store, "tie", Canned("small", ["one", "two"], certain), Canned("large", ["a", "b", "c"]), 0.0)
    even = [[(str(i), -3.0) for i in range(20)]]
    assert reference(Canned("small", ["one"], even), Canned("large", ["two"]), 2.9)[0][0] == "large"
