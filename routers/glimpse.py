"""`Glimpser`: what the small model would begin the next step with, and how uncertain it is of that.

The probe is a request for one token. It changes nothing: its token is thrown away, unless it was sampled as the step's
own first token would be (`reuse`). Log-probabilities are of the raw distribution wherever they come from, so the
temperature of the steps has no part in the entropy.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110: the entropy over the whole vocabulary, for which their
program takes the 20 likeliest tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..core.errors import BadReply, CapabilityMissing
from ..core.messages import Completion, HookCall, Prompt, Request, Sampling
from ..core.run import Run
from ..serving.model import Capabilities
from .entropy import covered_mass, plug_in_entropy, top_k_entropy
from .pen import Pen
from .thresholds import EntropyKind

EntropyChoice = Literal["auto", "full", "top_k", "sampled"]

TOP = 20
"""Tokens that a top-k entropy is of."""
HOOK = "entropy_probe"


@dataclass(frozen=True, slots=True)
class Glimpse:
    """How uncertain the first token of a step is.

    Attributes:
        entropy: In nats, at least 0.
        kind: Over the whole vocabulary, over the k likeliest tokens, or estimated from k samples of one token.
        k: Tokens or samples; 0 of the whole vocabulary.
        mass: Probability of the tokens that it is of; None of a sampled one.
    """

    entropy: float
    kind: EntropyKind
    k: int
    mass: float | None


def entropy_kind(choice: EntropyChoice, can: Capabilities, model: str) -> EntropyKind:
    """The kind of entropy that a model shows, the most exact one if any will do.

    Args:
        choice: Which one is wanted.
        can: What the model can do.
        model: Its name.

    Raises:
        CapabilityMissing: It does not show the one that is wanted.
    """
    full, top = HOOK in can.hooks, can.top_logprobs >= TOP
    if choice == "full" and not full:
        raise CapabilityMissing(f"hook {HOOK}", model)
    if choice == "top_k" and not top:
        raise CapabilityMissing("top_logprobs", model)
    if choice != "auto":
        return choice
    return "full" if full else "top_k" if top else "sampled"


class Glimpser:
    """Asks the small model for first tokens.

    Args:
        pen: The small model.
        run: The run; it is told where an entropy is only estimated.
        choice: Which kind of entropy is wanted.
        samples: Samples of a sampled entropy.

    Attributes:
        kind: The kind that it is.
        k: Its tokens or samples; 0 of the whole vocabulary.

    Raises:
        CapabilityMissing: The model does not show the kind that is wanted.
    """

    def __init__(self, pen: Pen, run: Run, choice: EntropyChoice, samples: int) -> None:
        self._pen = pen
        self.kind: EntropyKind = entropy_kind(choice, pen.model.capabilities, pen.model.name)
        self.k = {"full": 0, "top_k": TOP, "sampled": samples}[self.kind]
        if self.kind == "sampled" and choice == "auto":
            run.degrade(
                f"entropy=sampled({samples}): {pen.model.name} shows no likely tokens; first tokens were sampled"
            )

    @property
    def samples(self) -> int:
        """Tokens that a probe generates."""
        return self.k if self.kind == "sampled" else 1

    def request(self, prompt: Prompt, own: Request | None = None) -> Request:
        """What asks for the first token.

        Args:
            prompt: The step's own prompt.
            own: The step's request, where the probe's token is to be its first one; not for a sampled entropy.
        """
        if self.kind == "sampled":
            seed = self._pen.probes.seed(prompt)
            many = Sampling(temperature=1.0, max_tokens=1, n=self.k, seed=seed, logprobs=False)
            return Request(prompt=prompt, sampling=many, samples=self._pen.probes.take(prompt, self.k))
        shown: dict[str, object] = {"max_tokens": 1}
        if self.kind == "full":
            shown["hooks"] = (HookCall(name=HOOK, args={"first": 1}),)
        else:
            shown |= {"top_logprobs": TOP, "logprobs": True}
        if own is not None:
            return own.model_copy(update={"sampling": own.sampling.model_copy(update=shown)})
        greedy = Sampling(temperature=0.0, logprobs=False)
        return Request(prompt=prompt, sampling=greedy.model_copy(update=shown))

    def read(self, completions: Sequence[Completion]) -> Glimpse:
        """The entropy that a probe's samples show.

        Raises:
            BadReply: They do not show it.
        """
        try:
            return self._read(completions)
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise BadReply(f"{self._pen.model.name} was asked for one token and showed nothing of its entropy") from e

    def _read(self, completions: Sequence[Completion]) -> Glimpse:
        first = completions[0]
        if self.kind == "full":
            report = first.extras[HOOK]
            if not isinstance(report, dict):
                raise TypeError("the hook reported nothing")
            entropies = report["entropy"]
            if not isinstance(entropies, list):
                raise TypeError("the hook reported no list")
            value = entropies[0]
            if not isinstance(value, float | int):
                raise TypeError("the hook reported no number")
            return Glimpse(max(0.0, float(value)), "full", 0, 1.0)
        if self.kind == "top_k":
            top = [] if first.top_logprobs is None else [token.logprob for token in first.top_logprobs[0]][:TOP]
            return Glimpse(top_k_entropy(top), "top_k", TOP, covered_mass(top))
        drawn = Counter(c.token_ids[:1] or c.text for c in completions)
        return Glimpse(plug_in_entropy(drawn.values()), "sampled", self.k, None)
