"""The tables of a Postgres run store."""

from __future__ import annotations

from .group_commit import Connection

SCHEMA_VERSION = 1

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE owners (id TEXT PRIMARY KEY, lease_until DOUBLE PRECISION NOT NULL);
CREATE TABLE runs (
    id TEXT COLLATE "C" PRIMARY KEY,
    created DOUBLE PRECISION NOT NULL,
    updated DOUBLE PRECISION NOT NULL,
    status TEXT NOT NULL,
    config TEXT NOT NULL,
    identities TEXT NOT NULL DEFAULT '{}',
    answer TEXT,
    error TEXT,
    owner TEXT,
    tenant TEXT NOT NULL DEFAULT '',
    background INTEGER NOT NULL DEFAULT 0,
    idempotency TEXT,
    digest TEXT NOT NULL DEFAULT '',
    cancel INTEGER NOT NULL DEFAULT 0,
    counted INTEGER NOT NULL DEFAULT 0,
    charged_tokens BIGINT NOT NULL DEFAULT 0,
    charged_usd DOUBLE PRECISION NOT NULL DEFAULT 0
);
CREATE INDEX runs_created ON runs (created, id);
CREATE UNIQUE INDEX runs_idempotency ON runs (tenant, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX runs_of_tenant ON runs (tenant, created, id);
CREATE INDEX runs_to_adopt ON runs (created, id) WHERE background = 1 AND status IN ('queued', 'running');
CREATE TABLE calls (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    key TEXT COLLATE "C" NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT NOT NULL,
    cut INTEGER NOT NULL DEFAULT 0,
    created DOUBLE PRECISION NOT NULL,
    tokens BIGINT NOT NULL DEFAULT 0,
    usd DOUBLE PRECISION NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, key)
);
CREATE INDEX calls_key ON calls (key);
CREATE TABLE events (
    run_id TEXT COLLATE "C" NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    event TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
);
CREATE TABLE checkpoints (
    thread_id TEXT COLLATE "C" NOT NULL,
    checkpoint_ns TEXT COLLATE "C" NOT NULL DEFAULT '',
    checkpoint_id TEXT COLLATE "C" NOT NULL,
    parent_checkpoint_id TEXT,
    type TEXT NOT NULL,
    checkpoint BYTEA NOT NULL,
    metadata BYTEA NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
CREATE TABLE spending (
    tenant TEXT NOT NULL,
    day TEXT COLLATE "C" NOT NULL,
    tokens BIGINT NOT NULL,
    usd DOUBLE PRECISION NOT NULL,
    runs BIGINT NOT NULL,
    PRIMARY KEY (tenant, day)
);
CREATE TABLE api_keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    scopes TEXT NOT NULL,
    limits TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION,
    revoked DOUBLE PRECISION
)
"""

_STEPS = (_FIRST,)
"""What makes each version of the one before."""

_LOCK = 0x7265_6173_6F6E
"""Number of the lock under which one process at a time makes tables."""


def version_of(db: Connection) -> int:
    """The database's version; 0 if it has no tables of ours.

    The catalogue is asked as any table is: by name (`to_regclass`) Postgres may answer from what it knew when the
    transaction began, while it was waiting for another process that makes the tables.
    """
    if not db.execute("SELECT 1 FROM pg_tables WHERE tablename = 'meta' AND schemaname = ANY (current_schemas(false))"):
        return 0
    rows = db.execute("SELECT value FROM meta WHERE key = 'schema'")
    return int(rows[0][0]) if rows else 0


def make_tables(db: Connection) -> None:
    """Make the tables, or bring those of an older version up to date; to be called in a transaction."""
    db.execute("SELECT pg_advisory_xact_lock(?)", (_LOCK,))
    for version in range(version_of(db), SCHEMA_VERSION):  # another process may have been faster
        for statement in _STEPS[version].split(";\n"):
            db.write(statement, ())
    db.write(
        "INSERT INTO meta VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (str(SCHEMA_VERSION),),
    )
