"""`reason keys`: create, list and revoke the API keys of the REST sidecar. A key is shown once, at its creation."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .command import option_model
from .options import Json, Store, parse_seconds
from .render.console import age, out, plain_table, printable, say, write_json, write_line
from .run_store import with_store

if TYPE_CHECKING:
    from ..core.store.sql import RunStore
    from ..sidecar.key_store import ApiKey, KeyStore

T = TypeVar("T")

keys_app = typer.Typer(help="Create, list and revoke the API keys of the REST sidecar.")


@keys_app.callback(invoke_without_command=True)
def keys(context: typer.Context) -> None:
    """Create, list and revoke the API keys of the REST sidecar.

    The run store holds the keys as hashes. A running server applies changes within seconds.
    """
    if context.invoked_subcommand is None:
        list_()


@dataclass(frozen=True, kw_only=True)
class CreateKeyOptions:
    """Options of `reason keys create`."""

    name: Annotated[str, typer.Argument(metavar="NAME", help="Name the key, for people.")]
    tenant: Annotated[
        str | None,
        typer.Option(metavar="T", help="Let the key see and create the runs of this tenant. (default: NAME)"),
    ] = None
    scopes: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="S",
            help="Permit ask, read or admin. Repeatable. (default: ask and read)",
            show_default=False,
        ),
    ] = field(default_factory=list)
    rpm: Annotated[int | None, typer.Option(min=1, metavar="N", help="Limit the requests per minute.")] = None
    concurrency: Annotated[int | None, typer.Option(min=1, metavar="N", help="Limit the runs in flight.")] = None
    tokens_per_day: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Limit the paid tokens of the tenant per day.")
    ] = None
    usd_per_day: Annotated[
        float | None, typer.Option(min=0.0, metavar="X", help="Limit the cost of the tenant per day, in US dollars.")
    ] = None
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Let the key expire after this time, for example 12h, 90d or 8w.")
    ] = None
    as_json: Json = False
    store: Store = None


@keys_app.command()
@option_model
def create(options: CreateKeyOptions) -> None:
    """Create a key and print it. It cannot be shown again."""
    from ..core.errors import UserError
    from ..sidecar.api_keys import new_key
    from ..sidecar.key_store import ApiKey, KeyLimits

    name, tenant, usd_per_day = options.name, options.tenant, options.usd_per_day
    if not name.strip() or len(name) > 200:
        raise UserError(f"invalid key name {name[:40]!r}", hint="use 1 to 200 characters")
    if tenant is not None and not tenant.strip():
        raise UserError("--tenant is empty, which is the tenant of servers without keys", hint="give --tenant a name")
    if usd_per_day == 0.0:
        raise UserError("--usd-per-day 0 would allow nothing", hint="revoke the key instead, or raise the limit")
    if usd_per_day is not None and not math.isfinite(usd_per_day):
        raise UserError(f"--usd-per-day must be finite, got {usd_per_day}", hint="leave it out for no limit")
    scopes = frozenset(options.scopes or ("ask", "read"))
    if unknown := scopes - {"ask", "read", "admin"}:
        raise UserError(f"unknown scope {min(unknown)!r}", hint="use ask, read or admin")
    now = time.time()
    text, key_id, digest = new_key()
    key = ApiKey(
        id=key_id,
        name=name,
        tenant=tenant or name,
        digest=digest,
        scopes=scopes,
        limits=KeyLimits(
            requests_per_minute=options.rpm,
            concurrency=options.concurrency,
            tokens_per_day=options.tokens_per_day,
            usd_per_day=usd_per_day,
        ),
        created=now,
        expires=None if options.expires is None else now + parse_seconds(options.expires, "--expires"),
    )

    async def add(keys: KeyStore) -> None:
        if tenant is None:
            _refuse_known_tenant(name, await keys.keys())
        await keys.add(key)

    _with_keys(options.store, add)
    if options.as_json:
        write_json({"key": text, **_record(key, now)})
        return
    write_line(text)
    say(f"created key {key_id} of tenant {printable(key.tenant)}; it is not shown again", label="note")


@dataclass(frozen=True, kw_only=True)
class ListKeysOptions:
    """Options of `reason keys list`."""

    as_json: Json = False
    store: Store = None


@keys_app.command("list")
@option_model
def list_(options: ListKeysOptions) -> None:
    """List the keys, without their secrets."""
    from rich.text import Text

    stored = _with_keys(options.store, lambda keys: keys.keys())
    now = time.time()
    if options.as_json:
        write_json({"keys": [_record(key, now) for key in stored]})
        return
    if not stored:
        say("no keys yet")
        return
    table = plain_table("id", "name", "tenant", "scopes", "limits", "age", "state")
    for key in stored:
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


@dataclass(frozen=True, kw_only=True)
class RevokeKeysOptions:
    """Options of `reason keys revoke`."""

    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Revoke the keys of these IDs; [b]reason keys list[/b] lists them."),
    ]
    store: Store = None


@keys_app.command()
@option_model
def revoke(options: RevokeKeysOptions) -> None:
    """Revoke keys. A running server refuses them within seconds; their runs in flight finish."""
    from ..core.errors import UnknownName

    async def run(keys: KeyStore) -> list[ApiKey]:
        for key_id in options.ids:  # check all before revoking any
            if await keys.find(key_id) is None:
                raise UnknownName("key", key_id, hint="`reason keys list` lists the keys")
        return [await keys.revoke(key_id) for key_id in dict.fromkeys(options.ids)]

    for key in _with_keys(options.store, run):
        say(f"revoked {key.id} ({printable(key.name)})")


def _with_keys(location: str | None, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    """Run `work` on the keys of the run store at the value of --store."""
    from ..sidecar.key_store import KeyStore

    async def run(runs: RunStore) -> T:
        return await work(await KeyStore.open(runs))

    return with_store(location, run)


def _refuse_known_tenant(name: str, known: list[ApiKey]) -> None:
    """Refuse a name that would silently share the runs of an existing, or revoked, key's tenant."""
    from ..core.errors import UserError

    if any(key.tenant == name for key in known):
        raise UserError(
            f"the tenant {name!r} already has a key, or had one",
            hint="choose another name, or pass --tenant to share its runs",
        )


def _state(key: ApiKey, now: float) -> str:
    if key.revoked is not None:
        return "revoked"
    return "valid" if key.is_valid(now) else "expired"


def _limits(key: ApiKey) -> str:
    limits = key.limits
    values = (
        (limits.requests_per_minute, "/min"),
        (limits.concurrency, " at once"),
        (limits.tokens_per_day, " tokens/day"),
        (limits.usd_per_day, " USD/day"),
    )
    return ", ".join(f"{value:.12g}{unit}" for value, unit in values if value is not None)


def _record(key: ApiKey, now: float) -> dict[str, Any]:
    """A key as JSON, without its digest."""
    record = key.model_dump(mode="json", exclude={"digest", "scopes"})
    return {**record, "scopes": sorted(key.scopes), "state": _state(key, now)}
