"""Every strategy and verifier on every kind of model that thinks, under each setting.

What must hold (`support.thinking_cells`): no answer is read from a thought; no answer is missing without a reason; no
request is sent that the model refuses; the tokens of thoughts are charged to the samples that thought them; requests
are bounded; a refusal comes before anything is generated, and names a remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from _pytest.mark import ParameterSet
from reason.serving import verdict_distribution
from support.thinking_cells import CUT_NAMES, FEATURES, SETTINGS, KindSessions, contract_cells, kind_sessions
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.script import RIGHT

ALL = (*KINDS, *OTHER_KINDS)


def each(kinds: Iterable[Kind]) -> pytest.MarkDecorator:
    """The test for each of these kinds; of the other kinds nightly."""
    marks = {kind.name: () if kind in KINDS else pytest.mark.nightly for kind in kinds}
    cells = [pytest.param(kind, id=kind.name.replace(" ", "-"), marks=marks[kind.name]) for kind in kinds]
    return pytest.mark.parametrize("kind", cells)


@pytest.fixture(scope="module")
def sessions() -> Iterator[KindSessions]:
    with kind_sessions() as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict_distribution, "NUM_VERDICTS", 2)  # more are more of the same requests
        yield opened


def _cells() -> Iterator[ParameterSet]:
    """Every kind of model with every strategy and setting; all but a covering design is nightly.

    In it, each way of sampling (`CUT_NAMES`) meets each kind once, and another strategy a third of the kinds; of the
    other kinds, each way of sampling meets a half. The setting moves with both, so that both meet every setting.
    """
    names = list(dict.fromkeys(name for name, _ in contract_cells()))
    settings = list(SETTINGS)
    for i, kind in enumerate(ALL):
        for name, setting in contract_cells():
            at = i + names.index(name)
            is_tested = name in CUT_NAMES or at % 3 == 0 if kind in KINDS else name in CUT_NAMES and at % 2 == 0
            in_ci = (at + settings.index(setting)) % len(settings) == 0 and is_tested
            identity = f"{kind.name}-{name}-{setting}".replace(" ", "-")
            yield pytest.param(kind, name, setting, id=identity, marks=() if in_ci else pytest.mark.nightly)


@pytest.mark.parametrize(("kind", "name", "setting"), _cells())
def test_invariants_of_thinking_models(sessions, kind, name, setting):
    result = sessions.run(kind, name, setting)
    assert not result.problems, result.why


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name.replace(" ", "-"))
def test_chain_of_thought_answers_right_on_every_kind_of_model(sessions, kind):
    result = sessions.run(kind, "cot", "default")
    assert result.outcome == "ok", result.why
    assert result.answer is not None
    assert result.answer.answer == RIGHT
    assert (result.answer.usage.thinking_tokens > 0) == (kind.thinks in ("default", "always"))


@each(ALL)
def test_the_remedies_of_a_refused_effort_work(sessions, kind):
    for name, setting in (("beam", "low"), ("cot", "none"), ("cot", "low")):
        result = sessions.run(kind, name, setting)
        if result.outcome != "refused":
            continue
        remedy = result.why[1]
        if "leave" in remedy:
            assert sessions.run(kind, name, "default").outcome != "refused"
        if "its efforts are" in remedy and "low" in remedy:
            assert sessions.run(kind, name, "low").outcome != "refused"


WIRES = (
    *("gpt-5-mini", "gpt-5.6", "Claude 4.5", "Claude 5", "Gemini 2.5", "Gemini 3", "DeepSeek V4", "Mistral"),
    *("OpenRouter", "Grok 4.6", "Qwen3, parser", "SGLang", "llama.cpp", "Ollama"),
)
"""A kind for each wire, and where a family changed what it takes, the one before and after."""
FEATURE_NAMES = (
    *("cot", "self-consistency", "beam", "coat", "rpc", "glimprouter", "edgejury", "best-of-n"),
    *("verify: davinci", "verify: edgejury"),
)
TOOL_NAMES = ("cot", "self-consistency", "rpc", "best-of-n", "verify: davinci")
"""Those that take tools."""
BY_TOKENS = (("best-of-n", "tools"), ("beam", "image"))
"""Cells that would give a vLLM server the beginning of a response, for which it gets prompts as tokens."""
NO_IMAGES = ("OpenRouter",)
"""Kinds whose model is not known to read images."""


def _feature_cells() -> Iterator[ParameterSet]:
    """Every wire with every feature and strategy; in CI, each of the strategies and wires meets each feature."""
    for i, wire in enumerate(WIRES):
        kind = next(kind for kind in ALL if kind.name == wire)
        for k, feature in enumerate(FEATURES):
            names = TOOL_NAMES if feature == "tools" else FEATURE_NAMES
            for j, name in enumerate(names):
                by_tokens = kind.vllm and (name, feature) in BY_TOKENS
                marks = () if (i + 3 * k) % len(names) == j or by_tokens else pytest.mark.nightly
                identity = f"{wire}-{name}-{feature}".replace(" ", "-")
                yield pytest.param(kind, name, feature, id=identity, marks=marks)


@pytest.mark.parametrize(("kind", "name", "feature"), _feature_cells())
def test_tools_schemas_and_images(sessions, kind, name, feature):
    result = sessions.run(kind, name, "default", feature)
    assert not result.problems, result.why
    if name != "glimprouter":  # which many kinds refuse, whatever the question has
        assert (result.outcome == "refused") == (feature == "image" and kind.name in NO_IMAGES), result.why


THINKING = [kind for kind in ALL if kind.shows != "never"]


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        pytest.param(
            kind,
            strategy,
            id=f"{kind.name}-{strategy}".replace(" ", "-"),
            marks=() if (i + j) % 4 == 0 and kind in KINDS else pytest.mark.nightly,
        )
        for i, kind in enumerate(THINKING)
        for j, strategy in enumerate(("cot", "self-consistency", "beam", "rlot"))
    ],
)
def test_answer_now_takes_one_call(sessions, kind, strategy):
    answer, later = sessions.answer_now(kind, strategy, after_tokens=30)
    assert answer.stopped == "user"
    assert answer.answer == RIGHT, answer.degraded
    assert answer.based_on
    assert later <= 1


@each([k for k in THINKING if k.is_visible])
def test_cancelled_samples_are_charged(sessions, kind):
    answer, server = sessions.race(kind)
    cut = [c for g in server.generations for c in g.choices if c.finish is None]
    assert answer.answer == RIGHT
    assert cut, "the race ended with samples in flight"
    # what the server had sent and the client had not read is not charged; without token ids, it is counted by chunks
    unread = server.tokens - answer.usage.completion_tokens
    assert (0 if kind.vllm else -3 * len(cut)) <= unread <= 8 * len(cut)
    assert answer.usage.thinking_tokens > 0
