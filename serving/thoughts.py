"""`ThoughtSplitter`: separates a response's thought from its answer while it is streamed.

The tags are those of the model's profile. Harmony's channels (gpt-oss) are tags of their own kind, in the raw text and
in the text without special tokens, which some servers return.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .profiles.profile import ModelProfile

COMMON_TAGS: Final = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought\n", "<channel|>"),
)
"""Tags around thoughts of known models: Qwen and DeepSeek, others, Magistral, Seed-OSS, Gemma."""

HARMONY_OPEN: Final = ("<|channel|>analysis<|message|>", "<|channel|>commentary<|message|>")
HARMONY_CLOSE: Final = ("<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>")
_STRIPPED_OPEN, _STRIPPED_CLOSE = "analysis", "assistantfinal"
_HARMONY_NOISE: Final = ("<|end|>", "<|return|>", "<|start|>assistant")


def prompt_tags(profile: ModelProfile) -> tuple[str, str, str]:
    """What a prompt contains to open a thought, to close it, and to answer without one, as the model writes them.

    White space at the end of the opening tag is only written before an empty thought: a model writes it itself.
    """
    if profile.thought == "channel":
        head = "<|start|>assistant"
        return HARMONY_OPEN[0], f"<|end|>{HARMONY_CLOSE[0]}", HARMONY_CLOSE[0].removeprefix(head)
    opening, closing = profile.open_tag, profile.close_tag
    # a template that can turn thinking off shows how a thought is closed; others show at most how it is opened
    is_shown = closing != closing.strip() or bool(profile.template_arguments("none"))
    if not is_shown and closing.startswith(("</", "[/")):
        opening, closing = f"{opening.rstrip()}\n", f"\n{closing}\n\n"
    return opening, closing, opening + closing


def rest_of_closing(closing: str, thought: str) -> str:
    """What of a closing tag a thought lacks: all of it, or less where the thought ends with a newline or the tag."""
    if thought.rstrip().endswith(closing.strip()):
        return "" if thought[-1].isspace() else closing[len(closing.rstrip()) :]
    return closing.removeprefix("\n") if thought.endswith("\n") else closing


class SplitText(NamedTuple):
    """New text of the thought and of the answer."""

    thought: str = ""
    answer: str = ""


class ThoughtSplitter:
    """Splits the text of one response.

    A possible beginning of a tag is held back; the result does not depend on how the text is cut into pieces.
    White space before a thought, and between it and the answer, belongs to neither.

    Args:
        profile: The model's profile.
        opened: Whether the text begins inside a thought, because the prompt opened it.
        is_known: Whether `opened` is known. Otherwise a closing tag without an opening one ends a thought that the
            prompt has opened, and all text before it belongs to that.

    Attributes:
        thought: Text of the thought so far, without tags.
        answer: Text of the answer so far.
        is_thinking: Whether the text is inside a thought.
        has_thought: Whether there was a thought, perhaps an empty one.
    """

    def __init__(self, profile: ModelProfile, *, opened: bool = False, is_known: bool = False) -> None:
        self.thought = self.answer = ""
        self.is_thinking = self.has_thought = opened
        self._held = ""
        self._at_start = True
        self._opens, self._closes = _tags(profile)
        self._is_harmony = profile.thought == "channel"
        # harmony's answer may have a channel's tag without a thought before it
        self._late_closes = self._closes if self._is_harmony or not is_known else ()

    @property
    def num_held(self) -> int:
        """Length of the text that is held back."""
        return len(self._held)

    def push(self, text: str) -> SplitText:
        """Add text; returns what is certain."""
        return self._take(self._held + text, final=False)

    def finish(self) -> SplitText:
        """What was held back, at the end of the response."""
        return self._take(self._held, final=True)

    def _take(self, text: str, *, final: bool) -> SplitText:
        before = len(self.thought), len(self.answer)
        self._held = ""
        while text:
            tags = self._closes if self.is_thinking else self._opens
            late = () if self.is_thinking or self.has_thought else self._late_closes
            at, tag = _first(text, (*tags, *late))
            if self._at_start and not self.is_thinking and self._is_harmony:
                start = text.lstrip()
                if not final and _STRIPPED_OPEN.startswith(start):
                    self._held = text
                    break
                if start.startswith(_STRIPPED_OPEN):
                    self._open()
                    text = start[len(_STRIPPED_OPEN) :]
                    continue
            if tag is None:
                keep = 0 if final else max(_overlap(text, one) for one in (*tags, *late, *self._noise()))
                if not final and self._is_blank_start(text[: len(text) - keep]):
                    keep = len(text)
                self._put(text[: len(text) - keep])
                self._held = text[len(text) - keep :]
                break
            if tag in late or not self._is_blank_start(text[:at]):
                self._put(text[:at])
            text = text[at + len(tag) :]
            if self.is_thinking:
                self.is_thinking = False
            elif tag in late and tag not in tags:
                self.thought, self.answer = self.answer, ""
                self.has_thought = True
                before = (len(self.thought), 0)
            else:
                self._open()
        return SplitText(self.thought[before[0] :], self.answer[before[1] :])

    def _open(self) -> None:
        self.is_thinking = self.has_thought = True
        self._at_start = False

    def _is_blank_start(self, text: str) -> bool:
        """Whether a text is white space at the start, after which a thought may follow."""
        return not (self.is_thinking or self.answer or text.strip())

    def _noise(self) -> tuple[str, ...]:
        return _HARMONY_NOISE if self._is_harmony else ()

    def _put(self, text: str) -> None:
        for mark in self._noise():
            text = text.replace(mark, "")
        if self.is_thinking:
            self.thought += text
            return
        if not self.answer and self.has_thought:
            text = text.lstrip()
        self.answer += text
        self._at_start = self._at_start and not text.strip()


def _tags(profile: ModelProfile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if profile.thought == "channel":
        return HARMONY_OPEN, (*HARMONY_CLOSE, _STRIPPED_CLOSE)
    opens = dict.fromkeys([profile.open_tag.strip(), *(tag.strip() for tag, _ in COMMON_TAGS[:1])])
    closes = dict.fromkeys([profile.close_tag.strip(), *(tag.strip() for _, tag in COMMON_TAGS[:1])])
    return tuple(opens), tuple(closes)


def split_thought(text: str, profile: ModelProfile, *, opened: bool = False) -> ThoughtSplitter:
    """A complete text, split."""
    splitter = ThoughtSplitter(profile, opened=opened)
    splitter.push(text)
    splitter.finish()
    return splitter


def _first(text: str, tags: Sequence[str]) -> tuple[int, str | None]:
    """The first tag in a text, the longest of those at one position."""
    found = [(at, -len(tag), tag) for tag in tags if (at := text.find(tag)) >= 0]
    if not found:
        return -1, None
    at, _, tag = min(found)
    return at, tag


def _overlap(text: str, tag: str) -> int:
    """Length of the longest suffix of a text that is a proper prefix of a tag."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
