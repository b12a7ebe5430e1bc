"""`ThoughtJudge`: scores thoughts and the notes that came with them, all of a batch in one call.

Fg says how good the step is, Fa how good its notes are (Pan, Deng, Huang 2025, arXiv:2502.02390; how a model is asked
for them is ours). Each is in [0, 1]. The judge reads the path as turns of a conversation and notes as quoted data; it
never sees what an external brain sent, only what was made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.messages import Prompt, Request, Sampling
from ...core.run import Run
from ...serving.metered import MeteredModel
from . import wording
from .conversation import Conversation, Turn
from .parameters import Judging
from .replies import expected_digit, read_scores
from .schemas import scores_schema

UNREAD = 0.5
"""What stands for a score that could not be read."""
_LEAST_TOP = 10
_TOP = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge says.

    Attributes:
        step: Fg.
        notes: Fa; None where there are no notes.
    """

    step: float
    notes: float | None = None


class ThoughtJudge:
    """Asks a model for scores.

    Args:
        model: Who judges.
        conversation: How paths are put.
        run: The run.
        judging: How it is asked; "digits" becomes "merged" for a model that cannot show what comes next.
        tokens: Most tokens of a reply.

    Attributes:
        unread: Scores that could not be read; each counts as 0.5.
    """

    def __init__(
        self, model: MeteredModel, conversation: Conversation, run: Run, judging: Judging, tokens: int
    ) -> None:
        self.unread = 0
        self._model, self._conversation, self._tokens = model, conversation, tokens
        self._judging = judging
        if judging == "digits" and model.capabilities.top_logprobs < _LEAST_TOP:
            run.degrade(f"{model.name} does not show the digit that comes next; it was asked to write its scores")
            self._judging = "merged"

    def most_tokens(self, *, notes: bool) -> int:
        """Most tokens that judging one thought generates."""
        if self._judging == "digits":
            return 0
        return self._tokens * (2 if notes and self._judging == "separate" else 1)

    async def judge(self, paths: Sequence[Sequence[Turn]], *, steps: bool = True) -> list[Judged]:
        """Score the last thought of each path, and its notes.

        Args:
            paths: The paths.
            steps: Whether the steps are to be scored, or something else does that.

        Raises:
            LimitExceeded: The calls do not fit the budget.
            BackendError: The judge failed.
        """
        aspects = [
            [*(["step"] if steps else []), *(["notes"] if self._conversation.has_notes(path) else [])] for path in paths
        ]
        if self._judging == "merged":
            asked = [(i, tuple(wanted)) for i, wanted in enumerate(aspects) if wanted]
        else:
            asked = [(i, (aspect,)) for i, wanted in enumerate(aspects) for aspect in wanted]
        scores: list[dict[str, float]] = [{} for _ in paths]
        told = await (self._digits if self._judging == "digits" else self._written)([(paths[i], a) for i, a in asked])
        for (i, wanted), values in zip(asked, told, strict=True):
            for aspect, value in zip(wanted, values, strict=True):
                self.unread += value is None
                scores[i][aspect] = UNREAD if value is None else value
        return [Judged(said.get("step", UNREAD), said.get("notes")) for said in scores]

    async def _written(self, asked: Sequence[tuple[Sequence[Turn], tuple[str, ...]]]) -> list[list[float | None]]:
        if not asked:
            return []
        can = self._model.capabilities
        requests = []
        for path, aspects in asked:
            schema = scores_schema(aspects) if can.json_schema else None
            prefix = f'{{"{aspects[0]}":' if can.prefix and schema is None else ""
            prompt = self._conversation.after(path, wording.judge(aspects), prefix=prefix)
            sampling = Sampling(
                temperature=0.0,
                max_tokens=self._tokens,
                stop=("}",) if schema is None else (),
                logprobs=False,
                json_schema=schema,
            )
            requests.append(Request(prompt=prompt, sampling=sampling))
        replies = await self._model.generate(requests)
        return [
            read_scores(str(request.prompt.prefix) + reply.text, aspects) if reply.ok else [None] * len(aspects)
            for request, (reply,), (_, aspects) in zip(requests, replies, asked, strict=True)
        ]

    async def _digits(self, asked: Sequence[tuple[Sequence[Turn], tuple[str, ...]]]) -> list[list[float | None]]:
        if not asked:
            return []
        begins = "Score: " if self._model.capabilities.prefix else ""
        prompts: list[Prompt] = [
            self._conversation.after(path, wording.judge_digit(aspects[0]), prefix=begins) for path, aspects in asked
        ]
        top = min(_TOP, self._model.capabilities.top_logprobs)
        return [[expected_digit(told)] for told in await self._model.next_token(prompts, top)]
