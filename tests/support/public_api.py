"""What is public, as plain data: every public name with its label, and how the stable ones are called.

python tests/support/public_api.py --write    writes tests/release/public_api.json, after a change that
docs/stability.md allows
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reason
from pydantic import BaseModel
from reason.core import errors
from reason.core.settings import Settings
from reason.reasoning.strategy import STRATEGIES
from reason.verify.verifier import VERIFIERS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from stability_labels import MEMBERS, NAMES, of_module  # noqa: E402

COMMITTED = ROOT / "tests" / "release" / "public_api.json"
OTHER_GROUPS = ("reason.datasets", "reason.logits_processors")

Described = dict[str, Any]


def public_api() -> Described:
    """Everything that is public, by kind."""
    return {
        "names": {**NAMES, **MEMBERS},
        "modules": {
            module: {"stability": of_module(module), "names": sorted(names_of(module))}
            for module in documented_modules()
        },
        "strategies": {name: STRATEGIES.load(name).stability for name in STRATEGIES.names()},
        "verifiers": {name: VERIFIERS.load(name).stability for name in VERIFIERS.names()},
        "plug-ins": {group: sorted(entry_points()[group]) for group in OTHER_GROUPS},
        "operations": operations(),
        "errors": {kind.__name__: an_error(kind) for kind in error_tree(errors.ReasonError)},
        "signatures": {name: signature(getattr(reason, name)) for name, label in NAMES.items() if label == "stable"},
        "parameters": {
            name: parameters(STRATEGIES.load(name).Config)
            for name in STRATEGIES.names()
            if STRATEGIES.load(name).stability == "stable"
        },
    }


def entry_points() -> dict[str, dict[str, str]]:
    """The entry points that pyproject.toml names, by group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups: dict[str, dict[str, str]] = project["entry-points"]
    return groups


def documented_modules() -> list[str]:
    """The modules that the reference shows, sorted."""
    pages = (page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    return sorted({module for page in pages for module in re.findall(r"^::: (\S+)$", page, re.M)})


def names_of(module: str) -> set[str]:
    """The public names that a module makes: its `__all__`, else what it defines at the top without an underscore."""
    path = ROOT.joinpath(*module.split(".")[1:])
    source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    made: set[str] = set()
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                made.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                made.add(name)
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return set(ast.literal_eval(value))
            case ast.Assign(targets=targets):
                made |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in made if not name.startswith("_")}


def operations() -> dict[str, str]:
    """The label of each operation of the sidecar, for example of "GET /v1/models"."""
    from reason.sidecar.app import create_app

    with tempfile.TemporaryDirectory() as folder:
        paths = create_app(Settings(store=Path(folder) / "runs.sqlite3")).openapi()["paths"]
    return {f"{m.upper()} {path}": one["x-stability"] for path, methods in paths.items() for m, one in methods.items()}


def error_tree(kind: type[errors.ReasonError]) -> Iterator[type[errors.ReasonError]]:
    """An error of `core.errors` and all below it."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from error_tree(below)


def an_error(kind: type[errors.ReasonError]) -> Described:
    """What a caller sees of a class of errors: what it is one of, its code, exit status and HTTP status."""
    above = [base.__name__ for base in kind.__bases__]
    return {"is": above, "code": kind.code, "exit": kind.exit_code, "http": kind.http_status}


def signature(what: Any) -> Any:
    """How something is called: a function's parameters; a class's fields or `__init__`, and its public members."""
    if not inspect.isclass(what):
        return type(what).__name__ if isinstance(what, str) else called(what)
    if issubclass(what, BaseModel):
        return {"fields": fields(what), "members": members(what, BaseModel)}
    return {"made by": called(what.__init__), "members": members(what, object, Exception)}


def called(what: Any) -> str:
    """Parameters and result; a default that is a function stands there as "..."."""
    return re.sub(r"<function .*? at 0x[0-9a-f]+>", "...", str(inspect.signature(what)))


def parameters(model: type[BaseModel]) -> Described:
    """A strategy's parameters as JSON has them: types, bounds and defaults, without the texts about them."""

    def bare(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {k: bare(v) for k, v in schema.items() if k not in ("title", "description") or type(v) is not str}
        return [json.dumps(bare(one), sort_keys=True) for one in schema] if isinstance(schema, list) else schema

    schema: Described = bare(model.model_json_schema())
    return schema


def fields(model: type[BaseModel]) -> dict[str, str]:
    """Type and default of each field, as the source has the type."""
    types: dict[str, Any] = {}
    for kind in reversed(model.__mro__):
        types |= inspect.get_annotations(kind)
    return {
        name: " ".join(str(types[name]).split()) + ("" if field.is_required() else f" = {default(field)}")
        for name, field in model.model_fields.items()
    }


def default(field: Any) -> str:
    """A default, or the name of what makes it."""
    factory = field.default_factory
    return repr(field.default) if factory is None else f"{getattr(factory, '__qualname__', factory)}()"


def members(kind: type, *above: type) -> dict[str, str]:
    """Signature of each public method and type of each property that a class has beyond what it inherits from above."""
    found: dict[str, str] = {}
    for name, value in inspect.getmembers_static(kind):
        if name.startswith("_") or f"{kind.__name__}.{name}" in MEMBERS or any(hasattr(base, name) for base in above):
            continue
        if isinstance(value, property):
            found[name] = f"property -> {inspect.signature(value.fget).return_annotation}" if value.fget else "property"
        elif isinstance(value, (classmethod, staticmethod)) or inspect.isfunction(value):
            found[name] = called(getattr(kind, name))
    return found


def committed() -> Described:
    """What was written down last."""
    read: Described = json.loads(COMMITTED.read_text(encoding="utf-8"))
    return read


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    COMMITTED.write_text(
        json.dumps(public_api(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
