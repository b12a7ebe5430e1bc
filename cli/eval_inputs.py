"""What the user gives an evaluation with, read and checked."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import UserError


def parse_shard(given: str | None) -> tuple[int, int] | None:
    """`I/N`, counted from 1, as (position from 0, count).

    Raises:
        UserError: It is not of that form, or there is no such shard.
    """
    if given is None:
        return None
    index, slash, count = given.partition("/")
    if not slash or not index.isascii() or not index.isdigit() or not count.isascii() or not count.isdigit():
        raise UserError(f"--shard {given!r} is not I/N", hint="for example --shard 1/4")
    if not 1 <= int(index) <= int(count):
        raise UserError(f"--shard {given!r}: there is no shard {index} of {count}", hint="shards are counted from 1")
    return int(index) - 1, int(count)


def parse_texts(given: Sequence[str], flag: str) -> dict[str, str]:
    """Texts from `key=value`.

    Args:
        given: As the user wrote them.
        flag: The flag, for messages.

    Raises:
        UserError: One has no `=` or no key, or a key comes twice.
    """
    found: dict[str, str] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{flag} {item!r} is not key=value")
        if key.strip() in found:
            raise UserError(f"{flag} names {key.strip()!r} twice")
        found[key.strip()] = value.strip()
    return found
