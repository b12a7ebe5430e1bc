"""`Role`: how a juror is told to work. Four are shipped as files; users write their own in the same form.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1, for the four kinds of role; their texts are our own.
Differs: no role asks for a list of risks in place of an answer: each is told to answer first.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints, ValidationError

from ...core.errors import DataError, UnknownName
from ...core.messages import Frozen, Prompt
from ...core.question import Question
from ...core.registry import nearest
from ...reasoning.answer_kind import answer_kind
from ...reasoning.prompts import ask

SHIPPED: Final = ("direct-answerer", "edge-case-finder", "step-by-step-explainer", "pragmatic-implementer")
"""Names of the roles that come along, in the order in which jurors get them."""

ENDING: Final = ".toml"
MOST_BYTES: Final = 20_000
"""Bytes of a role file: what is larger is none."""

_FOLDER = Path(__file__).parent / "roles"
_FORM = "a role file has name, summary and system, and may have headings and aliases (lists of texts)"

Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=80)]


class Role(Frozen):
    """How one juror works.

    Attributes:
        name: Small letters, digits and dashes. No reviewer ever reads it.
        summary: In one line, what the role is for.
        system: What the juror is told, as its system message.
        headings: Headings that the role is told to write. They would show whose answer it is, so they are taken out
            before anybody else reads it; what stands below them stays.
        aliases: Other words by which a juror may call itself in this role; likewise.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", min_length=2, max_length=60)]
    summary: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = ""
    system: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=8000)]
    headings: tuple[Phrase, ...] = Field(default=(), max_length=20)
    aliases: tuple[Phrase, ...] = Field(default=(), max_length=20)


_SHARED = (
    "Answer the question that is asked. Say so where you are unsure, and name no source that you do not know to exist."
)


def shipped_roles() -> tuple[Role, ...]:
    """The roles that come along, in order."""
    return tuple(load_role(_FOLDER / f"{name}{ENDING}") for name in SHIPPED)


def load_role(path: Path) -> Role:
    """Read a role from its file.

    Raises:
        DataError: There is no such file, it cannot be read, is no TOML, or a field is missing, unknown or impossible;
            names the file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no role file {path}", hint=_FORM) from e
    except OSError as e:
        raise DataError(f"cannot read the role file {path}: {e.strerror}", hint=_FORM) from e
    if len(raw) > MOST_BYTES:
        raise DataError(f"{path} has {len(raw)} bytes, a role file at most {MOST_BYTES}", hint=_FORM)
    try:
        plain = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise DataError(f"the role file {path} is no TOML in UTF-8: {e}", hint=_FORM) from e
    try:
        return Role.model_validate(plain)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"the role file {path} is damaged: {where}: {first['msg'].lower()}", hint=_FORM) from e


def find_roles(names: Sequence[str]) -> tuple[Role, ...]:
    """Roles by name, or by the path of their file.

    Args:
        names: Each a shipped role's name, or a path that ends in `.toml`.

    Raises:
        UnknownName: No shipped role is called so.
        DataError: A file cannot be read, or two roles have one name.
    """
    found: list[Role] = []
    for name in names:
        if not name.endswith(ENDING) and name not in SHIPPED:
            raise UnknownName("role", name, nearest(name, SHIPPED), hint=f"or a path that ends in {ENDING}")
        found.append(load_role(Path(name) if name.endswith(ENDING) else _FOLDER / f"{name}{ENDING}"))
    named = [role.name for role in found]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two roles are called {twice!r}", hint="name each role once, jurors take them in turn")
    return tuple(found)


def role_of(roles: Sequence[Role], juror: int) -> Role | None:
    """The role of a juror: they take the roles in turn; None where there are no roles."""
    return roles[juror % len(roles)] if roles else None


def answer_prompt(role: Role | None, question: Question) -> Prompt:
    """What a juror is asked in stage 1.

    Args:
        role: Its role; None for an answer without one.
        question: The question, with the options in the order that this juror sees (see `option_orders`).
    """
    return ask(question, f"{_SHARED} {_closing(question)}", system="" if role is None else role.system)


def _closing(question: Question) -> str:
    """The form of the answer: at the end where there is one short answer, else at the beginning."""
    form = {
        "choice": '"Answer:" and the letter of the right choice.',
        "number": '"Answer:" and the number.',
        "math": '"Answer:" and the answer within \\boxed{}.',
        "yes_no": '"Answer:" and yes or no.',
    }.get(answer_kind(question))
    if form is None:
        return "Begin with the answer itself, and stay under 200 words."
    return f"Stay under 200 words, and end with a last line {form}"
