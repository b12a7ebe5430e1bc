"""`juror_weights`: what each juror's voice counts for, by a file of how often jurors were right before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError
from .config import PanelConfig
from .reliability import JuryReliability, juror_key, load_reliability
from .seats import Seat


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
