"""GlimpRouter: a small model writes the easy steps of a chain and a large one the hard ones, decided by one token.

    before each step   H = entropy of the small model's first token
                       the large model writes the step if H >= threshold, else the small one
    until              the thinking has ended (`Transcript.ended`)
    answer             requested after the steps, unless they state it and their writer is the one to answer

A step ends at a separator outside fenced code and displayed formulas. A completion that reaches its maximum tokens
before that is continued by the same model, without a separator and without another routing decision: otherwise a step
boundary would be planted in the middle of a sentence. Of models that think, the steps are those of the thought, which
each of them continues; the answer follows the closed thought. Any other is asked for the answer in a few tokens.

Source: Zeng, Zhang, Shi, Hu, Chen, Shen, Gu, "GlimpRouter: Efficient Collaborative Inference by Glimpsing One Token of
Thoughts" (Findings of ACL 2026, arXiv:2601.05110), whose program takes the entropy over the 20 most likely tokens;
Kojima et al. 2022, arXiv:2205.11916, for the request of an answer after steps without a thought. Differs: with a
threshold of the user's own, the entropy is over the complete vocabulary where the engine exposes it, as in the paper's
definition; a step longer than its maximum tokens is continued, and blank lines within code end none; further endings
for models without thinking tags.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ..core.budget import BudgetView, CostBound
from ..core.errors import (
    BackendError,
    BudgetExceeded,
    CapabilityMissing,
    DataError,
    InvalidResponse,
    ReasonError,
    StoreError,
    UserError,
)
from ..core.events import CandidateAdded, StepRouted, StrategyNote
from ..core.messages import (
    Completion,
    FinishReason,
    LogitsProcessorSpec,
    Prompt,
    Request,
    SamplingParams,
    Thought,
)
from ..core.registry import Stability
from ..core.run import Run
from ..core.types import Candidate, Question, Solution, Step, Stopped
from ..reasoning.answers.extraction import read_candidate
from ..reasoning.continuations import ContinuationRequests
from ..reasoning.prompts import answer_trigger, lines_instruction, question_prompt, steps_instruction
from ..reasoning.segmentation import find_boundary, is_inside_block
from ..reasoning.strategy import MAX_TOKENS, MAX_WEIGHT, Models, Parameters, Thinking
from ..serving.entropy import EntropyKind, covered_mass, plug_in_entropy, top_k_entropy
from ..serving.metered.model import MeteredModel
from ..serving.model import Capabilities, Feature
from ..serving.quick_calls import quick_params
from .nested_strategy import inner_strategy, require_suitable, solve_within
from .router_files import GlimpRouterFile, file_of_digest, load_glimprouter_file, scale
from .transcript import (
    LINE_BREAK,
    SEPARATOR,
    TRUNCATED,
    Purpose,
    RoutedStep,
    StepEnd,
    ThinkingEnd,
    TokenAccounting,
    Transcript,
    Writer,
)

STEP_FAILED: Final = "a step could not be generated; the answer was requested without it"
ANSWER_FAILED: Final = "the answer could not be requested; it was read from the steps"
NO_ANSWER: Final = "the budget had no room for the answer after the thought"

SHORT_ANSWER_TOKENS: Final = 32
"""Maximum tokens of an answer after steps that are not a thought."""

ANSWER_TOKENS: Final = 2048
"""Maximum tokens of an answer after a thought."""

DEFAULT_TEMPERATURE: Final = 0.6
"""Sampling temperature of GlimpRouter's paper."""

CONTEXT_MARGIN: Final = 64
"""Tokens of the context that are left free: the length of a text in a model's tokens is estimated."""

RoutingPolicy = Literal["entropy", "large", "small", "random"]
EntropyChoice = Literal["auto", "full", "top_k", "sampled"]

TOP_K: Final = 20
"""Number of tokens of a top-k entropy."""
NUM_SAMPLES: Final = 8
"""Number of samples of a sampled entropy."""

CALL_TOKENS: Final = 32
"""Maximum tokens of the probe of a turn with tools: the notation of a call, and the name of its tool."""
ARGUMENTS: Final = '"arguments"'
"""What follows the name in the common notations of calls."""

DEFAULT_THRESHOLD: Final = 1.0
"""Threshold of the authors' program, in nats: of entropies over the 20 most likely tokens, and of no other kind."""

PROBE: Final = "entropy_probe"
"""The logits processor that measures the entropy over the complete vocabulary."""


class GlimpRouter:
    """`glimprouter`: each step by the small model or the large one, by the entropy of its first token.

    Requests: a probe of one token before each step, then the step. The answer is one more request, unless the writer of
    the last step is to answer and has stated the answer.

    The threshold depends on the two models and on the kind of entropy; `training/routers/train_router.py` fits one
    on other problems. The default is the authors' program's, of entropies over 20 tokens; if it is compared with
    another kind, the answer reports it. The policies other than "entropy" compute no entropy; they are baselines.

    Of models that think, the steps are those of the thought, as in the paper, and the entropy is that of the first
    token of a step of it.

    With tools, the model is chosen for each turn and writes all of it, as `cot` does. Of a turn that begins with a call
    the first tokens are only its notation, so the highest entropy of the tokens up to the tool's name decides; of any
    other turn, and of one that begins with a thought, that of the first token. Where the small model returns no
    log-probabilities of calls, the large one writes such turns; a sampled entropy is of the first token only.

    Differs with tools: the paper routes steps of a thought and has no tools. Two models that alternate within a turn
    could not be given each other's half-written call, which providers return parsed, not as text.
    """

    name: ClassVar[str] = "glimprouter"
    summary: ClassVar[str] = "write a step with a small model if it is sure of the first token, else with a large one"
    paper: ClassVar[str] = "Zeng et al. 2026, arXiv:2601.05110"
    confidence: ClassVar[str] = "It has none: the entropies choose the writers and do not judge the answer."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small")
    thinking: ClassVar[Thinking] = "thought"
    supports_tools: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `glimprouter`."""

        steps: Annotated[
            Literal["paragraphs", "lines"],
            Field(description="unit of a step: a paragraph, or a single line for models that leave no blank lines"),
        ] = "paragraphs"
        temperature: Annotated[
            float | None,
            Field(
                ge=0,
                le=100,
                description="sampling temperature of steps; 0 is greedy; by default 0.6, in a thought the models' own",
            ),
        ] = None
        max_step_tokens: Annotated[
            int,
            Field(
                ge=1,
                le=MAX_TOKENS,
                description="maximum tokens of one request; a longer step is continued by the same model",
            ),
        ] = 512
        thinking_tokens: Annotated[
            int,
            Field(
                ge=1,
                le=MAX_TOKENS,
                description="maximum tokens of all steps; --thinking-tokens takes precedence",
            ),
        ] = 8192
        answer: Annotated[
            Literal["large", "writer"],
            Field(description="model that answers: the large one, or the writer of the last step"),
        ] = "large"
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
        entropy: Annotated[
            EntropyChoice,
            Field(
                description="over the complete vocabulary, over the 20 most likely tokens, or estimated from samples; "
                "auto is the most exact one that the small model supports, and with the default threshold the one "
                "that it is of"
            ),
        ] = "auto"
        router: Annotated[str, Field(description="file of `train_router.py glimprouter` with the threshold")] = ""
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
            return {**parameters, "threshold": threshold, "router_digest": file.digest}

        @model_validator(mode="after")
        def _check(self) -> Self:
            if self.policy == "random" and self.rate is None:
                raise ValueError("the policy random needs a rate")
            if self.policy == "entropy" and self.rate is not None and not self.router:
                raise ValueError("a rate needs a router file, which maps it to a threshold")
            if self.router and self.policy != "entropy":
                raise ValueError(f"the policy {self.policy} takes no router file")
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
        if context.is_turn:
            return await self._solve_turn(context, policy, models)
        answer_writer: Writer | None = "small" if only == "small" else None if config.answer == "writer" else "large"
        return await StepwiseSolver(context, policy, answer_writer, default=only or "small").solve()

    async def _solve_turn(
        self, context: RoutingContext, policy: _EntropyPolicy | _FixedPolicy, models: Models
    ) -> Solution:
        """A turn with tools, all of it by one model."""
        config, question, run = self.config, context.question, context.run
        parameters: dict[str, JsonValue] = {
            "temperature": config.temperature,
            "max_tokens": min(config.thinking_tokens, ANSWER_TOKENS),
            "instruction": "",
        }
        turn, _ = inner_strategy("cot", parameters, self.name)
        of_small = models.with_main("small")
        if config.policy != "large":
            require_suitable(turn, question, of_small, run)
        index = sum(message.role == "assistant" for message in question.continuation)
        try:
            decision = await policy.next_turn(index)
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        solution = await solve_within(turn, question, of_small if decision.writer == "small" else models, run)
        tokens = sum(candidate.tokens for candidate in solution.candidates)
        _emit_routed(run, index, context.clients[decision.writer], decision, tokens)
        notes: dict[str, JsonValue] = {
            "granularity": "turn",
            **policy.notes(),
            "writers": [decision.writer],
            "entropies": [decision.entropy],
            "masses": [decision.mass],
        }
        return solution.model_copy(update={"notes": notes})

    def _policy(
        self, context: RoutingContext, models: Models, file: GlimpRouterFile | None
    ) -> _EntropyPolicy | _FixedPolicy:
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
            if context.is_turn:
                context.run.degrade(f"the threshold of the router {file} is of steps, and turns with tools were routed")
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

    async def next_turn(self, index: int) -> RoutingDecision:
        return RoutingDecision(StepDraft(), self._writer(index), self._config.policy)

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
        self.probe = FirstTokenProbe(client, context.run, choice, of_call=context.is_turn and not client.in_thought)
        self.kind: EntropyKind = self.probe.kind
        self._threshold = DEFAULT_THRESHOLD if config.threshold is None else config.threshold
        if is_default and self.kind != "top_k":
            context.run.degrade(
                f"threshold={DEFAULT_THRESHOLD:g}: the default is of {scale('top_k', TOP_K)} entropies, and those of "
                f"this run are {scale(self.kind, self.probe.k)} ones, another scale; "
                "training/routers/train_router.py finds a threshold for them"
            )

    async def next_step(self, index: int) -> RoutingDecision:
        step = self._small.request(calls=2, probes=self.probe.num_tokens)
        if step is None:
            return self._decision(StepDraft(ended="context"), "small", None)
        entropy = await self._measure(step.prompt)
        if self._is_hard(entropy):
            return self._decision(await self._context.generators["large"].write(), "large", entropy)
        return self._decision(await self._small.write(step), "small", entropy)

    async def next_turn(self, index: int) -> RoutingDecision:
        client, tokens = self._small.client, self.probe.num_tokens
        client.budget.require(CostBound(calls=1, tokens=tokens, thinking_tokens=tokens if client.in_thought else 0))
        entropy = await self._measure(client.prompt_after(""))
        return self._decision(StepDraft(), "large" if self._is_hard(entropy) else "small", entropy)

    async def _measure(self, prompt: Prompt) -> FirstTokenEntropy | None:
        request = self.probe.request(prompt)
        _, probes = await self._small.client.send("probe", request, written=self._context.transcript.tokens)
        if any(probe.finish_reason in ("cancelled", "budget") for probe in probes):  # also in a replay
            raise self._context.run.ledger.exceeded("seconds")
        return self.probe.read(probes)

    def _is_hard(self, entropy: FirstTokenEntropy | None) -> bool:
        return entropy is None or entropy.nats >= self._threshold

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
            "entropy_kind": self.kind,
            "k": self.probe.k,
        }


@dataclass(frozen=True, slots=True)
class FirstTokenEntropy:
    """Entropy of the first token of a step, or of a call's least certain one.

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

    A probe does not change the transcript: its token is discarded. Log-probabilities are of the raw distribution, so
    the temperature of the steps does not affect the entropy.

    Args:
        of_call: Whether the text may begin with a call, which is then generated up to the name of its tool.

    Attributes:
        k: Tokens or samples that the entropy is computed from; 0 for the complete vocabulary.

    Raises:
        CapabilityMissing: The model does not support the chosen kind.
    """

    def __init__(self, client: ModelClient, run: Run, choice: EntropyChoice, *, of_call: bool = False) -> None:
        self._client, self._run = client, run
        self.kind: EntropyKind = entropy_kind(choice, client.model.capabilities, client.model.name)
        self.k = {"full": 0, "top_k": TOP_K, "sampled": NUM_SAMPLES}[self.kind]
        self._length = CALL_TOKENS if of_call and self.kind != "sampled" else 1
        if self.kind == "sampled" and choice == "auto":
            run.degrade(
                f"entropy=sampled({NUM_SAMPLES}): {client.model.name} has no top log-probabilities; "
                "first tokens were sampled"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens that a probe generates."""
        return self.k if self.kind == "sampled" else self._length

    def request(self, prompt: Prompt) -> Request:
        """A request for the first token after the prompt of a step."""
        in_thought = self._client.in_thought
        length: dict[str, Any] = {"max_tokens": self._length}
        if self._length > 1:
            length["stop"] = (ARGUMENTS,)
        length |= {"thinking_tokens": 1} if in_thought else {"effort": "none"}
        if self.kind == "sampled":
            seed = self._client.probes.seed(prompt)
            profile = self._client.model.profile
            takes_temperature = profile.is_known and not profile.refused("temperature", thinking=in_thought)
            temperature = 1.0 if takes_temperature else None
            sampling = SamplingParams(temperature=temperature, n=self.k, seed=seed, **length)
            return Request(
                prompt=prompt, sampling=sampling, sample_indices=self._client.probes.take_indices(prompt, self.k)
            )
        measured: dict[str, Any] = length
        if self.kind == "full":
            measured["logits_processors"] = (LogitsProcessorSpec(name=PROBE, args={"first": self._length}),)
        else:
            measured |= {"top_logprobs": TOP_K, "logprobs": True}
        return Request(prompt=prompt, sampling=SamplingParams(default_temperature=0.0, **measured))

    def read(self, completions: Sequence[Completion]) -> FirstTokenEntropy | None:
        """The entropy that the samples of a probe report; None for a call without log-probabilities.

        Raises:
            InvalidResponse: They do not report it.
        """
        try:
            return self._read(completions)
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise InvalidResponse(f"{self._client.model.name} returned a probe without its entropy") from e

    def _read(self, completions: Sequence[Completion]) -> FirstTokenEntropy | None:
        if self.kind == "sampled":
            counts = Counter(
                c.token_ids[:1] or (written_text(c, in_thought=self._client.in_thought), c.text) for c in completions
            )
            return FirstTokenEntropy(plug_in_entropy(counts.values()), None)
        first = completions[0]
        is_call = self._length > 1 and begins_call(first)
        if self.kind == "full":
            report: Any = first.extras[PROBE]
            entropies = [FirstTokenEntropy(max(0.0, float(nats)), 1.0) for nats in report["entropy"]]
        else:
            if is_call and not first.top_logprobs:
                self._run.degrade(
                    f"{self._client.model.name} returns no log-probabilities of tool calls: turns that begin with one "
                    "were written by the large model"
                )
                return None
            tops = [[token.logprob for token in top][:TOP_K] for top in first.top_logprobs or ()]
            entropies = [FirstTokenEntropy(top_k_entropy(top), covered_mass(top)) for top in tops]
        return max(entropies, key=attrgetter("nats")) if is_call else entropies[0]


def begins_call(completion: Completion) -> bool:
    """Whether a sample, which may be cut, begins with a tool call; a server may return a cut call as an empty text."""
    text = completion.text.lstrip()
    return bool(completion.tool_calls) or not text or text.startswith(("<tool_call", "{", "["))


@dataclass
class StepDraft:
    """A step while it is generated.

    Attributes:
        skipped: The blank line before it, where steps are lines.
        tokens: Its generated tokens.
        thinking_tokens: Part of them that are a thought.
        counted_tokens: The same with at least one for each request, so that any step ends.
        entries: Positions of its requests in the accounting.
        ended: What ended it; None while it is unfinished.
    """

    text: str = ""
    skipped: str = ""
    tokens: int = 0
    thinking_tokens: int = 0
    counted_tokens: int = 0
    entries: list[int] = field(default_factory=list)
    ended: StepEnd | None = None


@dataclass(frozen=True)
class RoutingDecision:
    """The next step, the model that wrote it, and why.

    Attributes:
        entropy: Entropy of the first token, in nats; None without a probe.
        mass: Probability mass of the tokens that it is computed from.
        threshold: What it was compared with.
        kind: What kind of entropy it is; empty without one.
    """

    draft: StepDraft
    writer: Writer
    why: str
    entropy: float | None = None
    mass: float | None = None
    threshold: float | None = None
    kind: EntropyKind | Literal[""] = ""


class ModelClient:
    """One of the two models in one run: sends its requests and accounts for their tokens.

    Its samples of a prompt are its own: if one model plays both roles, the roles draw from different random streams.

    Args:
        in_thought: Whether its steps are those of a thought.

    Attributes:
        base: The question.
        budget: What may be spent on anything but the answer.
    """

    def __init__(
        self,
        writer: Writer,
        model: MeteredModel,
        base: Prompt,
        run: Run,
        accounting: TokenAccounting,
        budget: BudgetView,
        *,
        in_thought: bool = False,
    ) -> None:
        self.writer, self.model, self.base, self.in_thought = writer, model, base, in_thought
        self.accounting, self.budget = accounting, budget
        self.steps = ContinuationRequests(model, base, run, f"step.{writer}", in_thought=in_thought)
        self.probes = ContinuationRequests(model, base, run, f"probe.{writer}", in_thought=in_thought)
        self._run = run
        self._prompt_tokens = self._tokens_before_prompt = 0

    def prompt_after(self, context: str) -> Prompt:
        """The prompt for the continuation of a response, or of a thought, that starts with this text.

        Raises:
            CapabilityMissing: The model cannot continue a given prefix.
        """
        prompt = self.steps.prompt_after(context, None)
        if prompt.prefix and not self.model.capabilities.prefix:
            raise CapabilityMissing("prefix", self.model.name)
        return prompt

    def context_room(self, max_tokens: int, written: int) -> int:
        """Tokens that the model's context has for a completion, up to `max_tokens`; 0 if none.

        The length of a prompt is estimated from that of the last one and from the tokens written since; a replay, which
        has no tokenizer, estimates the same.

        Args:
            max_tokens: Requested tokens.
            written: Tokens of the response so far, of both models.
        """
        context = self.model.capabilities.context_tokens
        if context is None or not self._prompt_tokens:
            return max_tokens
        since = max(0, written - self._tokens_before_prompt)
        return max(0, min(max_tokens, context - self._prompt_tokens - since - since // 4 - CONTEXT_MARGIN))

    async def send(
        self, purpose: Purpose, request: Request, *, written: int = 0, is_answer: bool = False
    ) -> tuple[int, list[Completion]]:
        """Send a request; unless it is the answer's, it is cut off when the time for the answer starts.

        Args:
            purpose: Its purpose in the accounting.
            written: Tokens of the response that it follows.

        Returns:
            Its position in the accounting, and its samples.

        Raises:
            BudgetExceeded: The budget does not cover it, or the time for steps is over.
            InvalidResponse: A sample failed.
            BackendError: The model failed altogether.
        """
        ledger = self._run.ledger
        started = ledger.elapsed_s
        with nullcontext() if is_answer else self.budget.cutoff() as cutoff:
            (completions,) = await self.model.generate([request], enough=cutoff)
        self.budget.observe_call(ledger.elapsed_s - started)
        entry = self.accounting.add(self.writer, purpose, completions)
        tokens = completions[0].usage.prompt_tokens
        if tokens and request.prompt.messages == self.base.messages:
            self._prompt_tokens, self._tokens_before_prompt = tokens, written
        for completion in completions:
            if completion.failure is not None:
                if purpose == "step":
                    self.accounting.set_purpose("discarded", [entry])
                raise InvalidResponse(f"{self.model.name} returned no sample: {completion.failure.message}")
        return entry, completions


def _emit_routed(run: Run, index: int, client: ModelClient, decision: RoutingDecision, tokens: int) -> None:
    run.emit(
        StepRouted(
            index=index,
            role="main" if decision.writer == "large" else "small",
            model=client.model.name,
            entropy=decision.entropy,
            threshold=decision.threshold,
            kind=decision.kind,
            tokens=tokens,
            reason=decision.why,
        )
    )


class RoutingContext:
    """The two models, the steps so far and the accounting of one run.

    Args:
        models: The models; "main" is the large one.
        writers: The models that may write steps.

    Attributes:
        is_turn: Whether it is a turn with tools, which one model writes.
        is_whole: Whether complete responses are routed instead of steps, since a model cannot continue a given prefix.
        in_thought: Whether the steps are those of a thought, because the models think; of a turn, whether the probed
            token is.
        thinking_tokens: Maximum tokens of all steps together.
        response_tokens: Maximum tokens of a complete response, without the answer after a thought; None where steps are
            routed.
    """

    def __init__(
        self, config: GlimpRouter.Config, question: Question, models: Models, run: Run, writers: frozenset[Writer]
    ) -> None:
        self.config, self.question, self.run = config, question, run
        by_writer: dict[Writer, MeteredModel] = {"large": models.main, "small": models.small}
        if models.small is models.main and len(writers) > 1:
            run.degrade("no small model: the main model wrote all steps (--small-model names one)")
        self.is_turn = question.needs_tools
        self.in_thought = models.small.thinks if self.is_turn else any(by_writer[w].thinks for w in writers)
        self.thinking_tokens = run.config.thinking_tokens or config.thinking_tokens
        without_prefix = sorted(by_writer[w].name for w in writers if not by_writer[w].capabilities.prefix)
        self.is_whole = bool(without_prefix) and not self.is_turn
        if self.is_whole:
            run.degrade(f"{without_prefix[0]} cannot continue a given prefix; complete responses were routed")
        contexts = [by_writer[w].capabilities.context_tokens for w in sorted(writers)]
        limits = [self.thinking_tokens, *(context // 2 for context in contexts if context is not None)]
        self.response_tokens = min(limits) if self.is_whole else None
        is_lines = config.steps == "lines"
        self.transcript = Transcript(in_thought=self.in_thought, separator=LINE_BREAK if is_lines else SEPARATOR)
        self.accounting = TokenAccounting()
        budget = _step_budget(run, ANSWER_TOKENS if self.in_thought else SHORT_ANSWER_TOKENS)
        form = lines_instruction(question) if is_lines else steps_instruction(question)
        base = question_prompt(question, "" if self.is_turn else form)
        self.clients: dict[Writer, ModelClient] = {
            writer: ModelClient(writer, model, base, run, self.accounting, budget, in_thought=self.in_thought)
            for writer, model in by_writer.items()
        }
        self.generators: dict[Writer, StepGenerator] = {
            writer: StepGenerator(client, self) for writer, client in self.clients.items()
        }


def _step_budget(run: Run, answer_tokens: int) -> BudgetView:
    """The run's budget less the answer: its tokens, or a quarter of a small budget, and one call."""
    limit = run.ledger.budget.tokens
    return run.ledger.view(CostBound(tokens=0 if limit is None else min(answer_tokens, limit // 4), calls=1))


class StepGenerator:
    """Has one model write steps, each with as many requests as it takes."""

    def __init__(self, client: ModelClient, context: RoutingContext) -> None:
        self.client = client
        self._config, self._run, self._transcript = context.config, context.run, context.transcript
        self._is_whole, self._in_thought = context.is_whole, context.in_thought
        self._max_tokens = context.response_tokens or context.config.max_step_tokens
        self._thinking_tokens = context.thinking_tokens

    def request(self, text: str = "", *, written: int = 0, calls: int = 1, probes: int = 0) -> Request | None:
        """The request for a step or for its continuation; None if the model's context has no room for it.

        Args:
            text: The step so far.
            written: Its tokens.
            calls: Number of requests that are sent with it, including itself.
            probes: Tokens of the others.

        Raises:
            BudgetExceeded: The budget does not cover it.
        """
        prompt = self.client.prompt_after(self._transcript.context + text)
        room = self.client.context_room(self._max_tokens, self._transcript.tokens + written)
        if room < 1:
            return None
        budget = self.client.budget
        # a sample that closes its thought begins an answer of one token
        answer = 1 if self._in_thought else 0
        budget.require(
            CostBound(calls=calls, tokens=probes + 1 + answer, thinking_tokens=probes + 1 if self._in_thought else 0)
        )
        tokens = min(room, max(1, budget.remaining("tokens") - probes - answer))
        if self._in_thought:
            tokens = min(tokens, budget.remaining("thinking_tokens") - probes)
        sampling = SamplingParams(
            temperature=self._config.temperature,
            default_temperature=DEFAULT_TEMPERATURE,
            max_tokens=answer if self._in_thought else int(tokens),
            thinking_tokens=int(tokens) if self._in_thought else None,
            effort=None if self._in_thought else "none",
            stop=() if self._is_whole else (self._transcript.separator,),
            seed=self.client.steps.seed(prompt),
        )
        return Request(prompt=prompt, sampling=sampling, sample_indices=self.client.steps.take_indices(prompt, 1))

    async def write(self, request: Request | None = None) -> StepDraft:
        """Write a step; an empty one is requested once more, with the prompt's next sample.

        Args:
            request: The first request, made before; None makes it.

        Raises:
            BudgetExceeded: The budget covers nothing of it.
            BackendError: The model failed.
        """
        draft = await self._write(request)
        if draft.ended == "empty":
            self.client.accounting.set_purpose("discarded", draft.entries)
            draft = await self._write(None)
        return draft

    async def _write(self, request: Request | None) -> StepDraft:
        draft = StepDraft()
        while draft.ended is None:
            await self._continue(draft, request)
            request = None
        return draft

    async def _continue(self, draft: StepDraft, request: Request | None) -> None:
        """Append the next piece of a step; without room for one, the step ends as it is."""
        try:
            request = request or self.request(draft.skipped + draft.text, written=draft.tokens)
            if request is None:
                draft.ended = "context"
                return
            written = self._transcript.tokens + draft.tokens
            entry, (completion,) = await self.client.send("step", request, written=written)
        except BudgetExceeded as e:
            if not draft.entries:
                raise
            self._run.record_limit(e)
            draft.ended = "budget"
        except ReasonError:
            self.client.accounting.set_purpose("discarded", draft.entries)
            raise
        else:
            draft.entries.append(entry)
            self._append(draft, completion, request)

    def _append(self, draft: StepDraft, completion: Completion, request: Request) -> None:
        tokens = completion.usage.completion_tokens
        draft.text = (draft.text + written_text(completion, in_thought=self._in_thought)).lstrip("\n")
        draft.tokens += tokens
        draft.thinking_tokens += completion.usage.thinking_tokens
        draft.counted_tokens += max(1, tokens)
        if self._in_thought:
            draft.ended = self._end_in_thought(draft, completion, request)
        else:
            draft.ended = self._end(draft, completion)
        if not draft.text.strip() and draft.ended == "separator":
            draft.text, draft.ended = "", "empty"
            if self._transcript.separator == LINE_BREAK and not draft.skipped:
                draft.skipped, draft.ended = LINE_BREAK, None  # a model that leaves blank lines between its lines

    def _end(self, draft: StepDraft, completion: Completion) -> StepEnd | None:
        """What ends the step with this completion; cuts the draft at its separator."""
        reason, before, separator = completion.finish_reason, self._transcript.context, self._transcript.separator
        if not self._is_whole:
            boundary = find_boundary(draft.text, separator, before)
            if boundary is not None:
                draft.text = draft.text[:boundary]
                return "separator"
        if reason in ("cancelled", "budget"):
            return "budget"
        if self._is_whole and reason == "length":
            return "budget" if self._is_budget_spent() else "tokens"
        may_be_end = self._is_whole or completion.stop_reason != separator
        if reason == "stop" and may_be_end and self._is_end_of_text(completion):
            return "end"
        if reason == "stop" and (not completion.text or not is_inside_block(before + draft.text)):
            return "separator"
        if self._transcript.counted_tokens + draft.counted_tokens >= self._thinking_tokens:
            return "tokens"
        if reason == "stop":
            draft.text += separator
        return None

    def _end_in_thought(self, draft: StepDraft, completion: Completion, request: Request) -> StepEnd | None:
        """What ends the step of a thought with this completion."""
        reason, before, separator = completion.finish_reason, self._transcript.context, self._transcript.separator
        is_stop = reason == "stop" and completion.stop_reason != ""
        if reason in ("cancelled", "budget"):
            return "budget"
        if is_closed(completion):
            return "closed"
        if is_stop and not (written_text(completion, in_thought=True) and is_inside_block(before + draft.text)):
            return "separator"
        if not is_stop and completion.usage.completion_tokens < (request.sampling.thinking_tokens or 0):
            return "end"  # of the text, inside the thought
        if self._transcript.counted_tokens + draft.counted_tokens >= self._thinking_tokens:
            return "tokens"
        if is_stop:
            draft.text += separator
        return None

    def _is_budget_spent(self) -> bool:
        if self.client.budget.remaining("tokens") >= 1:
            return False
        self._run.record_limit(self._run.ledger.exceeded("tokens"))
        return True

    def _is_end_of_text(self, completion: Completion) -> bool:
        """Whether the text ended with this completion; if the backend does not report it, only the step ended."""
        if completion.stop_reason is None and not self._is_whole:
            self._run.degrade(
                f"{self.client.model.name} does not distinguish the end of a step from the end of the text; "
                "a step that states no answer was taken for one that is continued"
            )
            return False
        return True


def written_text(completion: Completion, *, in_thought: bool) -> str:
    """What a sample adds to the steps."""
    if not in_thought:
        return completion.text
    return "" if completion.thought is None else completion.thought.text


def is_closed(completion: Completion) -> bool:
    """Whether a sample that continues a thought has closed it."""
    return bool(completion.text) or completion.thought is None or completion.thought.closed


class StepwiseSolver:
    """Writes one chain of thought and its answer.

    Args:
        answer_writer: The model that answers; None is the writer of the last step.
        default: The model that answers if there is no step and `answer_writer` is None.
    """

    def __init__(
        self,
        context: RoutingContext,
        policy: _EntropyPolicy | _FixedPolicy,
        answer_writer: Writer | None,
        default: Writer = "small",
    ) -> None:
        self._context, self._policy = context, policy
        self._answer_writer, self._default = answer_writer, default
        self._config, self._run, self._transcript = context.config, context.run, context.transcript

    async def solve(self) -> Solution:
        """Think, then answer.

        Raises:
            BackendError: A model failed before there was a step.
        """
        return await self._answer(await self._think())

    # -- steps

    async def _think(self) -> ThinkingEnd:
        ended: ThinkingEnd | None = None
        while ended is None:
            try:
                decision = await self._policy.next_step(len(self._transcript.steps))
            except BudgetExceeded as e:
                self._run.record_limit(e)
                return "budget"
            except (BackendError, StoreError) as e:
                if not self._transcript.steps or (isinstance(e, StoreError) and self._run.recording):
                    raise
                self._record_failure(STEP_FAILED, e)  # a replay has nothing stored where the run had a failure
                return "failed"
            ended = self._append(decision)
        return ended

    def _append(self, decision: RoutingDecision) -> ThinkingEnd | None:
        """Append a step to the transcript and emit it; returns what ends the thinking."""
        context, draft, transcript = self._context, decision.draft, self._transcript
        assert draft.ended is not None
        if not draft.text.strip():
            context.accounting.set_purpose("discarded", draft.entries)
            return "empty" if draft.ended == "separator" else draft.ended
        transcript.steps.append(
            RoutedStep(
                text=draft.text,
                writer=decision.writer,
                tokens=draft.tokens,
                thinking_tokens=draft.thinking_tokens,
                ended=draft.ended,
                entropy=decision.entropy,
                mass=decision.mass,
            )
        )
        _emit_routed(self._run, len(transcript.steps) - 1, context.clients[decision.writer], decision, draft.tokens)
        ended = transcript.ended(context.question, context.thinking_tokens)
        if context.is_whole:
            ended = ended if ended in ("budget", "tokens", "context") else "whole"
        self._run.set_best(self._solution(None, ended, stopped="cancelled"))
        return ended

    # -- answer

    async def _answer(self, ended: ThinkingEnd) -> Solution:
        transcript = self._transcript
        steps = transcript.steps
        writer = self._answer_writer or (steps[-1].writer if steps else self._default)
        # a thought is apart from the answer and cannot state it
        in_thought = self._context.in_thought
        is_stated = bool(steps) and not in_thought and transcript.states_answer(self._context.question)
        answer: Completion | None = None
        stopped: Stopped | None = None
        if in_thought or not (self._context.is_whole or (is_stated and writer == steps[-1].writer)):
            try:
                answer = await self._request_answer(writer)
            except BudgetExceeded as e:
                self._run.record_limit(e)
                stopped = "budget"
                if steps:  # what an answer that is requested now continues
                    self._run.partial_completions.append((self._context.clients[writer].base, self._steps_only()))
                if in_thought and e.kind != "user":
                    self._run.degrade(NO_ANSWER)
            except (BackendError, StoreError) as e:
                if not steps or (isinstance(e, StoreError) and self._run.recording):
                    raise
                self._record_failure(ANSWER_FAILED, e)
                stopped = "error"
        solution = self._solution(answer, ended, stopped)
        if solution.best is not None:
            self._run.emit(CandidateAdded(index=0, answer=solution.best.answer))
        return solution

    async def _request_answer(self, writer: Writer) -> Completion:
        """The answer of a model; the text of the completion begins with the steps."""
        client, transcript, in_thought = self._context.clients[writer], self._transcript, self._context.in_thought
        before = transcript.context + answer_trigger(self._context.question)
        prompt = client.steps.prompt_of_answer(transcript.joined) if in_thought else client.prompt_after(before)
        max_tokens = client.context_room(ANSWER_TOKENS if in_thought else SHORT_ANSWER_TOKENS, transcript.tokens)
        if max_tokens < 1:
            raise BudgetExceeded("tokens", transcript.tokens, transcript.tokens)
        if in_thought:
            sampling = SamplingParams(
                temperature=self._config.temperature,
                default_temperature=DEFAULT_TEMPERATURE,
                max_tokens=max_tokens,
                seed=client.steps.seed(prompt),
            )
        else:
            sampling = quick_params(client.model, max_tokens=max_tokens, stop=("\n",), seed=client.steps.seed(prompt))
        request = Request(prompt=prompt, sampling=sampling)
        _, (completion,) = await client.send("answer", request, written=transcript.tokens, is_answer=True)
        if in_thought:
            return self._after_thought(completion)
        text = completion.text.partition("\n")[0]
        return completion.model_copy(update={"text": before + text if text.strip() else transcript.joined})

    def _after_thought(self, answer: Completion) -> Completion:
        """An answer with the thought before it."""
        transcript = self._transcript
        thought = Thought(text=transcript.joined, tokens=transcript.thinking_tokens)
        return answer.model_copy(update={"thought": thought})

    def _candidate(self, answer: Completion | None) -> Candidate | None:
        """The steps with the answer after them, or with the answer that they state; None without either."""
        steps = self._transcript.steps
        if answer is None and not steps:
            return None
        response = self._steps_only() if answer is None else answer
        candidate = read_candidate(response.model_copy(update={"logprobs": None}), self._context.question)
        return candidate.model_copy(
            update={
                "steps": tuple(
                    Step(
                        text=step.text,
                        model=self._context.clients[step.writer].model.name,
                        scores={} if step.entropy is None else {"entropy": step.entropy},
                    )
                    for step in steps
                ),
                "tokens": self._transcript.tokens + (0 if answer is None else answer.usage.completion_tokens),
                "thinking_tokens": self._transcript.thinking_tokens,
            }
        )

    def _steps_only(self) -> Completion:
        ended = self._transcript.steps[-1].ended
        reason: FinishReason = "budget" if ended == "budget" else "length" if ended in TRUNCATED else "stop"
        if self._context.in_thought:  # no answer is read from a thought
            return self._after_thought(Completion(text="", finish_reason="budget"))
        return Completion(text=self._transcript.joined, finish_reason=reason)

    def _solution(
        self, answer: Completion | None, ended: ThinkingEnd | None, stopped: Stopped | None = None
    ) -> Solution:
        candidate = self._candidate(answer)
        is_spent = ended == "budget" or (answer is not None and answer.finish_reason == "budget")
        notes: dict[str, JsonValue] = {
            "granularity": "problem" if self._context.is_whole else "step",
            "in_thought": self._context.in_thought,
            **self._policy.notes(),
            "ended": ended,
            **self._transcript.notes(),
            **self._context.accounting.notes(),
        }
        return Solution(
            chosen=None if candidate is None else 0,
            candidates=() if candidate is None else (candidate,),
            stopped=stopped or ("budget" if is_spent else "done"),
            notes=notes,
        )

    def _record_failure(self, message: str, error: BackendError | StoreError) -> None:
        self._run.degrade(message)
        data: dict[str, JsonValue] = {"code": error.code, "message": error.message}
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name="step.failed", data=data))
