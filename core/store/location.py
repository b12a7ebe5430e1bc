"""Where a run store is: a SQLite file, or the URL of a Postgres database."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote

from ..errors import UserError

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}")  # paths lose one of two slashes
_NAME = re.compile(r"[\w.~%+-]*")
_SECRET_FIELDS = ("password", "sslpassword", "passfile", "sslkey")


def is_postgres_url(location: Path | str) -> bool:
    """Whether a location is the URL of a Postgres database."""
    return isinstance(location, str) and location.startswith("postgresql://")


def parse_location(location: Path | str) -> Path | str:
    """A location from the command line or a settings file."""
    if isinstance(location, Path):
        return location
    match = _URL.match(location)
    if match is None:
        return Path(location)
    scheme = match["scheme"].lower()
    if scheme not in ("postgresql", "postgres"):
        # the URL may hold a password: it is not shown
        raise UserError(
            f"unsupported run-store URL scheme {scheme!r}", hint="give a file, or postgresql://HOST/DATABASE"
        )
    return "postgresql://" + location[match.end() :]


def redacted_location(location: Path | str) -> str:
    """The location without its password, which is found in malformed URLs too."""
    return redacted_url(str(location)) if is_postgres_url(location) else str(location)


def redacted_url(url: str) -> str:
    """The URL of a database without its password, likewise."""
    scheme, _, address = url.partition("://")
    # whatever an unquoted password contains, it ends at the last "@"
    user, at, rest = address.rpartition("@")
    name, colon, _ = user.partition(":")
    if not _NAME.fullmatch(name):  # not parsable: show nothing of it
        return f"{scheme}://…"
    server, question, query = rest.partition("?")
    fields = ((k, "***" if k.lower() in _SECRET_FIELDS else quote(v, safe="/")) for k, v in parse_qsl(query))
    shown = "&".join(f"{quote(k)}={v}" for k, v in fields)
    return f"{scheme}://{name}{':***' if colon else ''}{at}{server}{question and '?'}{shown}"


def require_file(location: Path | str, users: str) -> Path:
    """The file, for commands that work with files only."""
    if isinstance(location, Path):
        return location
    raise UserError(
        f"{users} keep their runs in an SQLite file, not in {redacted_location(location)}",
        hint="give a file with --store",
    )
