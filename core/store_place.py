"""Where a run store is: a SQLite file, or the address of a Postgres database."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote

from .errors import UserError

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}")  # as paths lose one of two slashes
_NAME = re.compile(r"[\w.~%+-]*")
_SECRET = ("password", "sslpassword", "passfile", "sslkey")


def is_postgres(place: Path | str) -> bool:
    """Whether it is the address of a Postgres database."""
    return isinstance(place, str) and place.startswith("postgresql://")


def read_place(given: Path | str) -> Path | str:
    """A place as it was given on the command line or in a settings file.

    Returns:
        The path of a file, or an address that begins with `postgresql://`.

    Raises:
        UserError: It is the address of something else.
    """
    if isinstance(given, Path):
        return given
    found = _URL.match(given)
    if found is None:
        return Path(given)
    scheme = found["scheme"].lower()
    if scheme not in ("postgresql", "postgres"):
        # the address may hold a password: it is not shown
        raise UserError(f"a run store cannot be at {scheme}://…", hint="give a file, or postgresql://HOST/DATABASE")
    return "postgresql://" + given[found.end() :]


def shown_store(place: Path | str) -> str:
    """The place as it may be shown: an address without its password, also one that is not written as it should be."""
    if not is_postgres(place):
        return str(place)
    # whatever a password that was not quoted holds, it goes up to the last "@"
    user, at, rest = str(place).removeprefix("postgresql://").rpartition("@")
    name, colon, _ = user.partition(":")
    if not _NAME.fullmatch(name):  # no address that can be read: rather show nothing of it
        return "postgresql://…"
    where, question, query = rest.partition("?")
    fields = ((k, "***" if k.lower() in _SECRET else quote(v, safe="/")) for k, v in parse_qsl(query))
    shown = "&".join(f"{quote(k)}={v}" for k, v in fields)
    return f"postgresql://{name}{':***' if colon else ''}{at}{where}{question and '?'}{shown}"


def file_of(place: Path | str, what: str) -> Path:
    """The file, for what works on one alone.

    Args:
        place: The place.
        what: Who works on a file alone, in the plural.

    Raises:
        UserError: It is a database.
    """
    if isinstance(place, Path):
        return place
    raise UserError(
        f"{what} keep their runs in an SQLite file, not in {shown_store(place)}", hint="give a file with --store"
    )
