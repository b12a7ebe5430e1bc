"""The tables of a SQLite run store, and how a file of an older version is brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..errors import StoreError

SCHEMA_VERSION = 2

_FIRST = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    status TEXT NOT NULL,
    config TEXT NOT NULL,
    identities TEXT NOT NULL DEFAULT '{}',
    answer TEXT,
    error TEXT,
    owner TEXT
);
CREATE INDEX IF NOT EXISTS runs_created ON runs (created);
CREATE TABLE IF NOT EXISTS calls (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT NOT NULL,
    cut INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    PRIMARY KEY (run_id, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_key ON calls (key);
CREATE TABLE IF NOT EXISTS events (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID
"""

_SECOND = """
ALTER TABLE runs ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN background INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN idempotency TEXT;
ALTER TABLE runs ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN cancel INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN charged_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN charged_usd REAL NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX runs_idempotency ON runs (tenant, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX runs_of_tenant ON runs (tenant, created);
CREATE INDEX runs_to_adopt ON runs (created) WHERE background = 1 AND status IN ('queued', 'running');
ALTER TABLE calls ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN usd REAL NOT NULL DEFAULT 0;
CREATE TABLE spending (
    tenant TEXT NOT NULL,
    day TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    usd REAL NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) WITHOUT ROWID;
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    scopes TEXT NOT NULL,
    limits TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL,
    revoked REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL DEFAULT '',
    checkpoint_id TEXT NOT NULL,
    parent_checkpoint_id TEXT,
    type TEXT,
    checkpoint BLOB,
    metadata BLOB,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
)
"""
"""`checkpoints` is as LangGraph's own SQLite checkpointer made it in files of the first version."""

_STEPS = (_FIRST, _SECOND)
"""What makes each version of the one before."""


def make_tables(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or bring those of an older version up to date, in one transaction.

    Several processes may try at the same time: the second finds it done. A process of the older version that has the
    file open goes on, since nothing that it writes is missing afterwards.

    Raises:
        StoreError: The file was written by a newer version of `reason`.
    """
    if _version(db, path) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_version(db, path), SCHEMA_VERSION):
            for statement in _STEPS[version].split(";\n"):
                db.execute(statement)
        if _has_table(db, "writes"):
            # LangGraph's checkpointer of the first version kept here what stages wrote between two checkpoints
            db.execute("DELETE FROM writes")
        db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection, path: Path) -> int:
    """The file's version; 0 if it has no tables of ours."""
    if not _has_table(db, "meta"):
        return 0
    row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    version = int(row[0]) if row else 0
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer version of reason (schema {version})", hint="upgrade reason")
    return version


def _has_table(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone() is not None
