"""Tables and JSON on standard output, and sizes for people."""

from __future__ import annotations

import json
from typing import Any

from .console import write_line


def plain_table(*columns: str) -> Any:
    """A table without lines; the first column is never broken, and one called "size" stands to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold", justify="right" if column == "size" else "left")
    return table


def megabytes(size_bytes: int) -> str:
    """A size for people, in powers of ten as disks are sold."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def write_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    write_line(json.dumps(value, ensure_ascii=False))
