"""A report written to a file, in the form that its name asks for."""

from __future__ import annotations

import re
from pathlib import Path

from ...core.errors import UserError
from ...core.files import write_file
from ..run_directory import MANIFEST
from .content import ReportContent
from .page import render_html, render_markdown

FORMS = (".html", ".md", ".json")


def render(content: ReportContent, form: str) -> str:
    """A report as text.

    Raises:
        UserError: There is no such form, or the metrics need a package that is not installed.
    """
    if form == ".html":
        return render_html(content)
    if form == ".md":
        return render_markdown(content)
    if form == ".json":
        return content.model_dump_json(indent=2) + "\n"
    raise UserError(
        f"a report cannot be written as {form or 'a file without an ending'}", hint="one of .html .md .json"
    )


def write_report(content: ReportContent, path: Path) -> None:
    """Write a report, completely or not at all.

    Raises:
        UserError: As `render`.
        StoreError: The file cannot be written.
    """
    write_file(path, (render(content, path.suffix.lower())).encode("utf-8", "surrogatepass"))


def run_folders(paths: list[Path]) -> list[Path]:
    """The runs that directories hold: a directory is a run, or holds runs (a sweep's), by name.

    Raises:
        UserError: One holds none.
    """
    results: list[Path] = []
    for path in paths:
        if (path / MANIFEST).is_file():
            results.append(path)
            continue
        inside = sorted((p.parent for p in path.glob(f"*/{MANIFEST}")), key=_numbers_as_numbers)
        if not inside:
            raise UserError(f"{path} holds no evaluation", hint=f"a run's directory has a file {MANIFEST}")
        results += inside
    return results


def _numbers_as_numbers(path: Path) -> list[tuple[int, int, str]]:
    """Sorts n=2 before n=16."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
