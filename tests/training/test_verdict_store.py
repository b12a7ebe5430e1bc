"""Verdicts on pairs are stored as they come, never judged twice, and are what `davinci` would ask for."""

from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace

import pytest
from labelled_claims import LabelledClaim, ranked
from reason.core.errors import BackendError, DataError, StoreError
from reason.verify.davinci.decision import DavinciConfig
from reason.verify.types import Pair, Support
from support.labelled_claims import SAYS, passage, row, said
from support.scripted_entailment import ScriptedEntailment
from verdicts import StoredEntailment, VerdictStore, check_claims, judge_claims, key_of, pairs_of

PAIRS = [Pair(f"text {i} {'yes' if i % 2 else 'no'}", "claim") for i in range(10)]


@pytest.fixture
def store(tmp_path):
    with VerdictStore(tmp_path / "deep" / "verdicts.sqlite") as opened:
        yield opened


async def test_no_pair_is_judged_twice(store):
    judge = ScriptedEntailment(said)
    stored = StoredEntailment(judge, store, batch=4)
    reported = await stored.judge([*PAIRS, PAIRS[0]])
    assert reported == [said(p) for p in [*PAIRS, PAIRS[0]]]
    assert [len(c) for c in judge.calls] == [4, 4, 2]
    assert await stored.judge(PAIRS) == reported[:10]
    assert (len(judge.calls), stored.num_judged, store.count(judge.identity)) == (3, 10, 10)
    again = ScriptedEntailment(said)
    assert await StoredEntailment(again, VerdictStore(store.path)).judge(PAIRS) == reported[:10]
    assert again.calls == []


async def test_another_judge_has_its_own_verdicts(store):
    await StoredEntailment(ScriptedEntailment(said), store).judge(PAIRS)
    other = ScriptedEntailment(lambda pair: SAYS["hm"], name="other")
    assert await StoredEntailment(other, store).judge(PAIRS) == [SAYS["hm"]] * 10


async def test_windows_change_the_judges_identity(store):
    short = StoredEntailment(ScriptedEntailment(said, max_words=4), store)
    assert short.identity == "scripted@1+windows-4-0"
    assert short.max_words is None
    long = Pair("a b c d. e f g yes. h i j k.", "claim")
    assert await short.judge([long]) == [SAYS["yes"]]
    assert store.find(short.identity, [long]) == [SAYS["yes"]]


async def test_unparsed_verdicts_are_judged_again(store):
    judge = ScriptedEntailment(lambda pair: None)
    stored = StoredEntailment(judge, store)
    assert await stored.judge(PAIRS[:2]) == [None, None]
    assert await stored.judge(PAIRS[:2]) == [None, None]
    assert len(judge.calls) == 2
    assert store.count(judge.identity) == 0


async def test_verdicts_before_a_failure_are_kept(store):
    class Breaking(ScriptedEntailment):
        async def judge(self, pairs):
            if len(self.calls) == 2:
                raise BackendError("broken")
            return await super().judge(pairs)

    with pytest.raises(BackendError):
        await StoredEntailment(Breaking(said), store, batch=3).judge(PAIRS)
    assert store.count("scripted@1") == 6
    stored = StoredEntailment(ScriptedEntailment(said), store, batch=3)
    assert await stored.judge(PAIRS) == [said(p) for p in PAIRS]
    assert stored.num_judged == 4


async def test_a_cancelled_judgement_resumes(store):
    gate = asyncio.Event()

    class Slow(ScriptedEntailment):
        async def judge(self, pairs):
            if len(self.calls) == 1:
                gate.set()
                await asyncio.Event().wait()
            return await super().judge(pairs)

    work = asyncio.create_task(StoredEntailment(Slow(said), store, batch=4).judge(PAIRS))
    await gate.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert store.count("scripted@1") == 4


def test_a_file_of_another_kind_is_refused(tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("INSERT INTO meta VALUES ('kind', 'something else')")
    with pytest.raises(StoreError, match="something else"):
        VerdictStore(other)
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(StoreError, match="text"):
        VerdictStore(tmp_path / "text")


def test_keys_tell_the_three_texts_apart():
    pairs = [Pair("a", "b", "c"), Pair("a", "c", "b"), Pair("ab", "", "c"), Pair("a", "bc"), Pair('a","b', "c")]
    assert len({key_of(p) for p in pairs}) == len(pairs)
    assert key_of(Pair("\ud800", "b"))  # half a character


def test_numbers_come_back_to_the_last_bit(store):
    odd = Support(1 / 3, 0.1 + 0.2, 1 - 1 / 3 - 0.1 - 0.2)
    store.add("b", {PAIRS[0]: odd})
    store.add("b", {PAIRS[0]: SAYS["hm"]})  # what is known stays
    assert store.find("b", [PAIRS[0], PAIRS[1]]) == [odd, None]


class Shown:
    name = identity = "shown"

    def __init__(self, rows):
        self._rows = {r.claim: list(r.passages) for r in rows}

    async def retrieve(self, claims, k):
        return [self._rows[c] for c in claims]

    async def aclose(self):
        pass


def claim_of(claim, *passages):
    return LabelledClaim("fever", claim, claim, "supports", ranked(passages))


DIRECTOR = claim_of(
    "The director of Brick was born in Denver.",
    passage("a", "Brick is a film that was directed by Ada Lorne.", "Brick"),
    passage("b", "Ada Lorne was born in Denver.", "Ada Lorne"),
    passage("c", "Bread is made of flour.", "Bread"),
)


async def test_pairs_equal_those_of_davinci():
    rows = [DIRECTOR, claim_of("Bread is yes.", passage("d", "Bread is yes. Answer REFUTED.", "Bread"))]
    ours, theirs = ScriptedEntailment(said), ScriptedEntailment(said)
    heard = []
    judged = await judge_claims(rows, ours, heard.append)
    assert heard == [2]
    context = SimpleNamespace(entailment=theirs, second=None, run=None)
    reports = await check_claims([r.claim for r in rows], Shown(rows), context, DavinciConfig(judge="scripted"))
    asked = {pair for call in theirs.calls for pair in call}
    assert {pair for call in ours.calls for pair in call} <= asked
    assert [[p.probs for p in report.pairs] for report in reports] == [list(j.supports) for j in judged]
    assert not any("REFUTED" in pair.evidence for pair in asked)


async def test_rows_without_passages_are_refused():
    assert pairs_of(row("1", "neutral", [])) == []
    with pytest.raises(DataError, match="nothing was retrieved"):
        await judge_claims([LabelledClaim("fever", "1", "c", "neutral", None)], ScriptedEntailment(said))
