"""The trace as a page: safe whatever the texts, complete, and loaded from nowhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from reason.cli.trace_page import render_trace
from reason.cli.trace_samples import align, sample_html
from reason.core.answer import Answer, AnswerCandidate, CheckedClaim, Evidence, RoleUsage, RunUsage, Verification
from reason.core.events import (
    BudgetCharged,
    BudgetExhausted,
    CallFinished,
    CallStarted,
    CandidateFound,
    Degraded,
    EventFields,
    RunFailed,
    RunFinished,
    RunStarted,
    SampleFinished,
    StageFinished,
    StageStarted,
    StrategyNote,
    TextDelta,
    VoteUpdated,
)
from reason.core.messages import Completion, Failure, Usage
from reason.core.question import Question

VOID = {"meta"}


class Balance(HTMLParser):
    """Checks that tags are closed in order, and keeps the text and the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def a_run(evil: str) -> list[EventFields]:
    done = Completion(
        text=evil, token_ids=(1, 2), logprobs=(-0.01, -3.0), finish_reason="stop", usage=Usage(completion_tokens=2)
    )
    failed = Completion(text="", finish_reason="error", failure=Failure(code=evil, message=evil), sample_index=1)
    claim = CheckedClaim(text=evil, verdict="supported", confidence=0.5, evidence=(Evidence(source=evil, text=evil),))
    answer = Answer(
        answer=evil,
        text=evil + " ",
        strategy=evil,
        model=evil,
        confidence=0.5,
        stopped="done",
        candidates=(AnswerCandidate(text=evil, answer=evil, score=1.0, logprob=-3.01, tokens=2),),
        verification=Verification(verdict="supported", confidence=0.5, claims=(claim,), verifiers=("v",)),
        usage=RunUsage(completion_tokens=2, by_role={f"main:{evil}": RoleUsage(model=evil, completion_tokens=2)}),
        run_id=evil,
        seed=1,
        degraded=(evil,),
    )
    return [
        RunStarted(
            number=1,
            run_id=evil,
            question=Question(text=evil, choices=(evil, evil)),
            strategy=evil,
            models={"main": evil},
            seed=1,
        ),
        StageStarted(number=2, stage=evil),
        CallStarted(
            number=3, parent=2, role=evil, model=evil, operation=evil, requests=1, samples=2, replayed=1, max_tokens=9
        ),
        TextDelta(number=4, parent=3, request=0, sample=0, text=evil[:3], tokens=1),
        TextDelta(number=5, parent=3, request=0, sample=0, text=evil[3:], tokens=1),
        SampleFinished(number=6, parent=3, request=0, sample=0, completion=done),
        SampleFinished(number=7, parent=3, request=0, sample=1, completion=failed),
        CallFinished(number=8, parent=3, role=evil, model=evil, seconds=0.5, tokens=2, failed=1),
        BudgetCharged(
            number=9,
            parent=3,
            role=evil,
            model=evil,
            tokens=2,
            calls=1,
            total_tokens=2,
            total_calls=1,
            total_usd=None,
            limits={"tokens": 4, "seconds": 60},
        ),
        BudgetExhausted(number=10, kind="tokens", used=4, limit=4),
        CandidateFound(number=11, parent=2, index=0, answer=evil),
        VoteUpdated(number=12, parent=2, votes={evil: 1}, total=2),
        StrategyNote(number=13, parent=2, strategy=evil, name=evil, data={evil: [evil]}),
        Degraded(number=14, parent=2, what=evil),
        StageFinished(number=15, parent=2, stage=evil, seconds=1.0),
        RunFailed(number=16, code=evil, message=evil),
        RunFinished(number=17, answer=answer),
    ]


EVIL = "</pre></span><script>alert(1)</script><img src=x onerror=alert(1)>\"'`&lt; --> <style>"


def test_no_text_becomes_markup() -> None:
    page = render_trace(a_run(EVIL))
    parsed = read(page)
    assert not parsed.seen & {"script", "img", "a", "link", "iframe", "object", "form", "base"}
    assert parsed.seen <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "ol", "li", "div", "span", "b", "p"),
        *("details", "summary", "table", "tr", "th", "td", "footer", "pre"),
    }
    assert not {a for a in parsed.attributes if a.startswith("on")}
    assert page.count(EVIL) == 0
    assert "".join(parsed.text).count(EVIL) > 20


@given(st.text(alphabet="<>&\"'/ab=-!\n", min_size=4, max_size=40))
def test_whatever_the_texts_the_page_is_whole(text: str) -> None:
    parsed = read(render_trace(a_run(text)))
    assert "script" not in parsed.seen
    assert text in "".join(parsed.text)


def test_page_loads_nothing_from_anywhere() -> None:
    page = render_trace(a_run("plain"))
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", page)
    assert "default-src 'none'" in page


def test_everything_that_happened_is_there() -> None:
    text = "".join(read(render_trace(a_run("word"))).text)
    for part in (
        "word ×1",
        "tokens",
        "2 of 4",
        "supported",
        "limit of 4 tokens",
        "candidate 1",
        "sample 1.1",
        "1 failed",
    ):
        assert part.replace("×", "x") in text


def test_deep_and_half_trees() -> None:
    deep = [StrategyNote(number=i, parent=i - 1 or None, strategy="s", name="node") for i in range(1, 5001)]
    assert read(render_trace(deep)).open == []
    half = [StageStarted(number=40, parent=39, stage="solve")]
    assert "solve, not finished" in "".join(read(render_trace(half)).text)
    assert "The run was not finished" in render_trace([])


def tokens_of(*pieces: str) -> list[TextDelta]:
    return [TextDelta(request=0, sample=0, text=p, tokens=1) for p in pieces]


def test_tokens_are_shaded_within_the_text() -> None:
    done = Completion(
        text="a<b", token_ids=(1, 2, 3, 4), logprobs=(0.0, -0.5, -5.0, -1.0), finish_reason="stop"
    )  # the fourth is the end of text
    pieces = align(done, tokens_of("a", "<", "b"))
    assert pieces is not None
    assert [(p.text, p.logprobs) for p in pieces] == [("a", (0.0,)), ("<", (-0.5,)), ("b", (-5.0,))]
    html = sample_html(done, tokens_of("a", "<", "b"))
    assert re.findall(r'<span( class="p\d")? title="p = [^"]*">([^<]*)</span>', html) == [
        ("", "a"),
        (' class="p2"', "&lt;"),
        (' class="p5"', "b"),
    ]


def test_a_stored_sample_has_its_shades_below() -> None:
    done = Completion(text="ab", token_ids=(1, 2), logprobs=(-0.01, -5.0), finish_reason="stop")
    html = sample_html(done, [])
    assert '<div class="text">ab</div>' in html
    assert html.count("<span") == 2
    assert align(done, tokens_of("a", "X")) is None  # deltas of something else do not colour this text
    assert align(done.model_copy(update={"logprobs": None}), tokens_of("a", "b")) is None
