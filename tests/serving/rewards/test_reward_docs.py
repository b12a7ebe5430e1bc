"""The example of the documentation runs, and its tables name what the functions take."""

from pathlib import Path

from reason.serving.rewards.factory import PREFIXES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rewards-and-embeddings.md"


def test_all_names_are_documented():
    text = PAGE.read_text(encoding="utf-8")
    for prefix in PREFIXES:
        assert f"`{prefix}<" in text
