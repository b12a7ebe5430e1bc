"""GlimpRouter: a small model writes the easy steps of a chain and a large one the hard ones, decided by one token.

    before each step   H = entropy of the small model's first token
                       the large model writes the step if H >= threshold, else the small one

Source: Zeng, Zhang, Shi, Hu, Chen, Shen, Gu, "GlimpRouter: Efficient Collaborative Inference by Glimpsing One Token of
Thoughts" (Findings of ACL 2026, arXiv:2601.05110), whose program takes the entropy over the 20 most likely tokens.
Differs: the probe and the small model's step are sent together; with a threshold of the user's own, the entropy is over
the complete vocabulary where the engine exposes it, as in the paper's definition; a step longer than its maximum tokens
is continued; further endings for models without thinking tags.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ..core.errors import CapabilityMissing, DataError, InvalidResponse, ReasonError, UserError
from ..core.messages import Chunk, Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.stability import Stability
from ..core.types import Question, Solution
from ..reasoning.limits import MAX_WEIGHT
from ..reasoning.strategy import Models, Thinking
from ..serving.entropy import EntropyKind, covered_mass, plug_in_entropy, top_k_entropy
from ..serving.model import Capabilities, Feature
from .router_files import GlimpRouterFile, file_of_digest, load_glimprouter_file, scale
from .stepwise import (
    AccountedSamples,
    ModelClient,
    RoutingContext,
    RoutingDecision,
    StepDraft,
    StepPolicy,
    StepwiseConfig,
    StepwiseSolver,
    is_closed,
    written_text,
)
from .transcript import Writer

RoutingPolicy = Literal["entropy", "large", "small", "random"]
ProbeMode = Literal["speculative", "separate", "reuse"]
EntropyChoice = Literal["auto", "full", "top_k", "sampled"]

TOP_K: Final = 20
"""Number of tokens of a top-k entropy."""

DEFAULT_THRESHOLD: Final = 1.0
"""Threshold of the authors' program, in nats: of entropies over the 20 most likely tokens, and of no other kind."""

PROBE: Final = "entropy_probe"
"""The logits processor that measures the entropy over the complete vocabulary."""

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class GlimpRouter:
    """`glimprouter`: each step by the small model or the large one, by the entropy of its first token.

    Requests: for a step of the small model a probe and the step, together in one call; for a step of the large model a
    probe and the start of the small model's step, which is cancelled once the entropy is known and discarded, and the
    step. With `probe=separate` nothing is discarded, and each step costs another round trip. The answer is one more
    request, unless the writer of the last step is to answer and has stated the answer.

    The threshold depends on the two models and on the kind of entropy; `reason calibrate router` fits one on other
    problems. The default is the authors' program's, of entropies over 20 tokens; if it is compared with another kind,
    the answer reports it. The policies other than "entropy" compute no entropy; they are baselines.

    Of models that think, the steps are those of the thought, as in the paper, and the entropy is that of the first
    token of a step of it.
    """

    name: ClassVar[str] = "glimprouter"
    summary: ClassVar[str] = "a small model writes the steps whose first token it is sure of, a large one the others"
    paper: ClassVar[str] = "Zeng et al. 2026, arXiv:2601.05110"
    confidence: ClassVar[str] = "It has none: the entropies choose the writers and do not judge the answer."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small")
    thinking: ClassVar[Thinking] = "thought"

    class Config(StepwiseConfig):
        """Parameters of `glimprouter`."""

        policy: Annotated[
            RoutingPolicy,
            Field(description="what chooses the writer: the first token's entropy, a fixed model, or chance"),
        ] = "entropy"
        threshold: Annotated[
            float | None,
            Field(
                ge=0,
                le=MAX_WEIGHT,
                allow_inf_nan=False,
                description="entropy in nats from which the large model writes the step; by default 1, which is of the "
                "20 most likely tokens",
            ),
        ] = None
        strict: Annotated[bool, Field(description="whether a step at the threshold is written by the small model")] = (
            False
        )
        entropy: Annotated[
            EntropyChoice,
            Field(
                description="over the complete vocabulary, over the 20 most likely tokens, or estimated from samples; "
                "auto is the most exact one that the small model supports, and with the default threshold the one "
                "that it is of"
            ),
        ] = "auto"
        samples: Annotated[int, Field(ge=2, le=256, description="number of samples of a sampled entropy")] = 8
        probe: Annotated[
            ProbeMode,
            Field(
                description="when the first token is probed: while the small model writes its step, before it, or as "
                "the first token of the step"
            ),
        ] = "speculative"
        router: Annotated[str, Field(description="file of `reason calibrate router` that contains the threshold")] = ""
        rate: Annotated[
            float | None,
            Field(ge=0, le=1, description="share of steps for the large model, by the router's file or by chance"),
        ] = None
        router_digest: Annotated[
            str, Field(description="digest of the router's file, set automatically: a run resumes with no other")
        ] = ""

        @model_validator(mode="before")
        @classmethod
        def _take_threshold(cls, parameters: Any) -> Any:
            """Take the threshold from the file: a file may be replaced, so its digest and threshold are recorded."""
            if not isinstance(parameters, Mapping) or not parameters.get("router") or parameters.get("router_digest"):
                return parameters
            if parameters.get("threshold") is not None:
                raise ValueError("give either a threshold or a router file")
            try:
                file = load_glimprouter_file(Path(str(parameters["router"])).expanduser())
            except DataError:
                return parameters  # raised by `solve`
            rate = parameters.get("rate")
            threshold = file.threshold if rate is None else file.threshold_for(float(rate))
            return {"strict": file.strict, **parameters, "threshold": threshold, "router_digest": file.digest}

        @model_validator(mode="after")
        def _check(self) -> Self:
            if self.policy == "random" and self.rate is None:
                raise ValueError("the policy random needs a rate")
            if self.policy == "entropy" and self.rate is not None and not self.router:
                raise ValueError("a rate needs a router file, which maps it to a threshold")
            if self.router and self.policy != "entropy":
                raise ValueError(f"the policy {self.policy} takes no router file")
            if self.probe == "reuse" and self.entropy == "sampled":
                raise ValueError("probe=reuse needs the entropy of one token; a sampled entropy draws several")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`.

        Raises:
            DataError: The router's file cannot be read.
            UserError: It is not the file that the run started with, or was fitted for other models.
            CapabilityMissing: The small model does not support the requested kind of entropy.
        """
        config = self.config
        file = self._router_file() if config.router else None
        only: Writer | None = config.policy if config.policy in ("large", "small") else None
        writers: frozenset[Writer] = frozenset(("large", "small") if only is None else (only,))
        context = RoutingContext(config, question, models, run, writers)
        policy = self._policy(context, models, file)
        answer_writer: Writer | None = "small" if only == "small" else None if config.answer == "writer" else "large"
        return await StepwiseSolver(context, policy, answer_writer, default=only or "small").solve()

    def _policy(self, context: RoutingContext, models: Models, file: GlimpRouterFile | None) -> StepPolicy:
        if self.config.policy != "entropy":
            return _FixedPolicy(context, self.config)
        policy = _EntropyPolicy(context, self.config)
        if file is not None:
            file.check_models(
                small=models.small.identity,
                large=models.main.identity,
                entropy=policy.kind,
                k=policy.probe.k,
                in_thought=context.in_thought,
            )
            if differences := file.differences(self.config.model_dump(mode="json")):
                context.run.degrade(differences)
        return policy

    def _router_file(self) -> GlimpRouterFile:
        config = self.config
        file = file_of_digest(config.router, config.router_digest, load_glimprouter_file)
        if not config.router_digest:
            raise UserError(
                f"the router file {config.router} did not exist when the run started", hint="start another run"
            )
        return file


class _FixedPolicy:
    """The baselines: always the same model, or one by chance."""

    def __init__(self, context: RoutingContext, config: GlimpRouter.Config) -> None:
        self._context, self._config = context, config

    async def next_step(self, index: int) -> RoutingDecision:
        writer = self._writer(index)
        return RoutingDecision(await self._context.generators[writer].write(), writer, self._config.policy)

    def _writer(self, index: int) -> Writer:
        config = self._config
        if config.policy in ("large", "small"):
            return config.policy
        seed = self._context.run.derive_seed("routed", index)
        return "large" if random.Random(seed).random() < (config.rate or 0.0) else "small"  # noqa: S311 (reproducible)

    def notes(self) -> dict[str, JsonValue]:
        return {
            "policy": self._config.policy,
            "threshold": None,
            "strict": False,
            "probe": None,
            "entropy_kind": None,
            "k": 0,
        }


class _EntropyPolicy:
    """The entropy of the small model's first token chooses the writer."""

    def __init__(self, context: RoutingContext, config: GlimpRouter.Config) -> None:
        self._context, self._config = context, config
        self._small = context.generators["small"]
        client, is_default = self._small.client, config.threshold is None
        choice = config.entropy
        if choice == "auto" and is_default and client.model.capabilities.top_logprobs >= TOP_K:
            choice = "top_k"
        self.probe = FirstTokenProbe(client, context.run, choice, config.samples)
        self.kind: EntropyKind = self.probe.kind
        self._threshold = DEFAULT_THRESHOLD if config.threshold is None else config.threshold
        if is_default and self.kind != "top_k":
            context.run.degrade(
                f"threshold={DEFAULT_THRESHOLD:g}: the default is of {scale('top_k', TOP_K)} entropies, and those of "
                f"this run are {scale(self.kind, self.probe.k)} ones, another scale; reason calibrate router finds a "
                "threshold for them"
            )
        self._mode: ProbeMode = config.probe
        if config.probe == "reuse" and self.kind == "sampled":
            context.run.degrade("probe=separate: a sampled entropy draws several tokens, none of which is the step's")
            self._mode = "separate"

    async def next_step(self, index: int) -> RoutingDecision:
        probes = self.probe.num_tokens
        step = self._small.request(calls=2, probes=probes)
        if step is None:
            return self._decision(StepDraft(ended="context"), "small", None)
        first: AccountedSamples | None
        if self._mode == "speculative" and self._context.sends_together(step.sampling.total_tokens, probes):
            entropy, first = await self._probe_with_step(step)
        else:
            entropy, first, step = await self._probe_alone(step)
        if self._is_large(entropy):
            return self._decision(await self._context.generators["large"].write(), "large", entropy)
        return self._decision(await self._small.write(first, step), "small", entropy)

    async def _probe_with_step(self, step: Request) -> tuple[FirstTokenEntropy, AccountedSamples | None]:
        """Send the probe and the step in one call; the step is cancelled if the large model is to write it."""
        probe = self.probe.request(step.prompt)
        enough = asyncio.Event()
        finished: list[Completion] = []

        def on_chunk(chunk: Chunk) -> None:
            if chunk.request == 0 and chunk.completion is not None:
                finished.append(chunk.completion)
                if len(finished) == len(probe.indices) and self._cancels_step(finished):
                    enough.set()

        client, accounting = self._small.client, self._context.accounting
        (_, probes), first = await client.send(
            "step", [probe, step], written=self._context.transcript.tokens, listener=on_chunk, enough=enough
        )
        try:
            entropy = self._read(probes)
        except ReasonError:
            accounting.set_purpose("discarded", [first[0]])
            raise
        if self._is_large(entropy):
            accounting.set_purpose("discarded", [first[0]])
            return entropy, None
        return entropy, first

    async def _probe_alone(self, step: Request) -> tuple[FirstTokenEntropy, AccountedSamples | None, Request]:
        """Send the probe first; its token starts the step where it is reused and its text is complete.

        Returns:
            The entropy; the first sample of the step, None if there is none; and the request of that sample.
        """
        reuses = self._mode == "reuse"
        probe = self.probe.request(step.prompt, step if reuses else None)
        (samples,) = await self._small.client.send("probe", [probe], written=self._context.transcript.tokens)
        entry, probes = samples
        entropy = self._read(probes)
        in_thought = self._context.in_thought
        text = written_text(probes[0], in_thought=in_thought)
        has_ended = probes[0].finish_reason == "stop" or (in_thought and is_closed(probes[0]))
        is_complete = has_ended or (text.strip("\n") != "" and _REPLACEMENT not in text)
        if not reuses or not is_complete or self._is_large(entropy):
            return entropy, None, step
        self._context.accounting.set_purpose("step", [entry])
        return entropy, samples, probe

    def _read(self, probes: Sequence[Completion]) -> FirstTokenEntropy:
        if any(probe.finish_reason in ("cancelled", "budget") for probe in probes):  # also in a replay
            raise self._context.run.ledger.exceeded("seconds")
        return self.probe.read(probes)

    def _cancels_step(self, probes: Sequence[Completion]) -> bool:
        try:
            return self._is_large(self._read(probes))
        except ReasonError:  # raised again outside the listener
            return True

    def _is_large(self, entropy: FirstTokenEntropy) -> bool:
        return entropy.nats > self._threshold if self._config.strict else entropy.nats >= self._threshold

    def _decision(self, draft: StepDraft, writer: Writer, entropy: FirstTokenEntropy | None) -> RoutingDecision:
        return RoutingDecision(
            draft,
            writer,
            "entropy",
            entropy=None if entropy is None else entropy.nats,
            mass=None if entropy is None else entropy.mass,
            threshold=self._threshold,
            kind=self.kind,
        )

    def notes(self) -> dict[str, JsonValue]:
        return {
            "policy": self._config.policy,
            "threshold": self._threshold,
            "strict": self._config.strict,
            "probe": self._mode,
            "entropy_kind": self.kind,
            "k": self.probe.k,
        }


@dataclass(frozen=True, slots=True)
class FirstTokenEntropy:
    """Entropy of the first token of a step.

    Attributes:
        nats: The entropy, at least 0.
        mass: Probability mass of the tokens that it is computed from; None if it is sampled.
    """

    nats: float
    mass: float | None


def entropy_kind(choice: EntropyChoice, capabilities: Capabilities, model: str) -> EntropyKind:
    """The kind of entropy that a model supports; for "auto" the most exact one.

    Raises:
        CapabilityMissing: The model does not support the chosen one.
    """
    has_full, has_top = PROBE in capabilities.logits_processors, capabilities.top_logprobs >= TOP_K
    if choice == "full" and not has_full:
        raise CapabilityMissing(f"logits processor {PROBE}", model)
    if choice == "top_k" and not has_top:
        raise CapabilityMissing("top_logprobs", model)
    if choice != "auto":
        return choice
    return "full" if has_full else "top_k" if has_top else "sampled"


class FirstTokenProbe:
    """Requests for the small model's first token, and the entropy in their completions.

    A probe does not change the transcript: its token is discarded, unless it was sampled as the step's own first token
    (`probe=reuse`). Log-probabilities are of the raw distribution, so the temperature of the steps does not affect the
    entropy.

    Args:
        samples: Samples of a sampled entropy.

    Attributes:
        k: Tokens or samples that the entropy is computed from; 0 for the complete vocabulary.

    Raises:
        CapabilityMissing: The model does not support the chosen kind.
    """

    def __init__(self, client: ModelClient, run: Run, choice: EntropyChoice, samples: int) -> None:
        self._client = client
        self.kind: EntropyKind = entropy_kind(choice, client.model.capabilities, client.model.name)
        self.k = {"full": 0, "top_k": TOP_K, "sampled": samples}[self.kind]
        if self.kind == "sampled" and choice == "auto":
            run.degrade(
                f"entropy=sampled({samples}): {client.model.name} has no top log-probabilities; "
                "first tokens were sampled"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens that a probe generates."""
        return self.k if self.kind == "sampled" else 1

    def request(self, prompt: Prompt, step: Request | None = None) -> Request:
        """A request for the first token after a prompt.

        Args:
            prompt: The step's own prompt.
            step: The step's request, whose first token the probe's is to be; not for a sampled entropy.
        """
        in_thought = self._client.in_thought
        length: dict[str, Any] = {"max_tokens": 1}
        length |= {"thinking_tokens": 1} if in_thought else {"effort": "none"}
        if self.kind == "sampled":
            seed = self._client.probes.seed(prompt)
            takes_temperature = not self._client.model.profile.refused("temperature", thinking=in_thought)
            temperature = 1.0 if takes_temperature else None
            sampling = SamplingParams(temperature=temperature, n=self.k, seed=seed, **length)
            return Request(
                prompt=prompt, sampling=sampling, sample_indices=self._client.probes.take_indices(prompt, self.k)
            )
        measured: dict[str, Any] = length
        if self.kind == "full":
            measured["logits_processors"] = (LogitsProcessorSpec(name=PROBE, args={"first": 1}),)
        else:
            measured |= {"top_logprobs": TOP_K, "logprobs": True}
        if step is not None:
            return step.model_copy(update={"sampling": step.sampling.model_copy(update=measured)})
        return Request(prompt=prompt, sampling=SamplingParams(default_temperature=0.0, **measured))

    def read(self, completions: Sequence[Completion]) -> FirstTokenEntropy:
        """The entropy that the samples of a probe report.

        Raises:
            InvalidResponse: They do not report it.
        """
        try:
            return self._read(completions)
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise InvalidResponse(f"{self._client.model.name} returned a probe without its entropy") from e

    def _read(self, completions: Sequence[Completion]) -> FirstTokenEntropy:
        first = completions[0]
        if self.kind == "full":
            report: Any = first.extras[PROBE]
            entropy = report["entropy"][0]
            if not isinstance(entropy, float | int):
                raise TypeError("the logits processor reported no number")
            return FirstTokenEntropy(max(0.0, float(entropy)), 1.0)
        if self.kind == "top_k":
            top = [] if first.top_logprobs is None else [token.logprob for token in first.top_logprobs[0]][:TOP_K]
            return FirstTokenEntropy(top_k_entropy(top), covered_mass(top))
        counts = Counter(
            c.token_ids[:1] or (written_text(c, in_thought=self._client.in_thought), c.text) for c in completions
        )
        return FirstTokenEntropy(plug_in_entropy(counts.values()), None)
