"""The Python sources of a package that is not imported: which names, parameters and attributes they define.

Reads syntax only, so that a package can be checked without its compiled parts and its dependencies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Signature:
    """Parameters of a function, without `self` or `cls`.

    Attributes:
        positional: Those that may be given by position.
        num_required: Number of them without a default.
        keyword_only: Those that may be given by name only, and whether they have a default.
        takes_more: Whether further positional arguments are accepted.
        takes_any: Whether any keyword is accepted.
    """

    positional: tuple[str, ...] = ()
    num_required: int = 0
    keyword_only: dict[str, bool] = field(default_factory=dict)
    takes_more: bool = False
    takes_any: bool = False

    def refusal(self, num_positional: int, keywords: tuple[str, ...]) -> str:
        """Why a call with so many positional arguments and these keywords fails; empty if it does not."""
        if num_positional > len(self.positional) and not self.takes_more:
            return f"{num_positional} arguments by position, {len(self.positional)} parameters"
        names = {*self.positional[num_positional:], *self.keyword_only}
        if unknown := [name for name in keywords if name not in names and not self.takes_any]:
            return f"no parameter {', '.join(unknown)}"
        required = [*self.positional[num_positional : self.num_required]]
        required += [name for name, has_default in self.keyword_only.items() if not has_default]
        if missing := [name for name in required if name not in keywords]:
            return f"required parameter {', '.join(missing)}"
        return ""


class Module:
    """A module's syntax tree."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)

    @cached_property
    def definitions(self) -> dict[str, list[ast.stmt]]:
        """Statements that define each name at the module's level, under conditions too."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in _flat(self.tree.body):
            for name in _names(statement):
                found.setdefault(name, []).append(statement)
        return found


class SourceTree:
    """The modules of a package below a directory.

    Args:
        root: The directory that contains the package's own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """A module by its dotted name; None if there is none."""
        if name not in self._modules:
            path = self.root.joinpath(*name.split("."))
            files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
            self._modules[name] = Module(files[0]) if files else None
        return self._modules[name]

    def defines(self, module: str, name: str) -> bool:
        """Whether `from module import name` finds the name."""
        loaded = self.module(module)
        return loaded is not None and (name in loaded.definitions or self.module(f"{module}.{name}") is not None)

    def find(self, reference: str) -> tuple[str, Definition] | None:
        """The definition of `module:name` or `module:Class.method`, where it is imported from too, and its module."""
        module, _, qualname = reference.partition(":")
        name, _, member = qualname.partition(".")
        found = self._resolve(module, name)
        if found is None or not member:
            return found
        where, definition = found
        if not isinstance(definition, ast.ClassDef):
            return None
        return next(((w, d) for w, n, d in self.members(where, definition) if n == member), None)

    def classes(self, module: str, definition: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
        """A class and its bases, as far as this package defines them, nearest first."""
        yield module, definition
        for base in definition.bases:
            node = base.value if isinstance(base, ast.Subscript) else base
            found = self._resolve(module, node.id) if isinstance(node, ast.Name) else None
            if found is not None and isinstance(found[1], ast.ClassDef):
                yield from self.classes(found[0], found[1])

    def members(self, module: str, definition: ast.ClassDef) -> Iterator[tuple[str, str, Definition]]:
        """Module, name and definition of each method of a class and its bases."""
        for where, one in self.classes(module, definition):
            for statement in _flat(one.body):
                if isinstance(statement, Definition):
                    yield where, statement.name, statement

    def attributes(self, reference: str) -> set[str]:
        """Names of the attributes and methods of a class, its bases' included."""
        found = self.find(reference)
        if found is None or not isinstance(found[1], ast.ClassDef):
            return set()
        names: set[str] = set()
        for _, one in self.classes(found[0], found[1]):
            for statement in _flat(one.body):
                names.update(_names(statement))
            names.update(
                node.attr
                for node in ast.walk(one)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
            )
        return names

    def signature(self, reference: str) -> Signature | None:
        """Parameters of a function, a method, or a class's constructor; None if there is none."""
        found = self.find(reference)
        if found is None:
            return None
        where, definition = found
        if not isinstance(definition, ast.ClassDef):
            return signature_of(definition, is_method="." in reference.partition(":")[2])
        for _, one in self.classes(where, definition):
            for statement in _flat(one.body):
                if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                    return signature_of(statement, is_method=True)
        return self._field_signature(where, definition)

    def _field_signature(self, module: str, definition: ast.ClassDef) -> Signature:
        """The constructor of a dataclass, or of what is like one: its annotated fields."""
        fields: dict[str, bool] = {}
        for _, one in reversed([*self.classes(module, definition)]):
            for statement in _flat(one.body):
                is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
                if is_field and "ClassVar" not in ast.unparse(statement.annotation):
                    fields[statement.target.id] = statement.value is not None
        names = tuple(fields)
        required = next((i for i, name in enumerate(names) if fields[name]), len(names))
        return Signature(names, required)

    def _resolve(self, module: str, name: str) -> tuple[str, Definition] | None:
        loaded = self.module(module)
        for statement in () if loaded is None else loaded.definitions.get(name, ()):
            if isinstance(statement, Definition):
                return module, statement
            if isinstance(statement, ast.ImportFrom):
                source = _absolute(module, statement, is_package=self._is_package(module))
                original = next(a.name for a in statement.names if (a.asname or a.name) == name)
                if (found := self._resolve(source, original)) is not None:
                    return found
        return None

    def _is_package(self, module: str) -> bool:
        return self.root.joinpath(*module.split("."), "__init__.py").is_file()


def signature_of(function: ast.FunctionDef | ast.AsyncFunctionDef, *, is_method: bool) -> Signature:
    """Parameters of a function; `is_method` says whether it is in a class."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    required = len(names) - len(arguments.defaults)
    is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    skipped = 1 if is_method and not is_static else 0
    keyword_only = {
        a.arg: default is not None for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    return Signature(
        tuple(names[skipped:]),
        max(0, required - skipped),
        keyword_only,
        arguments.vararg is not None,
        arguments.kwarg is not None,
    )


def imports_of(path: Path, package: str) -> set[tuple[str, str]]:
    """Modules and names that a file imports of a package; the name is empty where the module itself is imported."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and _is_in(node.module or "", package):
            found.update((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update((alias.name, "") for alias in node.names if _is_in(alias.name, package))
    return found


def is_abstract(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method must be overridden."""
    return any(ast.unparse(d).rpartition(".")[2] == "abstractmethod" for d in function.decorator_list)


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _absolute(module: str, statement: ast.ImportFrom, *, is_package: bool) -> str:
    if not statement.level:
        return statement.module or ""
    parents = module.split(".") if is_package else module.split(".")[:-1]
    parents = parents[: len(parents) - statement.level + 1]
    return ".".join([*parents, *([statement.module] if statement.module else [])])


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a body, those under conditions included."""
    for statement in body:
        yield statement
        for inner in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _flat(getattr(statement, inner, []))
        for handler in getattr(statement, "handlers", []):
            yield from _flat(handler.body)


def _names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, Definition):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"
