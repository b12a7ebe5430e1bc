"""GlimpRouter: a small model writes the easy steps of a chain and a large one the hard ones, told by one token.

    before each step   H = entropy of the small model's first token
                       the large model writes the step if H >= threshold, the small one otherwise

Source: Zeng, Zhang, Shi, Hu, Chen, Shen, Gu, "GlimpRouter: Efficient Collaborative Inference by Glimpsing One Token of
Thoughts" (Findings of ACL 2026, arXiv:2601.05110). Main differences: the probe and the small model's step are asked for
together; the entropy is over the whole vocabulary where the engine shows it; a step goes on past its most tokens;
endings for models that do not think between tags.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ..core.answer import Solution
from ..core.errors import DataError, ReasonError, UserError
from ..core.messages import Chunk, Completion, Request
from ..core.question import Question
from ..core.run import Run
from ..reasoning.strategy import Models, Stability
from ..serving.model import Feature
from .glimpse import EntropyChoice, Glimpse, Glimpser
from .noted_file import file_of_digest
from .pen import Booked
from .step_loop import Author, Scene, StepLoop, StepLoopParameters, Turn
from .step_rules import Writer
from .step_writer import Draft
from .thresholds import EntropyKind, RouterFile, load_router

PolicyName = Literal["entropy", "large", "small", "random"]
ProbeMode = Literal["speculative", "separate", "reuse"]
UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class Glimp:
    """`glimp`: each step by the small model or the large one, by the entropy of its first token.

    Requests: for a step of the small model a probe and the step, together in one call; for one of the large model a
    probe and a beginning of the small model's step, which is broken off once the entropy is known and thrown away, and
    the step. With `probe=separate` nothing is thrown away, and each step costs a round trip more. The answer is one
    request more, unless the last step's writer is to give it and has stated it.

    The threshold is a matter of the two models and the kind of entropy; `reason calibrate router` finds one on other
    problems. Policies but "entropy" look at no entropy; they are what it is compared with.
    """

    name: ClassVar[str] = "glimp"
    summary: ClassVar[str] = "a small model writes the steps whose first token it is sure of, a large one the others"
    paper: ClassVar[str] = "Zeng et al. 2026, arXiv:2601.05110"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small")

    class Config(StepLoopParameters):
        """Parameters of `glimp`."""

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
                file = load_router(Path(str(given["router"])).expanduser())
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

    def _author(self, scene: Scene, models: Models, file: RouterFile | None) -> Author:
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

    def _router(self) -> RouterFile:
        config = self.config
        file = file_of_digest(config.router, config.router_digest, load_router)
        if not config.router_digest:
            raise UserError(f"the router {config.router} was not there when the run began", hint="begin another run")
        return file


class _ByRule:
    """Policies that look at no entropy."""

    def __init__(self, scene: Scene, config: Glimp.Config) -> None:
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

    def __init__(self, scene: Scene, config: Glimp.Config) -> None:
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
