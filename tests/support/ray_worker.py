"""What the workers of a test's Ray cluster import first: it shortens the lease of a process in Postgres."""

from __future__ import annotations

import os

from reason.core.store.postgres import PostgresStore

lease_s = float(os.environ["REASON_TEST_LEASE_S"])
if lease_s:
    PostgresStore.open.__func__.__kwdefaults__.update(lease_s=lease_s, renew_s=lease_s / 6)  # type: ignore[attr-defined]
