"""One strategy or verifier on one kind of model under one setting, and what must hold of it.

The contract tests assert it, and `benchmarks/thinking_contract.py` makes the table of it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from reason.agents.reasoner import Reasoner
from reason.core.errors import CapabilityMissing, ReasonError, UserError
from reason.core.events import Event, SampleFinished, TextDelta
from reason.core.messages import Attachment, Completion, Message
from reason.core.run import RunConfig, new_run_id
from reason.core.settings import Settings
from reason.core.types import Answer, Document, Question
from reason.reasoning.retrieval import run_knowledge
from reason.reasoning.strategy import STRATEGIES
from reason.serving.litellm.model import CHARS_PER_TOKEN
from reason.verify.entailment import run_resources
from reason.verify.entailment.lexical import lexical_support

from support.knowledge_sources import WordEmbedding
from support.scripted_entailment import ScriptedEntailment
from support.scripted_tools import WEATHER
from support.wires.kinds import Kind
from support.wires.script import CHOICES, DECOY, QUESTION, RIGHT, RIGHT_CHOICE, batched, instance, tokens_of
from support.wires.server import WireServer

MAX_REQUESTS = 400
"""Maximum requests of one run."""
TAG_TOKENS = 12
"""Maximum tokens of the marks around one thought, which count as thought on one side and as answer on the other."""

IN_FLIGHT = 24
"""Maximum tokens of a sample that a server has sent and its client, which stopped it, has not read."""

Outcome = Literal["ok", "replaced", "refused"]

SETTINGS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "none": {"effort": "none"},
    "low": {"effort": "low"},
    "tight": {"budget": {"tokens": 600}},
    "cut": {"thinking_tokens": 64},
}
"""Settings of a run, by name; under the last two, thoughts are also long."""
WORDS, CUT_WORDS, LONG_WORDS = 24, 100, 400
"""Words of a thought: by default, more than the limit of `cut`, and as many as the budget of `tight` hardly covers."""

VERIFIERS = ("davinci", "edgejury")

VARIANTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "rpc, scope=thought": ("rpc", {"scope": "thought"}),
}
"""Strategies with parameters that only a model that thinks can follow."""

FEW_SAMPLES = (
    "adaptive",
    "best-of-n",
    "particle-filter",
    "rpc",
    "self-consistency",
)
PARAMETERS: Mapping[str, dict[str, Any]] = {
    **{name: {"n": 3} for name in FEW_SAMPLES},
    "best-of-n": {"n": 2},  # each sample is evaluated by 16 more
    "astar": {"k": 2},
    "beam": {"width": 2, "k": 2},
}
"""Parameters that keep a run short."""

NEEDS_MORE = {}
"""Strategies that no kind of model can run as they are."""

DOCUMENT = Document(name="shop.md", text="The shop sells 5 kinds of apples and 7 kinds of pears: 12 kinds of fruit.")


FEATURES = ("tools", "schema", "image")
CALLS = [[("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})], [("weather", {"city": "Bern"})]]
"""The tool calls of the first two turns."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
CAPTION = "This is the shop:"
IMAGE = Attachment.of(b"\x89PNG\r\n\x1a\nshop").model_copy(update={"position": len(CAPTION)})


def strategies() -> list[str]:
    """The strategies of the suite."""
    return [name for name in STRATEGIES.names() if name not in NEEDS_MORE]


@dataclass
class CellResult:
    """What a cell did.

    Attributes:
        outcome: "ok", "replaced" (something else was done than the method says, and it was reported) or "refused".
        why: What was reported, or the error with its remedy.
        problems: Broken invariants; none may be.
    """

    outcome: Outcome
    why: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    answer: Answer | None = None
    requests: int = 0


class KindSession:
    """The opened models of one kind on a server, for many cells."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.server = WireServer(kind)
        self.small_server = WireServer(kind.small_kind)
        self._stack = AsyncExitStack()
        self._reasoner: Reasoner

    async def open(self, directory: Path) -> None:
        """Start the servers and open the model."""
        providers: dict[str, Any] = {}
        for name, server in ((self.kind.model, self.server), (self.kind.small, self.small_server)):
            address = await self._stack.enter_async_context(server.run())
            providers[name] = {"api_base": server.kind.api_base(address), "max_retries": 0}
        names = (self.kind.model, self.kind.small)
        settings = Settings(
            model=self.kind.model,
            providers=providers,
            profiles={name: {"inputs": ["image"]} for name in names} if self.kind.is_own_server else {},
            store=directory / "runs.sqlite3",
            cache_dir=directory / "cache",
        )
        self._reasoner = await self._stack.enter_async_context(Reasoner(settings=settings))
        await self._reasoner.load()
        with suppress(ReasonError):  # opens the small model
            await self._reasoner.arun(self._plan("cascade", {"small_model": self.kind.small}))
        with suppress(ReasonError):  # is charged for the probes of the model
            await self._reasoner.arun(self._plan("cot", {}))

    def _plan(self, strategy: str, options: Mapping[str, Any]) -> RunConfig:
        return self._reasoner.plan(Question(text=QUESTION, kind="number"), strategy=strategy, seed=7, **options)

    async def close(self) -> None:
        """Close models and servers."""
        await self._stack.aclose()

    async def answer_now(self, strategy: str, after_tokens: int) -> tuple[Answer, int]:
        """Request the answer of a run once the server has generated some tokens.

        Returns:
            The answer, and the number of requests that were answered after that.
        """
        servers = (self.server, self.small_server)
        for server in servers:
            server.reset()
            server.thought_words, server.pause_s = LONG_WORDS, 0.001
        small = {"small_model": self.kind.small} if "small" in STRATEGIES.load(strategy).roles else {}
        plan = self._plan(strategy, small)
        try:
            run_id = new_run_id()
            task = asyncio.ensure_future(self._reasoner.arun(plan, run_id=run_id))
            while not task.done() and sum(s.tokens for s in servers) < after_tokens:
                await asyncio.sleep(0.001)
            before = {id(g) for s in servers for g in s.generations}
            self._reasoner.conclude(run_id)
            answer = await task
            started = [g for s in servers for g in s.generations if id(g) not in before]
            # what was on its way when the answer was requested is cut, not finished
            return answer, sum(all(c.finish is not None for c in g.choices) for g in started)
        finally:
            for server in servers:
                server.pause_s = 0.0

    async def race(self) -> Answer:
        """A vote whose race ends while samples are being generated."""
        self.server.reset()
        self.server.thought_words, self.server.pause_s = WORDS, 0.002
        parameters = {"n": 12, "mode": "race", "stopping": {"rule": "agreement", "window": 2}}
        options = {"parameters": parameters, "effort": "low" if self.kind.thinks == "opt-in" else None}
        try:
            return await self._reasoner.arun(self._plan("self-consistency", options))
        finally:
            self.server.pause_s = 0.0

    async def run(self, name: str, setting: str, feature: str = "") -> CellResult:
        """Run a cell.

        Args:
            name: One of `cell_names`; a verifier runs after `cot`.
            setting: One of `SETTINGS`.
            feature: One of `FEATURES`: three turns of tools, a schema of the answer, or an image between two texts.
        """
        options = dict(SETTINGS[setting])
        verifier = name.removeprefix("verify: ") if name.startswith("verify: ") else ""
        strategy, parameters = VARIANTS.get(name, ("cot" if verifier else name, {}))
        parameters = {**PARAMETERS.get(strategy, {}), **parameters}
        kind = STRATEGIES.load(strategy)
        if "small" in kind.roles and strategy != "auto":
            options["small_model"] = self.kind.small
        if verifier:
            options |= {"verify": (verifier,), "repairs": 0}
        question = Question(text=QUESTION, kind="number", documents=(DOCUMENT,) if verifier else ())
        if strategy == "logprob":
            question = Question(text=QUESTION, choices=CHOICES)
        question = question.model_copy(update=_FIELDS.get(feature, {}))
        reasoner = self._reasoner
        if strategy == "rag":
            reasoner = await reasoner.variant("rag", context=[lambda text, n: [DOCUMENT.text][:n]])
        servers = (self.server, self.small_server)
        for server in servers:
            server.reset()
            server.thought_words = {"tight": LONG_WORDS, "cut": CUT_WORDS}.get(setting, WORDS)
            server.calls = CALLS if feature == "tools" else ()
        recorder = _Recorder()
        answers: list[Answer] = []
        error: ReasonError | None = None
        try:
            while not answers or (answers[-1].tool_calls and len(answers) <= len(CALLS)):
                if answers:
                    results = (Message(role="tool", content="24", tool_call_id=c.id) for c in answers[-1].tool_calls)
                    turns = (*question.continuation, answers[-1].message, *results)
                    question = question.model_copy(update={"continuation": turns})
                plan = reasoner.plan(question, strategy=strategy, seed=7, parameters=parameters, **options)
                answers.append(await reasoner.arun(plan, sinks=(recorder,), stream_text=bool(feature)))
        except ReasonError as e:
            error = e
        requests = sum(len(s.generations) for s in servers)
        if error is not None:
            result = CellResult("refused", (str(error), error.hint or ""), requests=requests)
            result.problems += _refusal_problems(error, requests)
        else:
            answer = answers[-1]
            result = CellResult("replaced" if answer.degraded else "ok", answer.degraded, [], answer, requests)
            result.problems += _answer_problems(answer, strategy, is_tight="budget" in options, feature=feature)
            result.problems += _count_problems(answers, recorder.completions, servers)
            result.problems += recorder.problems if feature else []
            result.problems += _feature_problems(feature, answers, servers)
        result.problems += [f"sent what is refused: {why}" for s in servers for why in s.refusals]
        if requests > MAX_REQUESTS:
            result.problems.append(f"{requests} requests")
        return result


_FIELDS: Mapping[str, dict[str, Any]] = {
    "tools": {"tools": (WEATHER,)},
    "schema": {"answer_schema": SCHEMA},
    "image": {"text": f"{CAPTION}\n{QUESTION}", "attachments": (IMAGE,)},
}
"""Fields of the question, by feature."""


class _Recorder:
    """Keeps the completions of a run, and compares each with its text as it was streamed."""

    def __init__(self) -> None:
        self.completions: list[Completion] = []
        self.problems: list[str] = []
        self._texts: dict[tuple[str, int | None, int, int], str] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, TextDelta) and event.answer_start is None:
            key = event.run_id, event.parent, event.request, event.sample
            self._texts[key] = self._texts.get(key, "") + event.text
        if isinstance(event, SampleFinished) and not event.replayed:
            self.completions.append(event.completion)
            text = self._texts.get((event.run_id, event.parent, event.request, event.sample), "")
            if text != event.completion.text:
                self.problems.append(f"streamed {text!r}, finished {event.completion.text!r}")


def _refusal_problems(error: ReasonError, requests: int) -> list[str]:
    problems = []
    if not isinstance(error, UserError | CapabilityMissing):
        problems.append(f"{type(error).__name__}: {error}")
    if not error.hint:
        problems.append(f"refused without a remedy: {error}")
    if requests:
        problems.append(f"refused after {requests} requests: {error}")
    return problems


def _feature_problems(feature: str, answers: list[Answer], servers: tuple[WireServer, ...]) -> list[str]:
    """Whether the tools were called in their turns, and the server got the image between its texts."""
    called = [[(c.name, json.loads(c.arguments)) for c in a.tool_calls] for a in answers]
    if feature == "tools" and called != [*CALLS, []]:
        return [f"called {called}"]
    parts, notes = (CAPTION, IMAGE.data, QUESTION), "\n".join(note for a in answers for note in a.degraded)
    problems = []
    for body in (json.dumps(g.body, ensure_ascii=False) for s in servers for g in s.generations):
        at = [body.find(part) for part in parts]
        is_needed = CAPTION in body and not ("Is the last step right?" in body and "without the question's" in notes)
        if feature == "image" and is_needed and (IMAGE.data not in body or at != sorted(at)):
            problems.append(f"text, image and text are at {at}")
    return problems


def _answer_problems(answer: Answer, strategy: str, *, is_tight: bool, feature: str = "") -> list[str]:
    problems = []
    stated = [answer.answer, *(c.answer for c in answer.candidates)]
    texts = [answer.text, *(c.text for c in answer.candidates)]
    if answer.verification is not None:
        texts += [claim.text for claim in answer.verification.claims]
    right = RIGHT_CHOICE if strategy == "logprob" else RIGHT
    if feature == "schema":
        right = json.dumps(instance(SCHEMA))
    if strategy != "logprob" and (DECOY in stated or any(DECOY in text for text in texts)):
        problems.append(f"a thought was read as an answer: {stated}")
    if answer.answer is None and not answer.degraded:
        problems.append("no answer, and no reason for it")
    if answer.answer not in (None, right) and not is_tight:  # a spent budget leaves what there was
        problems.append(f"a wrong answer: {answer.answer!r}")
    return problems


def _count_problems(answers: list[Answer], completions: list[Completion], servers: tuple[WireServer, ...]) -> list[str]:
    problems = []
    choices = [c for s in servers for g in s.generations for c in g.choices]
    unfinished = sum(c.finish is None for c in choices)
    # a sample that was cancelled may have been sent to its end by then
    sent = max(0, sum(c.finish_reason == "cancelled" for c in completions) - unfinished)
    in_flight = IN_FLIGHT * unfinished + sent * max((c.tokens for c in choices), default=0)
    # an equal measurement of the same run is not made again, but charged again
    replayed = sum(a.usage.replayed_tokens for a in answers)
    counted, booked = sum(s.tokens for s in servers), sum(a.usage.completion_tokens for a in answers) - replayed
    if not -_estimated_excess(completions, servers) <= counted - booked <= in_flight:
        problems.append(f"{booked} tokens were charged, {counted} were generated")
    thought, booked_thought = sum(s.thinking_tokens for s in servers), sum(a.usage.thinking_tokens for a in answers)
    tags = TAG_TOKENS * sum(c.thinking > 0 for c in choices)
    if all(s.kind.reports_thinking_tokens for s in servers):
        tags = 0
    is_too_many = booked_thought - thought > tags + replayed
    if is_too_many or thought - booked_thought > tags + in_flight:
        problems.append(f"{booked_thought} tokens of thoughts were charged, {thought} were generated")
    rows = [
        row
        for a in answers
        for role, row in a.usage.by_role.items()
        if not role.startswith(("embedding", "entailment"))
    ]
    prompts, booked_prompts = (
        sum(g.prompt_tokens for s in servers for g in s.generations),
        sum(row.prompt_tokens for row in rows),
    )
    if prompts != booked_prompts and not in_flight and not replayed:
        problems.append(f"{booked_prompts} tokens of prompts were charged, {prompts} were sent")
    if all(s.kind.is_visible for s in servers) and not in_flight:
        problems += _sample_problems(completions, choices)
    return problems


def _estimated_excess(completions: list[Completion], servers: tuple[WireServer, ...]) -> int:
    """Tokens that cancelled samples may be charged beyond those generated: their usage never came, and where a provider
    shows no tokens, those of a chunk are estimated by its length."""
    if all(s.kind.vllm for s in servers):
        return 0
    size = max(s.kind.chunk_tokens for s in servers)
    cut = [c for c in completions if c.finish_reason == "cancelled"]
    texts = [text for c in cut for text in (c.text, c.thought.text if c.thought is not None else "")]
    chunks = [chunk for text in texts for chunk in batched(tokens_of(text), size)]
    return sum(max(0, len("".join(chunk)) // CHARS_PER_TOKEN - len(chunk)) for chunk in chunks)


def _sample_problems(completions: list[Completion], choices: list[Any]) -> list[str]:
    """Whether each sample has the tokens of its own thought."""
    mine = Counter(c.usage.completion_tokens for c in completions)
    theirs = Counter(c.tokens for c in choices)
    if mine - theirs:
        return [f"samples of {sorted((mine - theirs).elements())} tokens, which were not generated"]
    by_total: dict[int, list[int]] = {}
    for choice in choices:
        by_total.setdefault(choice.tokens, []).append(choice.thinking)
    for completion in completions:
        thinking = completion.usage.thinking_tokens
        if not any(abs(thinking - t) <= TAG_TOKENS for t in by_total[completion.usage.completion_tokens]):
            return [f"a sample of {completion.usage.completion_tokens} tokens has {thinking} of a thought"]
    return []


class KindSessions:
    """The sessions of all kinds, each opened at its first use, on one event loop of a thread of its own.

    They share what is loaded beside the models: encoders and judges, of half a gigabyte.
    """

    def __init__(self, directory: Path, portal: BlockingPortal) -> None:
        self._directory, self._portal = directory, portal
        self._sessions: dict[str, KindSession] = {}

    def run(self, kind: Kind, name: str, setting: str, feature: str = "") -> CellResult:
        """Run a cell (`KindSession.run`)."""
        return self._portal.call(self._session(kind).run, name, setting, feature)

    def answer_now(self, kind: Kind, strategy: str, after_tokens: int) -> tuple[Answer, int]:
        """As `KindSession.answer_now`."""
        return self._portal.call(self._session(kind).answer_now, strategy, after_tokens)

    def race(self, kind: Kind) -> tuple[Answer, WireServer]:
        """As `KindSession.race`, with the server."""
        session = self._session(kind)
        return self._portal.call(session.race), session.server

    def _session(self, kind: Kind) -> KindSession:
        if kind.name not in self._sessions:
            session = KindSession(kind)
            home = self._directory / str(len(self._sessions))
            home.mkdir(exist_ok=True)
            self._portal.call(session.open, home)
            self._sessions[kind.name] = session
        return self._sessions[kind.name]

    def close(self) -> None:
        """Close all of them."""
        for session in self._sessions.values():
            self._portal.call(session.close)


@contextmanager
def kind_sessions() -> Iterator[KindSessions]:
    """Sessions that are closed at the end of the block; keys of the providers are set while it runs."""
    with (
        tempfile.TemporaryDirectory() as directory,
        start_blocking_portal("asyncio") as portal,
        pytest.MonkeyPatch.context() as patch,
    ):
        for provider in ("OPENAI", "DEEPSEEK", "ANTHROPIC", "GEMINI", "XAI", "MISTRAL", "OPENROUTER"):
            patch.setenv(f"{provider}_API_KEY", "none")
        patch.setattr(run_knowledge, "load_embedding_model", _words)
        patch.setattr(run_resources, "load_entailment", _lexical_judge)
        sessions = KindSessions(Path(directory), portal)
        try:
            yield sessions
        finally:
            sessions.close()


async def _words(*_: Any) -> WordEmbedding:
    return WordEmbedding()


async def _lexical_judge(name: str, *_: Any, **__: Any) -> ScriptedEntailment:
    return ScriptedEntailment(lexical_support, name=name)


def cell_names() -> list[str]:
    """Strategies, variants of them, and verifiers as "verify: NAME"."""
    return [*strategies(), *VARIANTS, *(f"verify: {name}" for name in VERIFIERS)]


CUT_NAMES = (
    *("adaptive", "beam", "cot", "edgejury", "glimprouter", "rpc", "self-consistency"),
    *("verify: davinci", "verify: edgejury"),
)
"""Cells that are tested under `cut`: one of each way of sampling. The benchmark runs all."""


def contract_cells() -> list[tuple[str, str]]:
    """The cells that the contract tests run on each kind: name and setting."""
    return [(name, at) for name in cell_names() for at in SETTINGS if at != "cut" or name in CUT_NAMES]
