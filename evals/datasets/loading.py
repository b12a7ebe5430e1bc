"""Loads a dataset by name, from the hub, a package or a local file, and checks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from ...core.errors import DataError, UnknownName, UserError
from ...core.registry import nearest
from ..plan import DatasetSource
from .custom import CUSTOM, FIELDS, parse_map
from .items import Dataset, Item, fingerprint
from .records import Record, find_files, package_file, read_file, read_hub, rename_fields, sha256_of
from .spec import DATASETS, DatasetSpec, ReadOptions


def parse_source(value: str, mapping: str | None = None) -> DatasetSource:
    """The source that `NAME`, `NAME=FILE` or `FILE` states, with the field map of `parse_map`.

    Raises:
        UserError: The name, or the file after `=`, is missing.
    """
    name, equals, path = (part.strip() for part in value.partition("="))
    if not name or (equals and not path):
        raise UserError(f"{value!r} is not NAME or NAME=FILE", hint="for example gsm8k=gsm8k.jsonl")
    return DatasetSource(dataset=name, data=Path(path) if path else None, map=parse_map(mapping or "")).absolute()


def open_dataset(source: DatasetSource) -> Dataset:
    """Load a dataset from its source; raises as `load_dataset`."""
    return load_dataset(
        source.dataset, data=source.data, mapping=source.map, seed=source.choice_seed, options=source.options
    )


def load_dataset(
    name: str,
    *,
    data: Path | None = None,
    mapping: Mapping[str, str] | None = None,
    seed: int | None = 0,
    options: Mapping[str, str] | None = None,
) -> Dataset:
    """Load a dataset.

    Args:
        name: Its registered name, with a variant after a colon (`truthfulqa:mc2`, `aime:2024`) or without for the
            default; or the path of a custom JSONL or CSV file.
        data: A local file, or a directory that contains it; None reads from the hub at a pinned commit.
        mapping: Names of the file's fields by the expected names.
        seed: Seed of the order in which choices and evidence are shown; None keeps the source's.
        options: The dataset's own options.

    Raises:
        UnknownName: There is no such dataset, variant or option.
        UserError: An option is invalid.
        DataError: A file or record is invalid; names file and line.
        BackendUnavailable: The hub cannot be reached.
    """
    recipe, data, variant = _resolve(name, data)
    options = dict(options or {})
    for option in options:
        if option not in recipe.options:
            raise UnknownName(f"option of {recipe.name}", option, nearest(option, recipe.options))
    reading = ReadOptions(recipe.name, variant, seed, data, options)
    rows, source, revision, digest = _rows(recipe, reading)
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
        revision=revision,
        sha256=digest,
        options={**options, "variant": variant, "seed": seed, **({"map": dict(mapping)} if mapping else {})},
        scorer="+".join(sorted({item.gold.type for item in items})),
        licence=recipe.licence,
        warning=recipe.warning,
        items=items,
        size=len(items),
        fingerprint=fingerprint(items),
    )


def _resolve(name: str, data: Path | None) -> tuple[DatasetSpec, Path | None, str]:
    """The recipe, the local path and the variant of a name."""
    if data is None and name.lower().endswith((".jsonl", ".csv")):
        return CUSTOM, Path(name), ""
    base, _, variant = name.partition(":")
    recipe = DATASETS.load(base)
    variant = variant or recipe.default_variant
    if recipe.free_variant is None and variant not in recipe.variants and (variant or recipe.variants):
        raise UnknownName(
            f"variant of {base}",
            variant,
            nearest(variant, recipe.variants),
            hint=f"known: {', '.join(recipe.variants)}",
        )
    return recipe, data, variant


def _rows(recipe: DatasetSpec, reading: ReadOptions) -> tuple[Iterator[Record], str, str, str]:
    """Records, the source's name, the commit on the hub, and the digest of local files."""
    if reading.data is not None:
        paths = find_files(reading.data, recipe.folders)
        return (row for p in paths for row in read_file(p)), ", ".join(map(str, paths)), "", sha256_of(paths)
    if recipe.package is not None:
        path, version = package_file(recipe.package)
        return read_file(path), f"{recipe.package.install} {version}", "", sha256_of([path])
    sources = recipe.hub(reading.variant)
    if not sources:
        raise UserError(f"{recipe.name} is not on the hub", hint="give its file with --data FILE")
    read = [read_hub(source) for source in sources]
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
    """The items; checks that there are some and that their ids are unique."""
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
