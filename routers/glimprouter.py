"""GlimpRouter: a small model writes the easy steps of a chain and a large one the hard ones, told by one token.

    before each step   H = entropy of the small model's first token
                       the large model writes the step if H >= threshold, the small one otherwise

Source: Zeng, Zhang, Shi, Hu, Chen, Shen, Gu, "GlimpRouter: Efficient Collaborative Inference by Glimpsing One Token of
Thoughts" (Findings of ACL 2026, arXiv:2601.05110). Main differences: the probe and the small model's step are asked for
together; the entropy is over the whole vocabulary where the engine shows it; a step goes on past its most tokens;
endings for models that do not think between tags.

`Glimpser`: what the small model would begin the next step with, and how uncertain it is of that.

The probe is a request for one token. It changes nothing: its token is thrown away, unless it was sampled as the step's
own first token would be (`reuse`). Log-probabilities are of the raw distribution wherever they come from, so the
temperature of the steps has no part in the entropy.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110: the entropy over the whole vocabulary, for which their
program takes the 20 likeliest tokens.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ..core.errors import CapabilityMissing, DataError, InvalidResponse, ReasonError, UserError
from ..core.messages import Chunk, Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Stability
from ..serving.entropy import covered_mass, plug_in_entropy, top_k_entropy
from ..serving.model import Capabilities, Feature
from .router_files import EntropyKind, GlimpRouterFile, file_of_digest, load_glimprouter_file
from .stepwise import Author, Booked, Draft, Pen, Scene, StepLoop, StepLoopParameters, Turn
from .transcript import Writer

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
            many = SamplingParams(temperature=1.0, max_tokens=1, n=self.k, seed=seed, logprobs=False)
            return Request(prompt=prompt, sampling=many, samples=self._pen.probes.take(prompt, self.k))
        shown: dict[str, object] = {"max_tokens": 1}
        if self.kind == "full":
            shown["hooks"] = (LogitsProcessorSpec(name=HOOK, args={"first": 1}),)
        else:
            shown |= {"top_logprobs": TOP, "logprobs": True}
        if own is not None:
            return own.model_copy(update={"sampling": own.sampling.model_copy(update=shown)})
        greedy = SamplingParams(temperature=0.0, logprobs=False)
        return Request(prompt=prompt, sampling=greedy.model_copy(update=shown))

    def read(self, completions: Sequence[Completion]) -> Glimpse:
        """The entropy that a probe's samples show.

        Raises:
            BadReply: They do not show it.
        """
        try:
            return self._read(completions)
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise InvalidResponse(
                f"{self._pen.model.name} was asked for one token and showed nothing of its entropy"
            ) from e

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


PolicyName = Literal["entropy", "large", "small", "random"]
ProbeMode = Literal["speculative", "separate", "reuse"]
UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class GlimpRouter:
    """`glimprouter`: each step by the small model or the large one, by the entropy of its first token.

    Requests: for a step of the small model a probe and the step, together in one call; for one of the large model a
    probe and a beginning of the small model's step, which is broken off once the entropy is known and thrown away, and
    the step. With `probe=separate` nothing is thrown away, and each step costs a round trip more. The answer is one
    request more, unless the last step's writer is to give it and has stated it.

    The threshold is a matter of the two models and the kind of entropy; `reason calibrate router` finds one on other
    problems. Policies but "entropy" look at no entropy; they are what it is compared with.
    """

    name: ClassVar[str] = "glimprouter"
    summary: ClassVar[str] = "a small model writes the steps whose first token it is sure of, a large one the others"
    paper: ClassVar[str] = "Zeng et al. 2026, arXiv:2601.05110"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small")

    class Config(StepLoopParameters):
        """Parameters of `glimprouter`."""

        policy: Annotated[
            PolicyName,
            Field(description="who writes a step: by its first token's entropy, always one of the two, or by chance"),
        ] = "entropy"
        threshold: Annotated[
            float,
            Field(ge=0, allow_inf_nan=False, description="entropy in nats from which the large model writes the step"),
        ] = 1.0
        strict: Annotated[bool, Field(description="whether an entropy equal to the threshold stays with the small")] = (
            False
        )
        entropy: Annotated[
            EntropyChoice,
            Field(
                description="over the whole vocabulary, the 20 likeliest tokens, or estimated from sampled ones; "
                "auto takes the most exact one that the small model shows"
            ),
        ] = "auto"
        samples: Annotated[int, Field(ge=2, le=256, description="tokens that a sampled entropy is estimated from")] = 8
        probe: Annotated[
            ProbeMode,
            Field(
                description="the first token is looked at while the small model writes on, before it writes, or as the "
                "first one of what it writes"
            ),
        ] = "speculative"
        router: Annotated[
            str, Field(description="a file of `reason calibrate router`, which the threshold is taken from")
        ] = ""
        rate: Annotated[
            float | None,
            Field(
                ge=0,
                le=1,
                description="share of steps for the large model, by the router's file or by chance",
            ),
        ] = None
        router_digest: Annotated[
            str, Field(description="digest of the router's file, noted by itself: a run goes on with no other")
        ] = ""

        @model_validator(mode="before")
        @classmethod
        def _take_threshold(cls, given: Any) -> Any:
            """A file may be made anew under its name: what a run began with is known by its digest and threshold."""
            if not isinstance(given, Mapping) or not given.get("router"):
                return given
            if given.get("router_digest"):
                return given
            if "threshold" in given:
                raise ValueError("give a threshold or a router's file, not both")
            try:
                file = load_glimprouter_file(Path(str(given["router"])).expanduser())
            except DataError:
                return given  # told where it is needed
            rate = given.get("rate")
            threshold = file.threshold if rate is None else file.threshold_for(float(rate))
            return {"strict": file.strict, **given, "threshold": threshold, "router_digest": file.digest}

        @model_validator(mode="after")
        def _holds_together(self) -> Self:
            if self.policy == "random" and self.rate is None:
                raise ValueError("the random policy needs a rate")
            if self.policy == "entropy" and self.rate is not None and not self.router:
                raise ValueError("a rate needs a router's file, which says what threshold gives it")
            if self.router and self.policy != "entropy":
                raise ValueError(f"the policy {self.policy} has no use for a router's file")
            if self.probe == "reuse" and self.entropy == "sampled":
                raise ValueError("a sampled entropy is of several first tokens, none of them the step's")
            return self

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`.

        Raises:
            DataError: The router's file cannot be read.
            UserError: It is another one than the run began with, or was made for other models.
            CapabilityMissing: The small model does not show the kind of entropy that is wanted.
        """
        config = self.config
        file = self._router() if config.router else None
        only: Writer | None = "large" if config.policy == "large" else "small" if config.policy == "small" else None
        scene = Scene(config, question, models, run, frozenset(("large", "small") if only is None else (only,)))
        author = self._author(scene, models, file)
        answers: Writer | None = "small" if only == "small" else None if config.answer == "writer" else "large"
        return await StepLoop(scene, author, answers, default=only or "small").solve()

    def _author(self, scene: Scene, models: Models, file: GlimpRouterFile | None) -> Author:
        config = self.config
        if config.policy != "entropy":
            return _ByRule(scene, config)
        author = _ByEntropy(scene, config)
        if file is not None:
            file.refuse_other(
                small=models.small.identity, large=models.main.identity, entropy=author.kind, k=author.glimpser.k
            )
            if doubts := file.doubts(config.model_dump(mode="json")):
                scene.run.degrade(doubts)
        return author

    def _router(self) -> GlimpRouterFile:
        config = self.config
        file = file_of_digest(config.router, config.router_digest, load_glimprouter_file)
        if not config.router_digest:
            raise UserError(f"the router {config.router} was not there when the run began", hint="begin another run")
        return file


class _ByRule:
    """Policies that look at no entropy."""

    def __init__(self, scene: Scene, config: GlimpRouter.Config) -> None:
        self._scene, self._config = scene, config

    async def next(self, index: int) -> Turn:
        """See `Author.next`."""
        writer = self._writer(index)
        return Turn(await self._scene.writers[writer].write(), writer, self._config.policy)

    def _writer(self, index: int) -> Writer:
        config = self._config
        match config.policy:
            case "large" | "small":
                return config.policy
            case _:
                drawn = random.Random(self._scene.run.derive_seed("routed", index)).random()  # noqa: S311 (reproducible)
                return "large" if drawn < (config.rate or 0.0) else "small"

    def notes(self) -> dict[str, JsonValue]:
        """See `Author.notes`."""
        return {
            "policy": self._config.policy,
            "threshold": None,
            "strict": False,
            "probe": None,
            "entropy_kind": None,
            "k": 0,
        }


class _ByEntropy:
    """The small model's first token decides."""

    def __init__(self, scene: Scene, config: GlimpRouter.Config) -> None:
        self._scene, self._config = scene, config
        self._small = scene.writers["small"]
        self.glimpser = Glimpser(scene.pens["small"], scene.run, config.entropy, config.samples)
        self.kind: EntropyKind = self.glimpser.kind
        self.probe: ProbeMode = config.probe
        if config.probe == "reuse" and self.kind == "sampled":
            scene.run.degrade("probe=separate: a sampled entropy is of several first tokens, none of them the step's")
            self.probe = "separate"

    async def next(self, index: int) -> Turn:
        """See `Author.next`."""
        others = self.glimpser.samples
        own = self._small.request(calls=2, beside=others)
        if own is None:
            return self._turn(Draft(ended="context"), "small", None)
        together = self._scene.allowance.covers_together(own.sampling.max_tokens, others)
        if self.probe == "speculative" and together:
            glimpse, begun = await self._speculate(own)
        else:
            glimpse, begun = await self._look(own)
        if self._goes_up(glimpse):
            return self._turn(await self._scene.writers["large"].write(), "large", glimpse)
        return self._turn(await self._small.write(begun, own), "small", glimpse)

    async def _speculate(self, own: Request) -> tuple[Glimpse, Booked | None]:
        """Ask for first token and step in one call; the step is broken off if the large model is to write it."""
        probe = self.glimpser.request(own.prompt)
        enough = asyncio.Event()
        seen: list[Completion] = []

        def hear(chunk: Chunk) -> None:
            if chunk.request == 0 and chunk.completion is not None:
                seen.append(chunk.completion)
                if len(seen) == len(probe.indices) and self._known_to_go_up(seen):
                    enough.set()

        pen, books = self._small.pen, self._scene.books
        (_, probes), begun = await pen.ask(
            "step", [probe, own], written=self._scene.transcript.tokens, listener=hear, enough=enough
        )
        try:
            glimpse = self._read(probes)
        except ReasonError:
            books.book_as("discarded", [begun[0]])
            raise
        if self._goes_up(glimpse):
            books.book_as("discarded", [begun[0]])
            return glimpse, None
        return glimpse, begun

    async def _look(self, own: Request) -> tuple[Glimpse, Booked | None]:
        """Ask for the first token alone; it is the step's own where that is wanted and its text stands by itself."""
        reuses = self.probe == "reuse"
        probe = self.glimpser.request(own.prompt, own if reuses else None)
        (booked,) = await self._small.pen.ask("probe", [probe], written=self._scene.transcript.tokens)
        number, probes = booked
        glimpse = self._read(probes)
        text = probes[0].text
        whole = probes[0].finish_reason == "stop" or (text.strip("\n") != "" and UNREADABLE not in text)
        if not reuses or not whole or self._goes_up(glimpse):
            return glimpse, None
        self._scene.books.book_as("step", [number])
        return glimpse, booked

    def _read(self, probes: Sequence[Completion]) -> Glimpse:
        if any(probe.finish_reason in ("cancelled", "budget") for probe in probes):  # likewise when it is replayed
            raise self._scene.run.ledger.refuse("seconds")
        return self.glimpser.read(probes)

    def _known_to_go_up(self, probes: Sequence[Completion]) -> bool:
        try:
            return self._goes_up(self._read(probes))
        except ReasonError:  # raised again where it is no listener that raises
            return True

    def _goes_up(self, glimpse: Glimpse) -> bool:
        config = self._config
        return glimpse.entropy > config.threshold if config.strict else glimpse.entropy >= config.threshold

    def _turn(self, draft: Draft, writer: Writer, glimpse: Glimpse | None) -> Turn:
        return Turn(
            draft,
            writer,
            "entropy",
            entropy=None if glimpse is None else glimpse.entropy,
            mass=None if glimpse is None else glimpse.mass,
            threshold=self._config.threshold,
            kind=self.kind,
        )

    def notes(self) -> dict[str, JsonValue]:
        """See `Author.notes`."""
        config = self._config
        return {
            "policy": config.policy,
            "threshold": config.threshold,
            "strict": config.strict,
            "probe": self.probe,
            "entropy_kind": self.kind,
            "k": self.glimpser.k,
        }
