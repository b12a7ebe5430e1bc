"""`reason keys`: making, listing and revoking keys, and every way to get it wrong."""

import asyncio
import json

import pytest
from reason.core.settings import load_settings
from reason.core.store import open_store
from reason.sidecar.api_keys import parse_key, verify_secret
from reason.sidecar.key_store import KeyStore


def stored():
    async def inside():
        store = await open_store(load_settings().store)
        try:
            return await (await KeyStore.open(store)).keys()
        finally:
            await store.aclose()

    return asyncio.run(inside())


def test_key_is_printed_once_and_stored_as_a_hash(cli, home):
    status, out, err = cli("keys", "create", "robot")
    key_id, secret = parse_key(out.strip())
    (key,) = stored()
    assert status == 0
    assert (key.id, key.name, key.tenant, key.scopes) == (key_id, "robot", "robot", {"ask", "read"})
    assert verify_secret(secret, key.digest)
    assert key.expires is None
    assert "not shown again" in err
    everything = b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    assert key.digest.encode() in everything
    assert secret.encode() not in everything
    for form in ((), ("--json",)):
        shown = cli("keys", "list", *form)[1]
        assert key_id in shown
        assert secret not in shown
        assert key.digest not in shown


def test_all_key_options_are_stored(cli):
    status, out, _ = cli(
        "keys", "create", "lab", "--tenant", "t", "--scope", "read", "--scope", "admin", "--rpm", "5",
        "--concurrency", "2", "--tokens-per-day", "1000", "--usd-per-day", "2.5", "--expires", "90d", "--json",
    )  # fmt: skip
    (key,) = stored()
    payload = json.loads(out)
    assert status == 0
    assert payload == {
        "key": payload["key"],
        "id": key.id,
        "name": "lab",
        "tenant": "t",
        "limits": {"requests_per_minute": 5, "concurrency": 2, "tokens_per_day": 1000, "usd_per_day": 2.5},
        "created": key.created,
        "expires": key.created + 90 * 86_400,
        "revoked": None,
        "scopes": ["admin", "read"],
        "state": "valid",
    }
    assert "5/min, 2 at once, 1000 tokens/day, 2.5 USD/day" in " ".join(cli("keys")[1].split())


def test_a_revoked_key_stays_listed_and_none_is_revoked_if_one_is_unknown(cli):
    cli("keys", "create", "one")
    (key,) = stored()
    status, _, err = cli("keys", "revoke", key.id, "nokey")
    assert (status, "unknown key 'nokey'" in err, stored()[0].revoked) == (2, True, None)
    status, _, err = cli("keys", "revoke", key.id, key.id)
    assert (status, err) == (0, f"revoked {key.id} (one)\n")
    assert json.loads(cli("keys", "list", "--json")[1])["keys"][0]["state"] == "revoked"
    assert cli("keys", "create", "one")[0] == 2  # its runs are still there
    assert cli("keys", "create", "one", "--tenant", "one")[0] == 0


@pytest.mark.parametrize(
    ("options", "expected_text"),
    [
        (["x", "--scope", "write"], "unknown scope 'write'"),
        (["x", "--expires", "soon"], "--expires 'soon' is not a duration"),
        (["x", "--expires", "0d"], "--expires '0d' is not a duration"),
        (["x", "--usd-per-day", "0"], "would allow nothing"),
        (["x", "--usd-per-day", "inf"], "must be finite, got inf"),
        (["x", "--rpm", "0"], "--rpm"),
        (["x", "--tenant", " "], "--tenant is empty"),
        ([" "], "use 1 to 200 characters"),
        ([], "Missing argument"),
    ],
)
def test_invalid_keys_are_refused(cli, options, expected_text):
    status, out, err = cli("keys", "create", *options)
    assert (status, out) == (2, "")
    assert expected_text in err
    assert stored() == []
