"""`load_dataset`: loads a dataset by name, from the hub or a local file, and checks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from ...core.errors import DataError, UnknownName, UserError
from ...core.registry import nearest
from .custom import CUSTOM, FIELDS
from .items import Dataset, Item, fingerprint
from .records import Record, find_files, package_file, read_file, read_hub, rename_fields, sha256_of
from .spec import DATASETS, DatasetSpec, ReadOptions


def load_dataset(
    name: str,
    *,
    data: Path | None = None,
    mapping: Mapping[str, str] | None = None,
    variant: str = "",
    seed: int | None = 0,
    limit: int | None = None,
    split: str = "",
    revision: str = "",
    options: Mapping[str, str] | None = None,
) -> Dataset:
    """Read a dataset.

    Args:
        name: Its registered name, with the variant after a colon if one is requested (`truthfulqa:mc2`, `aime:2024`);
            or the path of a JSONL or CSV file of one's own.
        data: A local file, or a directory that holds it; None reads from the hub at a pinned commit.
        seed: Seed of the order in which choices and evidence are shown; None leaves the source's.

    Raises:
        UnknownName: There is no such dataset, variant or option.
        UserError: An option is invalid.
        DataError: A file or record is not what it should be; names file and line.
        BackendUnavailable: The hub cannot be reached.
    """
    recipe, data, variant = _resolve(name, data, variant)
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit} asks for no item", hint="at least 1")
    options = dict(options or {})
    for option in options:
        if option not in recipe.options:
            raise UnknownName(f"option of {recipe.name}", option, nearest(option, recipe.options))
    reading = ReadOptions(recipe.name, variant, seed, data, options)
    rows, source, result, digest = _rows(recipe, reading, revision, split)
    if mapping:
        if recipe.name == CUSTOM.name:
            for field in mapping:
                if field not in FIELDS:
                    raise UnknownName("field of --map", field, nearest(field, FIELDS))
        rows = rename_fields(rows, mapping)
    items = tuple(_items(recipe, rows, reading, source))
    return Dataset(
        name=data.stem if recipe.name == CUSTOM.name and data is not None else recipe.name,
        variant=variant,
        source=source,
        revision=result,
        sha256=digest,
        options={
            **options,
            "variant": variant,
            "seed": seed,
            **({"split": split} if split else {}),
            **({"map": dict(mapping)} if mapping else {}),
        },
        licence=recipe.licence,
        warning=recipe.warning,
        prompt=recipe.prompt,
        items=items[:limit],
        size=len(items),
        fingerprint=fingerprint(items),
    )


def _resolve(name: str, data: Path | None, variant: str) -> tuple[DatasetSpec, Path | None, str]:
    """The recipe, the local path and the variant that are meant."""
    if data is None and name.lower().endswith((".jsonl", ".csv")):
        return CUSTOM, Path(name), ""
    base, colon, behind = name.partition(":")
    recipe = DATASETS.load(base)
    if colon and variant and behind != variant:
        raise UserError(f"{name!r} and variant={variant!r} name two variants")
    variant = behind or variant or recipe.default_variant
    if recipe.free_variant is None and variant not in recipe.variants and (variant or recipe.variants):
        raise UnknownName(
            f"variant of {base}",
            variant,
            nearest(variant, recipe.variants),
            hint=f"known: {', '.join(recipe.variants)}",
        )
    return recipe, data, variant


def _rows(
    recipe: DatasetSpec, reading: ReadOptions, revision: str, split: str
) -> tuple[Iterator[Record], str, str, str]:
    """Records, the source's name, the commit on the hub, and the digest of local files."""
    if reading.data is not None:
        if revision or split:
            raise UserError("a local file has no revision and no split", hint="leave them away, or leave --data away")
        paths = find_files(reading.data, recipe.folders)
        return (row for p in paths for row in read_file(p)), ", ".join(map(str, paths)), "", sha256_of(paths)
    if recipe.package is not None:
        if revision or split:
            raise UserError(f"{recipe.name} comes with a package, and has no revision and no split")
        path, version = package_file(recipe.package)
        return read_file(path), f"{recipe.package.install} {version}", "", sha256_of([path])
    sources = recipe.hub(reading.variant)
    if not sources:
        raise UserError(f"{recipe.name} is not on the hub", hint="give its file with --data FILE")
    if len(sources) > 1 and (revision or split):
        raise UserError(
            f"{recipe.name}:{reading.variant} comes from {len(sources)} sources, so one revision or split cannot be "
            "asked for",
            hint="name a narrower variant",
        )
    read = [read_hub(s, revision=revision, split=split) for s in sources]
    names = [f"{s.repo}@{commit}" if commit else s.repo for s, (_, commit) in zip(sources, read, strict=True)]
    return (row for rows, _ in read for row in rows), ", ".join(names), "+".join(c for _, c in read if c), ""


class _Watched:
    """Records on their way to a reader; knows which it took last, which is where an item or an error came from."""

    def __init__(self, rows: Iterator[Record]) -> None:
        self._rows = rows
        self.where = ""

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        row = next(self._rows)
        self.where = row.where
        return row


def _items(recipe: DatasetSpec, rows: Iterator[Record], reading: ReadOptions, source: str) -> Iterator[Item]:
    """The items; checks that there are some and that their ids are unique.

    Raises:
        DataError: Two share a name, there is none, or a record makes no item.
    """
    watched = _Watched(rows)
    positions: dict[str, str] = {}
    try:
        for item in recipe.read(watched, reading):
            if item.id in positions:
                raise DataError(f"{watched.where}: the id {item.id!r} is that of {positions[item.id]} already")
            positions[item.id] = watched.where
            yield item
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{watched.where}: {field or 'the record'}: {first['msg']}") from e
    if not positions:
        what = f"{reading.name}:{reading.variant}" if reading.variant else reading.name
        if recipe.name == CUSTOM.name:
            raise DataError(f"{source} has no question in it", hint="one record a line; a CSV file needs a header too")
        raise DataError(
            f"{source} has no item of {what}", hint="the file is empty, or the variant leaves all of it out"
        )
