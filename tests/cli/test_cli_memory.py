"""`reason memory`: list, show and remove, and every way to get it wrong; no model is opened."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from reason.core.settings import load_settings
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory.named_memory import load_memory
from reason.reasoning.retrieval.deduplication import text_hash


def fill(name: str, *texts: str, store: Path | None = None, source: str = "") -> None:
    async def inside() -> None:
        memory = await load_memory(name, load_settings(store=store))
        about: Any = {
            "score": 0.5,
            "source_id": source,
            "source_kind": "folder" if source else "self",
            "query": "colours",
            "node_id": 3,
            "tokens": 2,
        }
        items = [MemoryItem(text=text, hash=text_hash(text), **about) for text in texts]
        await memory.add(items, run_id="r1", question="Which colours?")
        await memory.aclose()

    asyncio.run(inside())


def records(shown: str) -> list[dict[str, object]]:
    items: list[dict[str, object]] = json.loads(shown)["items"]
    return items


def test_no_memories(cli, home):
    assert cli("memory") == (0, "", "no memories yet\n")
    assert cli("memory", "list", "--json") == (0, '{"memories": []}\n', "")
    assert not (home / "data").exists()  # looking leaves nothing behind


def test_the_list_and_a_damaged_memory(cli, home):
    fill("facts", "red one", "green two")
    fill("empty")
    fill("broken", "x")
    (home / "data" / "reason" / "memory" / "broken.sqlite3").write_bytes(b"no database" * 500)
    status, out, err = cli("memory", "list")
    assert (status, err) == (0, "")
    head, *rows = [line.split() for line in out.splitlines()]
    assert head == ["name", "state", "items", "changed", "size"]
    assert [row[:3] for row in rows] == [["broken", "damaged", "6"], ["empty", "ready", "0"], ["facts", "ready", "2"]]
    listed = json.loads(cli("memory", "list", "--json")[1])["memories"]
    states = [f"{m['name']} {m['state']} {m['items']}" for m in listed]
    assert states == ["broken damaged 0", "empty ready 0", "facts ready 2"]
    status, out, err = cli("memory", "show", "broken")
    assert (status, out) == (3, "")
    assert "memory 'broken' is damaged" in err
    assert "`reason memory rm broken`" in err
    assert cli("memory", "rm", "broken", "--yes")[0] == 0
    assert "broken" not in cli("memory", "list")[1]


def test_show(cli):
    fill("facts", "red one", "green [b]two[/b]\nlines", source="docs/a.md:0-9")
    status, out, err = cli("memory", "show", "facts")
    assert (status, err) == (0, "")
    head, first, second = out.splitlines()
    assert head.split() == ["item", "age", "score", "source", "text"]
    number, _, _, *others = first.split()  # between them the age
    assert (number, others) == ("1", ["0.50", "docs/a.md:0-9", "red", "one"])
    assert second.rstrip().endswith("green [b]two[/b] lines")
    status, out, err = cli("memory", "show", "facts", "-n", "1")
    assert len(out.splitlines()) == 2
    assert out.splitlines()[1].startswith("2 ")
    assert err == "note: 1 older items are not shown; --limit 2 shows all\n"
    fill("empty")
    assert cli("memory", "show", "empty") == (0, "", "memory 'empty' is empty\n")


def test_show_as_json_contains_all_items_of_the_memory_beside_a_run_store(cli, home):
    store = home / "elsewhere" / "my.sqlite3"
    fill("facts", *(f"word{i} öther{i}" for i in range(60)), store=store)
    assert cli("memory", "list")[2] == "no memories yet\n"
    show = ("memory", "show", "facts", "--json", "--store", str(store))
    shown = records(cli(*show)[1])
    assert [(one["id"], one["text"]) for one in shown] == [(i + 1, f"word{i} öther{i}") for i in range(60)]
    assert [one["id"] for one in records(cli(*show, "-n", "2")[1])] == [59, 60]


def test_items_are_removed(cli):
    fill("facts", "red one", "green two", "blue three")
    assert cli("memory", "rm", "facts", "1", "3", "1", "--yes") == (0, "", "removed items 1, 3 of memory facts\n")
    assert [record["id"] for record in records(cli("memory", "show", "facts", "--json")[1])] == [2]
    status, out, err = cli("memory", "rm", "facts", "2", "9", "--yes")
    assert (status, out) == (2, "")
    assert "unknown item 'facts 9'" in err
    assert "reason memory show facts" in err
    assert cli("memory", "rm", "facts", "2", "-y")[2] == "removed item 2 of memory facts\n"
    assert cli("memory", "list", "--json")[1].count('"items": 0') == 1


@pytest.mark.parametrize("command", [("show",), ("rm", "--yes")])
def test_unknown_memory_names_are_refused(cli, command):
    fill("facts", "red one")
    status, out, err = cli("memory", command[0], "fact", *command[1:])
    assert (status, out) == (2, "")
    assert "unknown memory 'fact'" in err
    assert "did you mean 'facts'?" in err
    status, out, err = cli("memory", command[0], "../facts", *command[1:])
    assert (status, out) == (2, "")
    assert "is not a valid name of a memory" in err


@pytest.mark.parametrize(("response", "left"), [("n\n", 1), ("y\n", 0)])
def test_removal_on_a_terminal_asks_for_confirmation(cli, monkeypatch, response, left):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    fill("facts", "red one")
    monkeypatch.setattr(sys, "stdin", Terminal(response))
    status, out, err = cli("memory", "rm", "facts", "1")
    assert (status, out.strip()) == (0, "")
    assert "Remove item 1 of memory facts?" in err
    assert ("nothing was removed" in err) is bool(left)
    assert len(records(cli("memory", "show", "facts", "--json")[1])) == left
