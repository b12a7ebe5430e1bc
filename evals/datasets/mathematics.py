"""Problems with a number or a formula as their answer: AIME, MATH-500, GSM8K."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...core.errors import UserError
from ...core.types import Question
from .items import Item, MathGold
from .records import HubSource, Record
from .spec import DatasetSpec, ReadOptions

FIRST_YEAR, LAST_YEAR = 1983, 2026
EASIEST, HARDEST = 1, 5
_YEARS = re.compile(r"([0-9]{4})(?:-([0-9]{4}))?")
_LEVELS = re.compile(r"([1-5])(?:-([1-5]))?")
_LEVEL = re.compile(r"(?:Level )?([1-5])")
_AIME_ID = re.compile(r"(?P<year>[0-9]{4})-(?:(?P<part>I{1,2})-)?(?P<number>[0-9]{1,2})")
_TRAINED_ON = "Public for years: models may have seen it in training. Compare methods on the same model."

# -- AIME

_AIME_TO_2023 = HubSource("di-zhang-fdu/AIME_1983_2024", "train", revision="3e2cc86390666c5c756622afc0eeb9e6194496bc")
_AIME_2024 = HubSource("Maxwell-Jia/AIME_2024", "train", revision="8d88b2876a82a080e2f172cc9b25d0d9d2cb4792")
_AIME_2025 = HubSource("math-ai/aime25", "test", revision="563bb8404243c5f09de6ec262f2db674fe5bce9b")
_AIME_2026 = HubSource("math-ai/aime26", "test", revision="79037aebdb6580008fb960d17cb21fd3099083e3")
_ONE_YEAR = {_AIME_2025.repo: 2025, _AIME_2026.repo: 2026}
"""Sources that hold both papers of one year and do not say so in the record."""


def years_of(variant: str) -> tuple[int, int]:
    """First and last year of a variant such as `2024` or `1983-1999`; empty is all.

    Raises:
        UserError: It is no year, or a year without AIME here.
    """
    match = _YEARS.fullmatch(variant) if variant and variant != "all" else None
    if variant in ("", "all"):
        return FIRST_YEAR, LAST_YEAR
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not FIRST_YEAR <= first <= last <= LAST_YEAR:
        raise UserError(
            f"aime:{variant} names no years", hint=f"from {FIRST_YEAR} to {LAST_YEAR}: aime:2024, aime:1983-1999"
        )
    return first, last


def _aime_hub(variant: str) -> tuple[HubSource, ...]:
    first, last = years_of(variant)
    sources = (
        (_AIME_TO_2023, 1983, 2023),
        (_AIME_2024, 2024, 2024),
        (_AIME_2025, 2025, 2025),
        (_AIME_2026, 2026, 2026),
    )
    return tuple(s for s, begin, end in sources if begin <= last and first <= end)


def _read_aime(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    first, last = years_of(reading.variant)
    for row in rows:
        year, part, number = _aime_number(row)
        newer = row.source == _AIME_TO_2023.repo and year > 2023  # half of 2024, which another source has whole
        if not first <= year <= last or newer:
            continue
        answer = row.integer(row.first("answer", "Answer"))
        if not 0 <= answer <= 999:
            raise row.bad(f"the answer {answer} is none of 0 to 999")
        yield Item(
            id=f"aime-{year}-{part}-{number}" if part else f"aime-{year}-{number}",
            question=Question(text=row.text(row.first("problem", "Question", "Problem")), kind="math"),
            gold=MathGold(answer=str(answer), kind="math"),
            subject=str(year),
        )


def _aime_number(row: Record) -> tuple[int, str, int]:
    """Year, part ("I", "II" or "") and number of a problem."""
    if row.source in _ONE_YEAR:
        return _ONE_YEAR[row.source], "", row.position
    if row.has(row.first("year", "Year")):
        part = row.optional(row.first("part", "Part")).strip()
        return row.integer(row.first("year", "Year")), part, row.integer(row.first("number", "Problem Number"))
    match = _AIME_ID.search(row.text(row.first("id", "ID")))
    if match is None:
        raise row.bad("neither a year nor an id such as 2024-I-1 is there")
    return int(match["year"]), match["part"] or "", int(match["number"])


AIME = DatasetSpec(
    name="aime",
    summary=f"American Invitational Mathematics Examination, {FIRST_YEAR}-{LAST_YEAR}, by year",
    licence="problems: copyright Mathematical Association of America, for evaluation only",
    warning=f"{_TRAINED_ON} Some problems up to 2023 refer to a figure that is not there.",
    read=_read_aime,
    hub=_aime_hub,
    variants={"all": "every year"},
    free_variant="a year or a range of years, such as 2024 or 1983-1999",
    folders=("aime", "aime_hist"),
)

# -- MATH-500


def levels_of(variant: str) -> tuple[int, int] | None:
    """Lowest and highest level of a variant such as `3` or `1-3`; None is every level, stated or not.

    Raises:
        UserError: It is no level from 1 to 5, or a range that runs backwards.
    """
    if not variant:
        return None
    match = _LEVELS.fullmatch(variant)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not EASIEST <= low <= high <= HARDEST:
        raise UserError(
            f"math500:{variant} names no levels",
            hint=f"from {EASIEST} to {HARDEST}: math500:5, math500:1-3; math500 alone is all of them",
        )
    return low, high


def _math500_hub(variant: str) -> tuple[HubSource, ...]:
    levels_of(variant)
    return (HubSource("HuggingFaceH4/MATH-500", "test", revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),)


def _read_math500(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    levels = levels_of(reading.variant)
    for row in rows:
        level = _level(row)
        if levels is not None:
            if level is None:
                raise row.bad(
                    f"the record has no level from {EASIEST} to {HARDEST}, and math500:{reading.variant} asks for some",
                    hint="--map level=… names its field; or ask for math500 alone",
                )
            if not levels[0] <= level <= levels[1]:
                continue
        yield Item(
            id=row.text(row.first("id", "unique_id")),
            question=Question(text=row.text("problem"), kind="math"),
            gold=MathGold(answer=row.text("answer"), kind="math"),
            subject=row.optional("subject"),
            level="" if level is None else str(level),
        )


def _level(row: Record) -> int | None:
    """The level that a record states, as `3` or as MATH's `DuplicateLevel 3`; None if it states none."""
    match = _LEVEL.fullmatch(str(row.values.get("level")).strip())
    return int(match[1]) if match else None


MATH500 = DatasetSpec(
    name="math500",
    summary="MATH-500: 500 competition problems with a formula or number as answer, by level",
    licence="MATH: MIT; the split is PRM800K's: MIT",
    warning=_TRAINED_ON,
    read=_read_math500,
    hub=_math500_hub,
    free_variant="a level or a range of levels, such as 5 or 1-3",
    folders=("math500",),
)

# -- GSM8K


def _read_gsm8k(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    for row in rows:
        # the original puts the number after its solution and four hashes
        answer = row.text("answer").rpartition("####")[2].strip().replace(",", "")
        if not answer:
            raise row.bad("the field 'answer' has no number behind ####")
        yield Item(
            id=row.text("id") if row.has("id") else f"gsm8k-test-{row.position:04d}",
            question=Question(text=row.text("question"), kind="number"),
            gold=MathGold(answer=answer, kind="number"),
        )


GSM8K = DatasetSpec(
    name="gsm8k",
    summary="GSM8K: grade-school word problems with a number as answer",
    licence="MIT",
    warning=_TRAINED_ON,
    read=_read_gsm8k,
    hub=lambda variant: (
        HubSource("openai/gsm8k", "test", "main", revision="740312add88f781978c0658806c59bc2815b9866"),
    ),
    folders=("gsm8k",),
)
