"""`Trajectory`: a problem and the steps written for it so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...core.question import Question


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A problem and its steps. All that a block's prompt is made of besides fixed words.

    Attributes:
        question: The problem.
        steps: The steps, in order, without numbers.
    """

    question: Question
    steps: tuple[str, ...] = ()

    def with_step(self, text: str) -> Trajectory:
        """The trajectory with one more step; a blank one adds nothing."""
        return replace(self, steps=(*self.steps, text.strip())) if text.strip() else self

    def with_last(self, text: str) -> Trajectory:
        """The trajectory with another last step; a blank one changes nothing."""
        return replace(self, steps=(*self.steps[:-1], text.strip())) if text.strip() and self.steps else self

    @property
    def written(self) -> str:
        """The numbered steps, with a blank line between them; empty without any."""
        return "\n\n".join(f"Step {number}: {step}" for number, step in enumerate(self.steps, 1))
