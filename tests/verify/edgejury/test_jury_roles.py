"""Roles: bundled ones, user-defined ones, and errors of invalid files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from reason.core.errors import DataError, UnknownName
from reason.core.types import Question
from reason.reasoning.answers.extraction import extract_answer
from reason.verify.edgejury.jurors import BUNDLED_ROLES, answer_prompt, bundled_roles, find_roles, load_role, role_of

CAPITAL = Question(text="What is the capital of France?", choices=("Lyon", "Paris"))
OPEN = Question(text="Why is the sky blue?")


def role_file(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_bundled_roles_answer_first() -> None:
    roles = bundled_roles()
    assert tuple(role.name for role in roles) == BUNDLED_ROLES
    assert len({role.system for role in roles}) == len(roles) == 4
    assert all(role.summary and not role.system.startswith("\n") for role in roles)
    assert "Answer first" in roles[1].system


def test_requested_headings_are_declared() -> None:
    for role in bundled_roles():
        asked_for = [word for word in ("Concerns", "Risks", "Steps", "Example") if f'"{word}:"' in role.system]
        assert list(role.headings) == asked_for


def test_role_files_are_packaged() -> None:
    root = Path(__file__).resolve().parents[3]
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in data["reason"] for path in root.glob(pattern) if path.suffix == ".toml"}
    assert {path.stem for path in packed if path.parent.name == "roles"} == set(BUNDLED_ROLES)


def test_roles_are_assigned_in_turn() -> None:
    roles = bundled_roles()
    assert [role_of(roles, juror) for juror in (0, 3, 4, 9)] == [roles[0], roles[3], roles[0], roles[1]]
    assert role_of((), 2) is None


def test_answer_prompt_has_role_and_form() -> None:
    role = bundled_roles()[1]
    prompt = answer_prompt(role, CAPITAL)
    system, user = prompt.messages
    assert (system.role, system.content) == ("system", role.system)
    assert user.content.startswith("What is the capital of France?\n\nA) Lyon\nB) Paris\n\n")
    assert user.content.endswith('end with a last line "Answer:" and the letter of the right choice.')
    (alone,) = answer_prompt(None, OPEN).messages
    assert alone.role == "user"
    assert alone.content.endswith("Begin with the answer itself, and stay under 200 words.")


@pytest.mark.parametrize(
    ("question", "line", "answer"),
    [
        (CAPITAL, "Answer: B", "B"),
        (Question(text="How many legs has a spider?"), "Answer: 8", "8"),
        (Question(text="Is water wet?"), "Answer: yes", "yes"),
        (Question(text="x", kind="math"), "Answer: \\boxed{2x}", "2x"),
    ],
)
def test_requested_form_can_be_parsed(question: Question, line: str, answer: str) -> None:
    assert line.split()[0] in answer_prompt(None, question).messages[0].content
    found = extract_answer(f"It could be otherwise, with 7 or A.\n{line}", question)
    assert found is not None
    assert (found.value, found.is_explicit) == (answer, True)


def test_custom_role(tmp_path: Path) -> None:
    path = role_file(tmp_path, 'name = "sceptic"\nsystem = """\nDoubt.\n"""\nheadings = ["Doubts"]\n')
    role = load_role(path)
    assert (role.name, role.system, role.headings, role.aliases) == ("sceptic", "Doubt.", ("Doubts",), ())
    assert find_roles([BUNDLED_ROLES[2], str(path)]) == (bundled_roles()[2], role)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name = ", "not TOML"),
        ('name = "a-b"\n', "system: field required"),
        ('name = "a b"\nsystem = "x"\n', "name"),
        ('name = "a-b"\nsystem = "  "\n', "system"),
        ('name = "a-b"\nsystem = "x"\ntemperature = 1\n', "temperature"),
        ('name = "a-b"\nsystem = "x"\nheadings = "Doubts"\n', "headings"),
        ('name = "a-b"\nsystem = "' + "x" * 30_000 + '"\n', "maximum is 20000"),
    ],
)
def test_invalid_role_file_error_names_file_and_fault(tmp_path: Path, text: str, what: str) -> None:
    path = role_file(tmp_path, text)
    with pytest.raises(DataError) as caught:
        load_role(path)
    assert str(path) in caught.value.message
    assert what in caught.value.message
    assert "name, summary and system" in caught.value.hint


def test_missing_role_files_raise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no role file"):
        load_role(tmp_path / "absent.toml")
    with pytest.raises(DataError, match="cannot read the role file"):
        load_role(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"\nsystem = "x"\n')
    with pytest.raises(DataError, match="not TOML in UTF-8"):
        load_role(tmp_path / "latin.toml")
    (tmp_path / "deep.toml").write_text("name = " + "[" * 5000)
    with pytest.raises(DataError, match="not TOML in UTF-8"):
        load_role(tmp_path / "deep.toml")


def test_unknown_or_duplicate_role_names_raise() -> None:
    with pytest.raises(UnknownName, match="did you mean 'edge-case-finder'"):
        find_roles(["edge-case-findr"])
    with pytest.raises(DataError, match="two roles have the name 'direct-answerer'"):
        find_roles([BUNDLED_ROLES[0], BUNDLED_ROLES[0]])
