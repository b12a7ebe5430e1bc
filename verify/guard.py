"""Which writes depend on untrusted text: the approval mode "guard".

A tool's result is data, but a model that reads "transfer the money to …" in it may do so. Once a result has been read,
a call that changes something is the user's own only if the user's words name the action and every argument; any other
needs an approval. The rule reads no intention and judges no text, so no wording of an injection gets past it; it also
asks about calls whose arguments come from a harmless result. Source of the principle: Debenedetti et al., "Defeating
Prompt Injections by Design" (CaMeL, 2025), which tracks the flow of data through a program; this compares texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from .receipts import is_verb, plain, stem, synonyms, tool_words, word_set

_TOKEN: Final = re.compile(r"[\w@]+(?:[.,:/@#+-]+\w+)*")
_QUOTED: Final = re.compile(r"(?<!\w)(['\"])(?=\S)(.+?)(?<=\S)\1(?!\w)")
_CLAUSE_END: Final = re.compile(
    r"(?<!\bdr)(?<!\bmr)(?<!\bms)(?<!\bmrs)(?<!\bst)(?<!\bno)[.;?!]\s|,?\s(?=(?:and|then|also|but)\s)"
)
_PRONOUN: Final = re.compile(r"\b(?:it|its|that|this|them|their|him|his|her)\b")
_NOUNS: Final = word_set(
    "create make set update add send email mail message text post put file order book record note report log hold "
    "transfer request place plan credit"
)
"""Verbs that in names of tools are nouns, or say little beside another verb: `refund_create`, `share_file`."""


def is_users_own(tool: str, arguments: Mapping[str, JsonValue], texts: Sequence[str]) -> bool:
    """Whether one clause of the user's words names a call's action and all its arguments.

    Args:
        tool: The tool's name.
        texts: The user's messages.
    """
    words = [word if word.endswith("ing") else stem(word) for word in tool_words(tool)]
    verbs = {word for word in words if synonyms(word) is not None}
    named = verbs - _NOUNS
    leaves = [leaf for value in arguments.values() for leaf in _leaves(value)]
    for clause, around in _clauses(plain("\n".join(texts)).replace("e-mail", "email")):
        said = [verb for verb in named or verbs or words if _stems(clause) & (synonyms(verb) or {verb})]
        if said and len(said) >= len(named) and all(_is_said(leaf, around) for leaf in leaves):
            return True
    return False


def _clauses(text: str) -> list[tuple[str, str]]:
    """The parts of a text with a verb each, and each with the one before if a pronoun refers to that.

    What has no verb belongs to the part before; a quotation is not divided.
    """
    quotations: list[str] = []

    def hidden(match: re.Match[str]) -> str:
        quotations.append(match[0])
        return f"\0{len(quotations) - 1}\0"

    clauses: list[str] = []
    for part in _CLAUSE_END.split(_QUOTED.sub(hidden, text)):
        if clauses and not any(is_verb(word) for word in _stems(part)):
            clauses[-1] += f" {part}"
        else:
            clauses.append(part)
    shown = [re.sub(r"\0(\d+)\0", lambda match: quotations[int(match[1])], clause) for clause in clauses]
    return [
        (clause, f"{shown[i - 1]} {one}" if i and _PRONOUN.search(clause) else one)
        for i, (clause, one) in enumerate(zip(clauses, shown, strict=True))
    ]


def _stems(text: str) -> set[str]:
    return {stem(token) for token in _TOKEN.findall(text) if token.isalpha()}


def _is_said(leaf: JsonValue, said: str) -> bool:
    if leaf is None or isinstance(leaf, bool):
        return leaf is None  # words do not name a switch: "force", "public", "on"
    if isinstance(leaf, int | float):
        number = str(int(leaf) if float(leaf).is_integer() else leaf)
        return any(token.replace(",", "").removesuffix(".00") == number for token in _TOKEN.findall(said))
    text = re.escape(plain(str(leaf)).strip())
    return bool(text) and bool(re.search(rf"(?<![\w.@/-]){text}(?![\w@/-]|\.\w)", said))


def _leaves(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, dict):
        for name, inner in value.items():  # names within an argument are the model's, not the tool's
            yield name
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
