"""`Seat`: which model sits on a jury in which role, and how it sees the options; and whether the models are kin.

`Role`: how a juror is told to work. Four are shipped as files; users write their own in the same form.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1, for the four kinds of role; their texts are our own.
Differs: no role asks for a list of risks in place of an answer: each is told to answer first.

`JuryReliability`: how often each juror turned out to be right, in a file, and what its voice counts for by that.

Source: the weight of an independent voter who is right with probability p among k options is ln(p (k - 1) / (1 - p)):
Nitzan, Paroush, "Optimal Decision Rules in Uncertain Dichotomous Choice Situations" (International Economic Review 23,
1982), for two; Shapley, Grofman, "Optimizing Group Judgmental Accuracy in the Presence of Interdependencies" (Public
Choice 43, 1984) treat what is lost where jurors err together, which no weight of one juror can make up for. Shrinking
towards the pool, so that a few lucky answers make no oracle, is ours.

`juror_weights`: what each juror's voice counts for, by a file of how often jurors were right before.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, StringConstraints, ValidationError, model_validator

from ...core.errors import DataError, UnknownName, UserError
from ...core.files import FittedFile, read_fitted_file, write_fitted_file
from ...core.messages import Frozen, Prompt
from ...core.registry import nearest
from ...core.run import Run
from ...core.settings import JURY
from ...core.types import Question
from ...core.version import __version__
from ...reasoning.answers.kinds import answer_kind
from ...reasoning.prompts import question_prompt
from ...reasoning.strategy import Models
from ...serving.metered.model import MeteredModel
from .anonymity import OptionOrder, Roster, option_orders, own_order

if TYPE_CHECKING:
    from .config import PanelConfig

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
    return question_prompt(question, f"{_SHARED} {_closing(question)}", system="" if role is None else role.system)


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


_FAMILY = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Seat:
    """One juror's place.

    Attributes:
        juror: Its number, from 0.
        model: Its model; jurors of one model have the same object.
        role: Its role; None if there are no roles.
        order: The order in which it sees the options.
    """

    juror: int
    model: MeteredModel
    role: Role | None
    order: OptionOrder

    @property
    def name(self) -> str:
        """What it is called in traces."""
        return f"juror #{self.juror}"

    @property
    def role_name(self) -> str:
        """The name of its role; empty if it has none."""
        return "" if self.role is None else self.role.name


def seats_of(config: PanelConfig, question: Question, models: Models, run: Run) -> tuple[Seat, ...]:
    """The seats: models and roles are taken in turn.

    A jury of one family is told in the trace and in the answer: what its jurors agree on, they may all have wrong.

    Raises:
        UnknownName: There is no role of a name.
        DataError: A role file cannot be read.
    """
    jury = models.jury
    count = config.n or max(LEAST_JURORS, len(jury))
    roles: Sequence[Role] = ()
    if config.roles:
        roles = find_roles(config.role_names) if config.role_names else shipped_roles()
    if config.permute_choices:
        orders = option_orders(question, count, run.derive_seed("edgejury", "options"))
    else:
        orders = (own_order(question),) * count
    seats = tuple(Seat(i, jury[i % len(jury)], role_of(roles, i), orders[i]) for i in range(count))
    families = {family_of(seat.model.name) for seat in seats}
    if len(families) == 1 and count > 1:
        who = "one model" if len({seat.model.identity for seat in seats}) == 1 else "models of one family"
        given = "" if models.has(JURY) else "; name others with --juror (jurors= in Python)"
        run.degrade(f"single_family: the jurors are {who} ({families.pop()}), so that they agree says little{given}")
    return seats


def roster_of(seats: Sequence[Seat], others: Sequence[MeteredModel] = ()) -> Roster:
    """All the names by which somebody on the jury could be told, or another model whose texts it reads."""
    names = [model.name for model in (*(seat.model for seat in seats), *others)]
    roles = [seat.role for seat in seats if seat.role is not None]
    return Roster(
        models=tuple(dict.fromkeys(names)),
        jurors=tuple(seat.name for seat in seats),
        roles=tuple({role.name: role for role in roles}.values()),
    )


def family_of(model: str) -> str:
    """The family of a model by its string: the first letters of its last part, "qwen" of `local/Qwen2.5-0.5B`."""
    last = model.rstrip("/").rsplit("/", 1)[-1].casefold()
    found = _FAMILY.search(last)
    return last if found is None else found[0]


LEAST_JURORS = 3
"""Jurors where no number is given and there are no more models than that."""


KIND: Final = "reason jury reliability"
FORMAT: Final = 1
MADE_BY: Final = "fit one to these jurors' answers on development data"

STRENGTH: Final = 10.0
"""How many answers of the pool stand beside a juror's own."""
LEAST, MOST = 0.1, 3.0
"""Clip of the weights: nobody is silenced, and nobody outvotes a jury of equals alone."""

Inside = Annotated[FiniteFloat, Field(gt=0, lt=1)]


class JurorReliability(Frozen):
    """One juror's record.

    Attributes:
        juror: Who, as `juror_key` names it.
        right: How many of its answers were right.
        asked: How many questions it answered.
        estimate: Probability that it is right: (right + strength pooled) / (asked + strength).
    """

    juror: Annotated[str, Field(min_length=1)]
    right: Annotated[int, Field(ge=0)]
    asked: Annotated[int, Field(ge=1)]
    estimate: Inside

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        if self.right > self.asked:
            raise ValueError(f"{self.right} right answers of {self.asked}")
        return self


class JuryReliability(FittedFile):
    """How reliable jurors are.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        jurors: Their records, by name.
        pooled: Probability that a juror of whom nothing is known is right.
        chance: Probability of being right by guessing: 1/k with k options.
        strength: How many answers of the pool stand beside a juror's own.
        dataset: What the answers were to.
        data: Hash of the records.
        version: Version of `reason`.
    """

    kind: Literal["reason jury reliability"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    jurors: Annotated[tuple[JurorReliability, ...], Field(min_length=1)]
    pooled: Inside
    chance: Inside
    strength: Annotated[FiniteFloat, Field(ge=0)]
    dataset: str
    data: str
    version: str

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if len({one.juror for one in self.jurors}) < len(self.jurors):
            raise ValueError("a juror has one record")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({len(self.jurors)} jurors, {self.dataset})".lstrip()

    def weight(self, juror: str) -> float:
        """What a juror's voice counts for: ln(p / (1 - p)) - ln(c / (1 - c)), with c by chance, clipped to [0.1, 3].

        Args:
            juror: Who, as `juror_key` names it; of one that is not known p is the pooled one.
        """
        p = next((one.estimate for one in self.jurors if one.juror == juror), self.pooled)
        return min(MOST, max(LEAST, _log_odds(p) - _log_odds(self.chance)))

    def weights_for(self, jurors: Mapping[int, str]) -> dict[int, float]:
        """The weights of a jury.

        Args:
            jurors: Name by juror.

        Raises:
            DataError: None of them is known: the file belongs to another jury.
        """
        known = {one.juror for one in self.jurors}
        if jurors and not known & set(jurors.values()):
            raise DataError(
                f"the jury reliability {self} knows none of these jurors: {', '.join(sorted(set(jurors.values())))}",
                hint=MADE_BY,
            )
        return {juror: self.weight(name) for juror, name in jurors.items()}


def juror_key(identity: str, role: str = "") -> str:
    """What a juror is called in a reliability file: its model's identity, and the role that it plays."""
    return f"{identity} as {role}" if role else identity


def fit_reliability(
    records: Iterable[tuple[str, bool]], *, chance: float, dataset: str, strength: float = STRENGTH
) -> JuryReliability:
    """Estimate how reliable jurors are.

    Args:
        records: For each answer who gave it (see `juror_key`) and whether it was right; in any order.
        chance: Probability of being right by guessing; with different numbers of options the mean of 1/k.
        dataset: What the answers were to.
        strength: How many answers of the pool stand beside a juror's own.

    Raises:
        UserError: There are no records, chance is no probability inside (0, 1), or strength is negative.
    """
    if not 0 < chance < 1 or not (math.isfinite(strength) and strength >= 0):
        raise UserError(
            f"no reliability at chance={chance:g} and strength={strength:g}",
            hint="chance is between 0 and 1, strength 0 or more",
        )
    told = sorted(Counter(records).items())
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for (juror, was_right), count in told:
        asked[juror] += count
        right[juror] += count * was_right
    if not asked:
        raise UserError("no records, so no reliability", hint=MADE_BY)
    pooled = (right.total() + 1) / (asked.total() + 2)
    jurors = tuple(
        JurorReliability(
            juror=juror,
            right=right[juror],
            asked=asked[juror],
            estimate=_inside((right[juror] + strength * pooled) / (asked[juror] + strength)),
        )
        for juror in sorted(asked)
    )
    return JuryReliability(
        jurors=jurors,
        pooled=pooled,
        chance=chance,
        strength=strength,
        dataset=dataset,
        data=hashlib.sha256(repr(told).encode()).hexdigest(),
        version=__version__,
    )


def save_reliability(reliability: JuryReliability, path: Path) -> None:
    """Write it as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted_file(reliability, path)


def load_reliability(path: Path) -> JuryReliability:
    """Read it from its file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it holds something else, or it is of
            another version or has impossible values; names the file.
    """
    return read_fitted_file(path, JuryReliability, kind=KIND, format=FORMAT, called="jury reliability", made_by=MADE_BY)


def _log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def _inside(p: float) -> float:
    """Without a pool beside it, a juror that was always right or always wrong is not sure to be so again."""
    return min(1 - 1e-6, max(1e-6, p))


def reliability_of(config: PanelConfig) -> JuryReliability | None:
    """The file that the parameters name; None if they name none.

    Raises:
        DataError: It cannot be read.
        UserError: It holds something else than when the run began.
    """
    if not config.reliability:
        return None
    found = load_reliability(Path(config.reliability).expanduser())
    if config.reliability_digest not in ("", found.digest):
        raise UserError(
            f"the jury reliability {config.reliability} is another one than the run began with",
            hint="put the file back, or begin another run",
        )
    return found


def juror_weights(seats: Sequence[Seat], config: PanelConfig) -> dict[int, float]:
    """The weight of each juror; empty where none is known, and all count alike.

    A juror is looked for in its role first, then as its model in any role.

    Raises:
        DataError: The file cannot be read, or is of other jurors altogether.
        UserError: It holds something else than when the run began.
    """
    found = reliability_of(config)
    if found is None:
        return {}
    known = {one.juror for one in found.jurors}
    names: dict[int, str] = {}
    for seat in seats:
        in_role = juror_key(seat.model.identity, seat.role_name)
        names[seat.juror] = in_role if in_role in known else juror_key(seat.model.identity)
    return found.weights_for(names)
