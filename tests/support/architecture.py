"""Reads the imports of a package and says where they break its floors; knows nothing of gemmaq but what it is given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Floors = tuple[tuple[str, ...], ...]
"""Rooms by floor, from the ground up. A room is a folder or a file directly in the package, by its name; "" is the
package's own `__init__`."""


@dataclass(frozen=True, slots=True)
class Import:
    """One module that imports another.

    Attributes:
        source: dotted name of the module that imports.
        target: dotted name of the imported module.
        line: line number in the source.
        by_name: whether the target is named in a string, as registries do that open an entry when it is asked for.
    """

    source: str
    target: str
    line: int
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """A parsed package.

    Attributes:
        name: name of the package.
        files: dotted module name -> file.
        trees: dotted module name -> syntax tree.
    """

    name: str
    files: dict[str, Path]
    trees: dict[str, ast.Module]

    def room(self, module: str) -> str:
        """Room of a module: the first name below the package, "" for the package itself."""
        return module.removeprefix(self.name).removeprefix(".").partition(".")[0]

    def path(self, module: str) -> str:
        """Path of a module's file below the package, with slashes."""
        root = self.files[self.name].parent
        return self.files[module].relative_to(root).as_posix()


def parse(root: Path) -> Package:
    """Parse all modules of the package in this folder."""
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return Package(root.name, files, {name: ast.parse(path.read_text()) for name, path in files.items()})


def imports(package: Package) -> list[Import]:
    """All imports of the package's own modules: lazy ones, those for types only, and those by a name in a string."""
    return [i for module in package.files for i in _of_module(package, module) if i.target != module]


def _of_module(package: Package, module: str) -> Iterator[Import]:
    for node in ast.walk(package.trees[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (target := _existing(package, alias.name)) is not None:
                    yield Import(module, target, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _base(package, module, node)
            for alias in node.names:
                if (target := _existing(package, f"{base}.{alias.name}")) is not None:
                    yield Import(module, target, node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in package.files:
            if node.value != package.name:
                yield Import(module, node.value, node.lineno, by_name=True)
        elif isinstance(node, ast.JoinedStr) and (prefix := _prefix(package, module, node)) is not None:
            yield Import(module, prefix, node.lineno, by_name=True)


def _base(package: Package, module: str, node: ast.ImportFrom) -> str:
    """Dotted name that `from ... import` starts from."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    if package.files[module].name != "__init__.py":
        parts.pop()
    parts = parts[: len(parts) - node.level + 1]
    return ".".join(parts + ([node.module] if node.module else []))


def _existing(package: Package, name: str) -> str | None:
    """The longest part of a dotted name that is a module of the package; None if it belongs to another package."""
    if name.split(".")[0] != package.name:
        return None
    while name not in package.files:
        name = name.rpartition(".")[0]
    return name


def _prefix(package: Package, module: str, node: ast.JoinedStr) -> str | None:
    """Package that a computed module name, as in f"gemmaq.vram.{name}" or f"{__name__}.{name}", lies in."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id == "__name__":
            text += module
        else:
            break
    if not re.fullmatch(rf"{package.name}(\.\w+)+\.", text):
        return None
    return _existing(package, text.rstrip("."))


def climbs(package: Package, floors: Floors) -> list[str]:
    """Imports that do not go to a lower floor or stay in their room, and rooms that are on no floor."""
    floor = {room: level for level, rooms in enumerate(floors) for room in rooms}
    rooms = sorted({package.room(module) for module in package.files})
    complaints = [f"{room} is on no floor" for room in rooms if room not in floor]
    for i in imports(package):
        source, target = package.room(i.source), package.room(i.target)
        known = source in floor and target in floor
        if source != target and known and floor[source] <= floor[target]:
            complaints.append(f"{package.path(i.source)} imports {i.target}")
    return sorted(set(complaints))


def computed(package: Package) -> list[str]:
    """Calls of import_module with a name that cannot be read from the file, so that nobody sees where it leads.

    Fine are a string, an f-string that begins with a package, and a variable in a file that holds such strings.
    """
    complaints = []
    named = {i.source for i in imports(package) if i.by_name}
    for module, tree in package.trees.items():
        for call in _calls(tree, "import_module", "__import__"):
            name = call.args[0] if call.args else None
            readable = isinstance(name, ast.Constant) or (
                _prefix(package, module, name) is not None if isinstance(name, ast.JoinedStr) else module in named
            )
            if not readable and not _constant_name(tree, name):
                complaints.append(package.path(module))
    return sorted(set(complaints))


def _constant_name(tree: ast.Module, name: ast.expr | None) -> bool:
    """Whether a name is bound to a string in the same file."""
    return isinstance(name, ast.Name) and any(
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and any(isinstance(target, ast.Name) and target.id == name.id for target in node.targets)
        for node in tree.body
    )


def _calls(tree: ast.Module, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
            if called in names:
                yield node


def circles(package: Package) -> list[str]:
    """Circles of files. A registry that opens the files of its own room by name makes none."""
    edges: dict[str, set[str]] = {module: set() for module in package.files}
    for i in imports(package):
        if not (i.by_name and package.room(i.source) == package.room(i.target)):
            edges[i.source].add(i.target)
    return [" <-> ".join(sorted(map(package.path, circle))) for circle in _components(edges)]


def room_circles(package: Package) -> list[str]:
    """Circles of rooms."""
    edges: dict[str, set[str]] = {package.room(module): set() for module in package.files}
    for i in imports(package):
        source, target = package.room(i.source), package.room(i.target)
        if source != target:
            edges[source].add(target)
    return [" <-> ".join(sorted(circle)) for circle in _components(edges)]


def _components(edges: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one node: who can reach each other."""
    reach = {node: _reachable(edges, node) for node in edges}
    components: list[set[str]] = []
    for node in sorted(edges):
        circle = {other for other in reach[node] if node in reach[other]} | {node}
        if len(circle) > 1 and circle not in components:
            components.append(circle)
    return components


def _reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    front = [start]
    while front:
        for target in edges[front.pop()] - found:
            found.add(target)
            front.append(target)
    return found


def loose_files(package: Package) -> list[str]:
    """Files directly in the package, `__init__` aside."""
    names = [package.path(module) for module in package.files]
    return sorted(name for name in names if "/" not in name and name != "__init__.py")


def commands(package: Package, room: str) -> list[str]:
    """Modules of a room that define a command: a public function with the name of its file."""
    found = []
    for module, tree in package.trees.items():
        parent, _, stem = module.rpartition(".")
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if parent == f"{package.name}.{room}" and stem in functions:
            found.append(module)
    return found


def sibling_imports(package: Package, room: str, app: str) -> list[str]:
    """Imports of command modules by any module but the one that registers them."""
    targets = set(commands(package, room))
    return sorted(
        {
            f"{package.path(i.source)} imports {i.target}"
            for i in imports(package)
            if i.target in targets and package.path(i.source) != f"{room}/{app}.py"
        }
    )


def keyed_by_id(package: Package) -> list[str]:
    """Files that call `id`."""
    return sorted({package.path(module) for module, tree in package.trees.items() for _ in _named(tree, "id")})


def _named(tree: ast.Module, name: str) -> Iterable[ast.Call]:
    return [call for call in _calls(tree, name) if isinstance(call.func, ast.Name)]


def mentions(package: Package, pattern: re.Pattern[str], allowed: str) -> list[str]:
    """Files outside a room whose path or text, comments included, matches a pattern."""
    return sorted(
        package.path(module)
        for module, path in package.files.items()
        if package.room(module) != allowed
        and (pattern.search(path.read_text()) or pattern.search(package.path(module)))
    )


def wide_functions(package: Package, limit: int, compiled: str) -> list[str]:
    """Public functions with more than `limit` positional parameters, those with the decorator `compiled` aside."""
    found = []
    for module, tree in package.trees.items():
        for owner, node in _public(tree.body):
            arguments = node.args
            positional = [a.arg for a in arguments.posonlyargs + arguments.args]
            count = len(positional) - (owner != "" and positional[:1] in (["self"], ["cls"]))
            decorators = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
            if count > limit and compiled not in decorators:
                found.append(f"{package.path(module)} {owner}{node.name}")
    return sorted(found)


def _public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield owner, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node.body, f"{node.name}.")


def importers(package: Package, other: str, allowed: str) -> list[str]:
    """Files outside a room that import another package."""
    found = set()
    for module, tree in package.trees.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == other for name in names) and package.room(module) != allowed:
                found.add(package.path(module))
    return sorted(found)


def long_files(package: Package, limit: int) -> list[str]:
    """Files of more than `limit` lines."""
    return sorted(package.path(m) for m, path in package.files.items() if len(path.read_text().splitlines()) > limit)


def untested(package: Package, tests: Path, compiled: str) -> list[str]:
    """Modules with behaviour but no test file of the same path.

    Behaviour is a function or a method; kernels, which only their callers call, count as part of those. The tests of
    `room/name.py` are `room/test_name.py` or `room/test_name_*.py`, those of a room's `__init__` `room/test_room.py`.
    """
    found = []
    for module, tree in package.trees.items():
        path = Path(package.path(module))
        name = path.parent.name if path.name == "__init__.py" else path.stem
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        kernels = any(isinstance(d, ast.Name) and d.id == compiled for f in functions for d in f.decorator_list)
        folder = tests / path.parent
        if functions and not kernels and not [*folder.glob(f"test_{name}.py"), *folder.glob(f"test_{name}_*.py")]:
            found.append(path.as_posix())
    return sorted(found)
