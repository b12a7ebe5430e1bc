"""What the user gives an evaluation with, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from ..evals.datasets.own import parse_map
from ..evals.plan import TaskSource
from ..evals.task import absolute


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


def parse_source(given: str, mapping: str | None = None) -> TaskSource:
    """A dataset from `NAME`, `NAME=FILE` or `FILE`.

    Args:
        given: As the user wrote it behind --data.
        mapping: Which field of the file is what, as behind --map.

    Raises:
        UserError: There is nothing in front of or behind the sign.
    """
    name, equals, path = (part.strip() for part in given.partition("="))
    if not name or (equals and not path):
        raise UserError(f"--data {given!r} is not NAME or NAME=FILE", hint="for example --data gsm8k=gsm8k.jsonl")
    return absolute(
        TaskSource(dataset=name, data=Path(path) if path else None, map=parse_map(mapping) if mapping else {})
    )
