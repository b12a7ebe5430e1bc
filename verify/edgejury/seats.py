"""`Seat`: which model sits on a jury in which role, and how it sees the options; and whether the models are kin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.model_roles import JURY
from ...core.question import Question
from ...core.run import Run
from ...reasoning.strategy import Models
from ...serving.metered import MeteredModel
from .anonymity import Roster
from .config import LEAST_JURORS, PanelConfig
from .option_orders import OptionOrder, option_orders, own_order
from .roles import Role, find_roles, role_of, shipped_roles

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
