"""The jurors: their models, roles and option orders, and how reliable they were before.

`Role`: the system message of a juror. Four are bundled; users may write their own files.

`JuryReliability`: how often each juror was right, in a file, and the weight of its vote.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1, for the four kinds of role; the texts are ours. Differs:
    every
role answers first, where the public implementation asks one for a list of risks. The weight of an independent voter who
is right with probability p among k options is ln(p (k - 1) / (1 - p)): Nitzan, Paroush, "Optimal Decision Rules in
Uncertain Dichotomous Choice Situations" (International Economic Review 23, 1982), for two options; Shapley, Grofman,
"Optimizing Group Judgmental Accuracy in the Presence of Interdependencies" (Public Choice 43, 1984) treat correlated
errors. Shrinking towards the pool is ours.
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
from ...reasoning.anonymity import Roster
from ...reasoning.answers.kinds import answer_kind
from ...reasoning.prompts import question_prompt
from ...reasoning.strategy import Models
from ...serving.metered.model import MeteredModel
from .option_orders import OptionOrder, identity_order, option_orders

if TYPE_CHECKING:
    from .config import PanelConfig

BUNDLED_ROLES: Final = ("direct-answerer", "edge-case-finder", "step-by-step-explainer", "pragmatic-implementer")
"""Names of the bundled roles, in the order in which jurors get them."""

ROLE_SUFFIX: Final = ".toml"
MAX_ROLE_BYTES: Final = 20_000
"""Maximum size of a role file."""

_ROLES_DIRECTORY = Path(__file__).parent / "roles"
_ROLE_HINT = "a role file has name, summary and system, and may have headings and aliases (lists of texts)"

Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=80)]


class Role(Frozen):
    """The role of a juror.

    Attributes:
        name: Lower-case letters, digits and dashes; never shown to reviewers.
        summary: Purpose of the role, in one line.
        system: The juror's system message.
        headings: Headings that the role requests. They reveal the author, so they are removed before review; the text
            below them stays.
        aliases: Other names that a juror may use for itself in this role; removed likewise.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", min_length=2, max_length=60)]
    summary: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = ""
    system: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=8000)]
    headings: tuple[Phrase, ...] = Field(default=(), max_length=20)
    aliases: tuple[Phrase, ...] = Field(default=(), max_length=20)


_INSTRUCTION = (
    "Answer the question that is asked. Say so where you are unsure, and name no source that you do not know to exist."
)


def bundled_roles() -> tuple[Role, ...]:
    """The bundled roles, in order."""
    return tuple(load_role(_ROLES_DIRECTORY / f"{name}{ROLE_SUFFIX}") for name in BUNDLED_ROLES)


def load_role(path: Path) -> Role:
    """Load a role from its file.

    Raises:
        DataError: The file is missing, unreadable, not TOML, or a field is missing, unknown or invalid; names the file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no role file {path}", hint=_ROLE_HINT) from e
    except OSError as e:
        raise DataError(f"cannot read the role file {path}: {e.strerror}", hint=_ROLE_HINT) from e
    if len(raw) > MAX_ROLE_BYTES:
        raise DataError(f"{path} has {len(raw)} bytes, the maximum is {MAX_ROLE_BYTES}", hint=_ROLE_HINT)
    try:
        data = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise DataError(f"the role file {path} is not TOML in UTF-8: {e}", hint=_ROLE_HINT) from e
    try:
        return Role.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        location = ".".join(str(part) for part in first["loc"])
        raise DataError(f"the role file {path} is damaged: {location}: {first['msg'].lower()}", hint=_ROLE_HINT) from e


def find_roles(names: Sequence[str]) -> tuple[Role, ...]:
    """Roles by name, or by the path of their file.

    Args:
        names: Names of bundled roles, or paths that end in `.toml`.

    Raises:
        UnknownName: There is no bundled role of that name.
        DataError: A file cannot be read, or two roles have the same name.
    """
    roles: list[Role] = []
    for name in names:
        if not name.endswith(ROLE_SUFFIX) and name not in BUNDLED_ROLES:
            raise UnknownName("role", name, nearest(name, BUNDLED_ROLES), hint=f"or a path that ends in {ROLE_SUFFIX}")
        roles.append(load_role(Path(name) if name.endswith(ROLE_SUFFIX) else _ROLES_DIRECTORY / f"{name}{ROLE_SUFFIX}"))
    role_names = [role.name for role in roles]
    duplicate = next((name for name in role_names if role_names.count(name) > 1), None)
    if duplicate is not None:
        raise DataError(f"two roles have the name {duplicate!r}", hint="list each role once; jurors take them in turn")
    return tuple(roles)


def role_of(roles: Sequence[Role], juror: int) -> Role | None:
    """The role of a juror, in turn; None without roles."""
    return roles[juror % len(roles)] if roles else None


def answer_prompt(role: Role | None, question: Question) -> Prompt:
    """The prompt of a juror in stage 1.

    Args:
        question: The question with the options in the juror's order.
    """
    return question_prompt(question, f"{_INSTRUCTION} {_closing(question)}", system="" if role is None else role.system)


def _closing(question: Question) -> str:
    """The form of the answer: at the end if it is short, else at the beginning."""
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
class Juror:
    """A member of the jury.

    Attributes:
        id: Its number, from 0.
        model: Its model; jurors with the same model share the object.
        role: Its role; None without roles.
        order: The order in which it sees the options.
        sample_index: Its number among the jurors of its model, from 0: jurors with equal prompts get different samples.
    """

    id: int
    model: MeteredModel
    role: Role | None
    order: OptionOrder
    sample_index: int

    @property
    def name(self) -> str:
        """Its name in traces."""
        return f"juror #{self.id}"

    @property
    def role_name(self) -> str:
        """The name of its role; empty without one."""
        return "" if self.role is None else self.role.name


def make_jurors(config: PanelConfig, question: Question, models: Models, run: Run) -> tuple[Juror, ...]:
    """The jurors, with models and roles taken in turn.

    A jury of a single model family degrades the run, since its jurors share their errors.

    Raises:
        UnknownName: There is no role of that name.
        DataError: A role file cannot be read.
    """
    jury = models.jury
    num_jurors = config.n or max(MIN_JURORS, len(jury))
    roles: Sequence[Role] = ()
    if config.roles is True:
        roles = bundled_roles()
    elif config.roles:
        roles = find_roles(config.roles)
    if config.permute_choices:
        orders = option_orders(question, num_jurors, run.derive_seed("edgejury", "options"))
    else:
        orders = (identity_order(question),) * num_jurors
    num_of_model: Counter[str] = Counter()
    jurors: list[Juror] = []
    for i in range(num_jurors):
        model = jury[i % len(jury)]
        jurors.append(Juror(i, model, role_of(roles, i), orders[i], num_of_model[model.identity]))
        num_of_model[model.identity] += 1
    families = {family_of(juror.model.name) for juror in jurors}
    if len(families) == 1 and num_jurors > 1:
        kind = "one model" if len({juror.model.identity for juror in jurors}) == 1 else "models of one family"
        hint = "" if models.has(JURY) else "; add others with --juror (jurors= in Python)"
        run.degrade(f"single_family: the jurors are {kind} ({families.pop()}), so their agreement says little{hint}")
    return tuple(jurors)


def make_roster(jurors: Sequence[Juror], others: Sequence[MeteredModel] = ()) -> Roster:
    """All names that could reveal a juror, or another model whose texts it reads."""
    names = [model.name for model in (*(juror.model for juror in jurors), *others)]
    roles = [juror.role for juror in jurors if juror.role is not None]
    return Roster(
        models=tuple(dict.fromkeys(names)),
        jurors=tuple(juror.name for juror in jurors),
        roles=tuple({role.name: role for role in roles}.values()),
    )


def family_of(model: str) -> str:
    """The family of a model by its string: the first letters of the last part, "qwen" of `local/Qwen2.5-0.5B`."""
    last = model.rstrip("/").rsplit("/", 1)[-1].casefold()
    match = _FAMILY.search(last)
    return last if match is None else match[0]


MIN_JURORS = 3
"""Minimum number of jurors unless `n` is set."""


RELIABILITY_KIND: Final = "reason jury reliability"
RELIABILITY_FORMAT: Final = 1
_FIT_HINT: Final = "fit one to these jurors' answers on development data"

POOL_STRENGTH: Final = 10.0
"""Weight of the pool, in answers."""
MIN_WEIGHT, MAX_WEIGHT = 0.1, 3.0
"""Bounds of the weights: every juror has a vote, and none outvotes the others."""

OpenProbability = Annotated[FiniteFloat, Field(gt=0, lt=1)]


class JurorReliability(Frozen):
    """One juror's record.

    Attributes:
        juror: Its name by `juror_key`.
        right: Number of right answers.
        num_answers: Number of answers.
        estimate: Probability that it is right: (right + strength pooled) / (num_answers + strength).
    """

    juror: Annotated[str, Field(min_length=1)]
    right: Annotated[int, Field(ge=0)]
    num_answers: Annotated[int, Field(ge=1)]
    estimate: OpenProbability

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if self.right > self.num_answers:
            raise ValueError(f"{self.right} right answers of {self.num_answers}")
        return self


class JuryReliability(FittedFile):
    """Reliability of jurors.

    Attributes:
        name: The file's name without its suffix; empty before it is saved.
        jurors: Their records, by name.
        pooled: Probability that an unknown juror is right.
        chance: Probability of guessing right: 1/k with k options, or the `chance_of_errors` of the jurors.
        strength: Weight of the pool, in answers.
        dataset: The dataset of the answers.
        data: Hash of the records.
        version: Version of `reason`.
    """

    kind: Literal["reason jury reliability"] = RELIABILITY_KIND
    format: Literal[1] = RELIABILITY_FORMAT
    name: str = ""
    jurors: Annotated[tuple[JurorReliability, ...], Field(min_length=1)]
    pooled: OpenProbability
    chance: OpenProbability
    strength: Annotated[FiniteFloat, Field(ge=0)]
    dataset: str
    data: str
    version: str

    @model_validator(mode="after")
    def _check_unique(self) -> Self:
        if len({one.juror for one in self.jurors}) < len(self.jurors):
            raise ValueError("a juror must have one record")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({len(self.jurors)} jurors, {self.dataset})".lstrip()

    def weight(self, juror: str) -> float:
        """Weight of a juror's vote: ln(p / (1 - p)) - ln(c / (1 - c)) with the chance c, clipped to [0.1, 3].

        Args:
            juror: Its name by `juror_key`; an unknown one gets the pooled p.
        """
        p = next((one.estimate for one in self.jurors if one.juror == juror), self.pooled)
        return min(MAX_WEIGHT, max(MIN_WEIGHT, _log_odds(p) - _log_odds(self.chance)))

    def weights_for(self, jurors: Mapping[int, str]) -> dict[int, float]:
        """Weights by juror.

        Args:
            jurors: Name by juror.

        Raises:
            DataError: None of them is known.
        """
        known = {one.juror for one in self.jurors}
        if jurors and not known & set(jurors.values()):
            raise DataError(
                f"the jury reliability {self} knows none of these jurors: {', '.join(sorted(set(jurors.values())))}",
                hint=_FIT_HINT,
            )
        return {juror: self.weight(name) for juror, name in jurors.items()}


def juror_key(identity: str, role: str = "") -> str:
    """The name of a juror in a reliability file: its model's identity and its role."""
    return f"{identity} as {role}" if role else identity


def fit_reliability(
    records: Iterable[tuple[str, bool]], *, chance: float, dataset: str, strength: float = POOL_STRENGTH
) -> JuryReliability:
    """Estimate the reliability of jurors.

    Args:
        records: The name (`juror_key`) of each answer's juror and whether it was right, in any order.
        chance: Probability of guessing right, 1/k with k options; better, the measured `chance_of_errors`.
        dataset: The dataset of the answers.
        strength: Weight of the pool, in answers.

    Raises:
        UserError: There are no records, chance is not in (0, 1), or strength is negative.
    """
    if not 0 < chance < 1 or not (math.isfinite(strength) and strength >= 0):
        raise UserError(
            f"chance={chance:g} or strength={strength:g} is out of range",
            hint="chance must be in (0, 1), strength 0 or more",
        )
    counts = sorted(Counter(records).items())
    num_answers: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for (juror, was_right), count in counts:
        num_answers[juror] += count
        right[juror] += count * was_right
    if not num_answers:
        raise UserError("there are no records to fit", hint=_FIT_HINT)
    pooled = (right.total() + 1) / (num_answers.total() + 2)
    jurors = tuple(
        JurorReliability(
            juror=juror,
            right=right[juror],
            num_answers=num_answers[juror],
            estimate=_clip_probability((right[juror] + strength * pooled) / (num_answers[juror] + strength)),
        )
        for juror in sorted(num_answers)
    )
    return JuryReliability(
        jurors=jurors,
        pooled=pooled,
        chance=chance,
        strength=strength,
        dataset=dataset,
        data=hashlib.sha256(repr(counts).encode()).hexdigest(),
        version=__version__,
    )


def chance_of_errors(wrong_answers: Iterable[Sequence[str]]) -> float:
    """The `chance` of `fit_reliability` at which jurors' errors coincide: q / (1 + q).

    q is the probability that two wrong answers to one question are equal. It is 1 / (k - 1), and the chance 1 / k, if
    errors are spread evenly over k options. They seldom are: jurors share misconceptions, so that a wrong answer of
    several jurors is worth less than 1 / k says.

    Args:
        wrong_answers: The wrong answers to each question in normal form, one for each juror that was wrong.

    Raises:
        UserError: No question has two wrong answers.
    """
    equal = pairs = 0
    for answers in wrong_answers:
        pairs += len(answers) * (len(answers) - 1) // 2
        equal += sum(count * (count - 1) // 2 for count in Counter(answers).values())
    if not pairs:
        raise UserError("no question has two wrong answers, so how often errors coincide is unknown", hint=_FIT_HINT)
    q = (equal + 1) / (pairs + 2)
    return q / (1 + q)


def save_reliability(reliability: JuryReliability, path: Path) -> None:
    """Write it as JSON, atomically, under the file's name.

    Raises:
        StoreError: It cannot be written; an existing file stays.
    """
    write_fitted_file(reliability, path)


def load_reliability(path: Path) -> JuryReliability:
    """Load it from its file.

    Raises:
        DataError: The file is missing, unreadable, truncated, of another kind or version, or has invalid values; names
            the file.
    """
    return read_fitted_file(
        path,
        JuryReliability,
        kind=RELIABILITY_KIND,
        format=RELIABILITY_FORMAT,
        label="jury reliability",
        hint=_FIT_HINT,
    )


def _log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def _clip_probability(p: float) -> float:
    """Without a pool, a juror that was always right or wrong must not get an infinite weight."""
    return min(1 - 1e-6, max(1e-6, p))


def configured_reliability(config: PanelConfig) -> JuryReliability | None:
    """The configured file; None without one.

    Raises:
        DataError: It cannot be read.
        UserError: It has changed since the run began.
    """
    if not config.reliability:
        return None
    reliability = load_reliability(Path(config.reliability).expanduser())
    if config.reliability_digest not in ("", reliability.digest):
        raise UserError(
            f"the jury reliability {config.reliability} has changed since the run began",
            hint="restore the file, or start a new run",
        )
    return reliability


def juror_weights(jurors: Sequence[Juror], config: PanelConfig) -> dict[int, float]:
    """The weight of each juror; empty if unknown, so that all have the same.

    Jurors are looked up with their role first, then by their model in any role.

    Raises:
        DataError: The file cannot be read, or knows none of the jurors.
        UserError: It has changed since the run began.
    """
    reliability = configured_reliability(config)
    if reliability is None:
        return {}
    known = {one.juror for one in reliability.jurors}
    names: dict[int, str] = {}
    for juror in jurors:
        in_role = juror_key(juror.model.identity, juror.role_name)
        names[juror.id] = in_role if in_role in known else juror_key(juror.model.identity)
    return reliability.weights_for(names)
