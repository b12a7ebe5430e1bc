"""`reason keys`: who may call the REST sidecar. A key is shown once, when it is made."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, Store
from .render.console import out, plain_table, printable, say, write_json, write_line
from .run_store import with_store

if TYPE_CHECKING:
    from ..core.api_keys import ApiKey
    from ..core.store import RunStore

keys_app = typer.Typer(help="Make, list and revoke the keys of the REST sidecar.")

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@keys_app.callback(invoke_without_command=True)
def keys(context: typer.Context) -> None:
    """Make, list and revoke the keys of the REST sidecar.

    Keys lie in the run store, as hashes. A running server sees a new or revoked one within seconds.
    """
    if context.invoked_subcommand is None:
        list_()


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call the key.", show_default=False)],
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", metavar="T", help="Whose runs it sees and makes. (default: NAME)", show_default=False),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="S",
            help="What it allows: ask, read, admin; may be given several times. (default: ask and read)",
            show_default=False,
        ),
    ] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, metavar="N", help="Most requests a minute.")] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, metavar="N", help="Most runs under way at once.")
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option("--tokens-per-day", min=1, metavar="N", help="Most tokens its tenant may pay for.")
    ] = None,
    usd_per_day: Annotated[
        float | None, typer.Option("--usd-per-day", min=0.0, metavar="X", help="Most US dollars likewise.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="How long it is good: 12h, 90d, 8w.")
    ] = None,
    as_json: Json = False,
    store: Store = None,
) -> None:
    """Make a key and print it. It cannot be shown again."""
    from ..core.api_keys import ApiKey, KeyLimits
    from ..core.errors import UserError
    from ..sidecar.gate.key_text import new_key

    if not name.strip() or len(name) > 200:
        raise UserError(f"key name {name[:40]!r}: give 1 to 200 characters")
    if tenant is not None and not tenant.strip():
        raise UserError("an empty tenant is that of servers without keys", hint="give --tenant a name")
    if usd_per_day == 0.0:
        raise UserError("--usd-per-day 0 would allow nothing", hint="revoke the key instead, or give more")
    if usd_per_day is not None and not math.isfinite(usd_per_day):
        raise UserError(f"--usd-per-day {usd_per_day} is no amount", hint="leave it out for no limit")
    scopes = frozenset(scope or ("ask", "read"))
    if unknown := scopes - {"ask", "read", "admin"}:
        raise UserError(f"unknown scope {min(unknown)!r}", hint="there are ask, read and admin")
    now = time.time()
    text, key_id, digest = new_key()
    key = ApiKey(
        id=key_id,
        name=name,
        tenant=tenant or name,
        digest=digest,
        scopes=scopes,
        limits=KeyLimits(
            requests_per_minute=rpm, concurrency=concurrency, tokens_per_day=tokens_per_day, usd_per_day=usd_per_day
        ),
        created=now,
        expires=None if expires is None else now + _seconds(expires),
    )

    async def add(s: RunStore) -> None:
        if tenant is None:
            _refuse_namesake(name, await s.list_keys())
        await s.add_key(key)

    with_store(store, add)
    if as_json:
        write_json({"key": text, **_record(key, now)})
        return
    write_line(text)
    say(f"key {key_id} of tenant {printable(key.tenant)} is made; it is not shown again", label="note")


@keys_app.command("list")
def list_(as_json: Json = False, store: Store = None) -> None:
    """List the keys; never their secrets."""
    from rich.text import Text

    found = with_store(store, lambda s: s.list_keys())
    now = time.time()
    if as_json:
        write_json({"keys": [_record(key, now) for key in found]})
        return
    if not found:
        say("no keys yet")
        return
    from .render.run_page import age

    table = plain_table("id", "name", "tenant", "scopes", "limits", "age", "state")
    for key in found:
        table.add_row(
            key.id,
            Text(printable(key.name)),
            Text(printable(key.tenant)),
            " ".join(sorted(key.scopes)),
            _limits(key),
            age(now - key.created),
            _state(key, now),
        )
    out().print(table)


@keys_app.command()
def revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of keys, as `reason keys list` shows them.")],
    store: Store = None,
) -> None:
    """Revoke keys. A running server refuses them within seconds; runs under way go on."""
    from ..core.errors import UnknownName

    async def go(s: RunStore) -> list[ApiKey]:
        for one in ids:  # all of them are looked for before any is revoked
            if await s.find_key(one) is None:
                raise UnknownName("key", one, hint="`reason keys list` shows those there are")
        return [await s.revoke_key(one) for one in dict.fromkeys(ids)]

    for key in with_store(store, go):
        say(f"revoked {key.id} ({printable(key.name)})")


def _refuse_namesake(name: str, known: list[ApiKey]) -> None:
    """Keys of one tenant see each other's runs, and those of a revoked key stay: no name gives them away by chance."""
    from ..core.errors import UserError

    if any(key.tenant == name for key in known):
        raise UserError(
            f"a key of tenant {name!r} is or was there already",
            hint="choose another name, or say --tenant for a key that sees the same runs",
        )


def _seconds(text: str) -> float:
    from ..core.errors import UserError

    found = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if found is None or int(found[1]) == 0:
        raise UserError(f"--expires {text[:40]!r} is no time", hint="write 30m, 12h, 90d or 8w")
    return int(found[1]) * _UNITS[found[2]]


def _state(key: ApiKey, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    return "good" if key.is_good(now) else "expired"


def _limits(key: ApiKey) -> str:
    limits = key.limits
    told = (
        (limits.requests_per_minute, "/min"),
        (limits.concurrency, " at once"),
        (limits.tokens_per_day, " tokens/day"),
        (limits.usd_per_day, " USD/day"),
    )
    return ", ".join(f"{value:.12g}{unit}" for value, unit in told if value is not None)


def _record(key: ApiKey, now: float) -> dict[str, Any]:
    """A key as JSON, without its digest."""
    told = key.model_dump(mode="json", exclude={"digest", "scopes"})
    return {**told, "scopes": sorted(key.scopes), "state": _state(key, now)}
