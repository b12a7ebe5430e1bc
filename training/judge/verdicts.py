"""Verdicts on many claims: judged in batches and stored in one SQLite file, and what each method decides from them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from labelled_claims import LabelledClaim, shown_passages
from reason.core.errors import StoreError
from reason.core.types import Verdict
from reason.reasoning.knowledge import Retriever
from reason.verify.davinci.davinci import Davinci
from reason.verify.davinci.decision import DavinciConfig, DecisionRule
from reason.verify.davinci.features import claim_features, judged_pair
from reason.verify.entailment.windows import WindowedEntailment
from reason.verify.types import NOTHING, Claim, ClaimReport, Entailment, Pair, Support, support
from reason.verify.verifier import VerifierContext
from verdict_fit import LABELS, GoldLabel, VerdictExample, fit_verdict_model

KIND: Final = "reason verdicts 1"
BUSY_S: Final = 30.0
"""Seconds that a write waits for another process."""
_AT_ONCE: Final = 500
_CLAIMS_AT_ONCE: Final = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (
    backend TEXT NOT NULL,
    pair BLOB NOT NULL,
    supports REAL NOT NULL,
    refutes REAL NOT NULL,
    neutral REAL NOT NULL,
    PRIMARY KEY (backend, pair)
) WITHOUT ROWID;
"""


class VerdictStore:
    """A file of verdicts; each write is one transaction.

    Several processes may use one file. Its methods block for milliseconds and belong to one thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        except (OSError, sqlite3.Error) as e:
            raise StoreError(f"cannot open the verdicts {path}: {e}") from e
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('kind', ?)", (KIND,))
            (kind,) = self._db.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone()
        except (sqlite3.Error, TypeError) as e:
            self._db.close()
            raise StoreError(f"cannot use {path} for verdicts: {e}", hint="name another file") from e
        if kind != KIND:
            self._db.close()
            raise StoreError(f"{path} holds {kind!r}, not {KIND!r}", hint="name another file")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find(self, backend: str, pairs: Sequence[Pair]) -> list[Support | None]:
        """What is known of pairs, in order; None of those that are not."""
        keys = [key_of(pair) for pair in pairs]
        distinct = list(dict.fromkeys(keys))
        known: dict[bytes, Support] = {}
        try:
            for start in range(0, len(distinct), _AT_ONCE):
                part = distinct[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT pair, supports, refutes, neutral FROM verdicts WHERE backend = ? AND pair IN ({marks})"
                known.update((key, Support(*result)) for key, *result in self._db.execute(query, (backend, *part)))
        except sqlite3.Error as e:
            raise StoreError(f"cannot read the verdicts {self.path}: {e}") from e
        return [known.get(key) for key in keys]

    def add(self, backend: str, verdicts: Mapping[Pair, Support]) -> None:
        """Store verdicts, all or none of them; what is known already stays as it is."""
        rows = [(backend, key_of(pair), *support) for pair, support in verdicts.items()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the verdicts {self.path}: {e}") from e

    def count(self, backend: str) -> int:
        """How many pairs of a backend are known."""
        (result,) = self._db.execute("SELECT count(*) FROM verdicts WHERE backend = ?", (backend,)).fetchone()
        return int(result)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._db.close()


def key_of(pair: Pair) -> bytes:
    """A pair by 16 bytes of a hash over its three texts."""
    return hashlib.sha256(json.dumps(list(pair)).encode()).digest()[:16]


BATCH: Final = 512
"""Pairs that are judged, and stored, at a time."""


class JudgedClaim(NamedTuple):
    """A claim and what the judge says of its passages."""

    row: LabelledClaim
    supports: tuple[Support | None, ...]


class StoredEntailment:
    """An entailment that judges what a store does not have, in batches, and stores it (see `Entailment`).

    What could not be read is not stored, and so is judged again when it is requested again. Cancelled, it loses one
    batch up to.
    """

    max_words: int | None = None

    def __init__(self, entailment: Entailment, store: VerdictStore, batch: int = BATCH) -> None:
        full = entailment if entailment.max_words is None else WindowedEntailment(entailment)
        self._entailment, self._store, self._batch = full, store, max(1, batch)
        self.name, self.identity = full.name, full.identity
        self.num_judged = 0

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence states about its claim, in order (see `Entailment.judge`)."""
        results: list[Support | None] = []
        for start in range(0, len(pairs), self._batch):
            results += await self._some(pairs[start : start + self._batch])
        return results

    async def aclose(self) -> None:
        """Close what judges; idempotent."""
        await self._entailment.aclose()

    async def _some(self, pairs: Sequence[Pair]) -> list[Support | None]:
        known = dict(zip(pairs, self._store.find(self.identity, pairs), strict=True))
        missing = [pair for pair, verdict in known.items() if verdict is None]
        if missing:
            values = await self._entailment.judge(missing)
            self.num_judged += len(missing)
            fresh = {pair: verdict for pair, verdict in zip(missing, values, strict=True) if verdict is not None}
            self._store.add(self.identity, fresh)
            # as the store has them: the same before and after a restart
            known.update(fresh)
        return [known[pair] for pair in pairs]


async def judge_claims(
    rows: Sequence[LabelledClaim], entailment: Entailment, progress: Callable[[int], None] = lambda done: None
) -> list[JudgedClaim]:
    """Claims with what the judge says of their passages, in order.

    The pairs are those of `davinci`.
    """
    results: list[JudgedClaim] = []
    for start in range(0, len(rows), _CLAIMS_AT_ONCE):
        part = rows[start : start + _CLAIMS_AT_ONCE]
        pairs = [pairs_of(row) for row in part]
        singles = iter(await entailment.judge([pair for own in pairs for pair in own]))
        supports = [tuple(next(singles) for _ in own) for own in pairs]
        results += [JudgedClaim(row, own) for row, own in zip(part, supports, strict=True)]
        progress(len(results))
    return results


def pairs_of(row: LabelledClaim) -> list[Pair]:
    """The pairs of a claim, one for each passage."""
    return [judged_pair(row.claim, passage) for passage in shown_passages(row)]


async def check_claims(
    claims: Sequence[str], retriever: Retriever, context: VerifierContext, config: DavinciConfig
) -> list[ClaimReport]:
    """The reports of `davinci` on bare claims, without an answer that they come from."""
    bare = [Claim(text=text, start=0, end=len(text)) for text in claims]
    return await Davinci(config).check(bare, await retriever.retrieve(claims, config.k), context)


GOLDS: Final[dict[Verdict, GoldLabel]] = {
    "supported": "supports",
    "refuted": "refutes",
    "not_enough_evidence": "neutral",
    "disputed": "disputed",
}


class ClaimVerdict(NamedTuple):
    """What a method states about a claim."""

    label: GoldLabel
    probs: Support
    shown: tuple[str, ...] = ()


def decide_claim(one: JudgedClaim, rule: DecisionRule) -> ClaimVerdict:
    """What `davinci` decides."""
    passages = one.row.passages or ()
    decision = rule.decide(one.row.claim, passages, one.supports)
    shown = () if decision.verdict == "not_enough_evidence" else tuple(passages[i].id for i in decision.shown)
    return ClaimVerdict(GOLDS[decision.verdict], decision.probs, shown)


def judge_alone(one: JudgedClaim) -> ClaimVerdict:
    """The top label of the passage that the judge is surest supports or refutes; neutral without passages."""
    parsed = [s for s in one.supports if s is not None]
    best = max(parsed, key=lambda s: max(s.supports, s.refutes), default=NOTHING)
    return ClaimVerdict(best.label, best)


def majority(judged: Sequence[JudgedClaim]) -> list[ClaimVerdict]:
    """The most common label for all claims, with the shares of the labels as probabilities."""
    counts = Counter(one.row.gold for one in judged)
    best = max(sorted(counts), key=lambda label: counts[label])
    shares = support(counts[label] for label in LABELS)
    return [ClaimVerdict(best, shares) for _ in judged]


def without_abstaining(verdict: ClaimVerdict) -> ClaimVerdict:
    """The same where "not enough evidence" is no answer: the likelier of the other two, refutes if they are equal."""
    probs = verdict.probs
    total = probs.supports + probs.refutes
    two = Support(probs.supports / total, probs.refutes / total, 0.0) if total > 0 else Support(0.0, 1.0, 0.0)
    return ClaimVerdict("supports" if two.supports > two.refutes else "refutes", two)


def examples_of(judged: Sequence[JudgedClaim]) -> list[VerdictExample]:
    """Claims as the decision is fitted to them; those of which no passage could be parsed are left out."""
    return [
        VerdictExample(
            features=claim_features(one.row.claim, one.row.passages or (), one.supports),
            gold=one.row.gold,
            dataset=one.row.source,
            group=one.row.group or one.row.name,
        )
        for one in judged
        if any(s is not None for s in one.supports)
    ]


def fitted_without(
    examples: Sequence[VerdictExample], dataset: str, rule: DecisionRule, *, judge: str
) -> Callable[[JudgedClaim], ClaimVerdict]:
    """The shipped decision with a model fitted to the examples of all datasets but one."""
    left = [example for example in examples if example.dataset != dataset]
    refitted = DecisionRule(model=fit_verdict_model(left, judge=judge).model, mode=rule.mode)
    return lambda one: decide_claim(one, refitted)
