"""The house: rooms on floors, imports that only go down, and what no file may do. And that a broken wall is seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import architecture
import gemmaq
from architecture import Package

FLOORS = (
    ("", "errors", "jit", "progress"),
    ("encodings", "files", "charts", "hub"),
    ("models",),
    ("checkpoint", "methods"),
    ("planning", "inference", "sources"),
    ("containers", "calibration", "artifact", "vram"),
    ("convert", "runtimes"),
    ("qat", "evaluate", "verify"),
    ("budget",),
    ("cli",),
)
"""Rooms by floor, from the ground up; "" is `gemmaq/__init__.py`. The docstring there says what each is for."""

ENTRANCE = "__main__.py"
LOOSE = (ENTRANCE, "errors.py", "progress.py")
COMPILED = "compiled"
FAMILY = re.compile(r"gemma.?\d|siglip", re.IGNORECASE)
TENSORS = re.compile(r"embed_tokens|lm_head|model\.layers|self_attn|(up|down|gate|[qkvo])_proj")
EXTRA = re.compile(r"install[^\n]*gemmaq\[")
CLASSES = re.compile(r"For[A-Z][A-Za-z]*(LM|Generation)\b|\bGemma[A-Z0-9]\w*(Model|Config|Layer|Tokenizer|Embedding)")

Rule = Callable[[Package], list[str]]

RULES: dict[str, Rule] = {
    "imports go down": lambda p: [c for c in architecture.climbs(p, FLOORS) if not c.startswith("__main__")],
    "imports can be read": architecture.computed,
    "no circle of files": architecture.circles,
    "no circle of rooms": architecture.room_circles,
    "no other loose file": lambda p: [name for name in architecture.loose_files(p) if name not in LOOSE],
    "only the app imports a command": lambda p: architecture.sibling_imports(p, "cli", "app"),
    "only models/ names a family": lambda p: architecture.mentions(p, FAMILY, "models"),
    "only models/ names a tensor": lambda p: architecture.mentions(p, TENSORS, "models"),
    "only models/ names a Hugging Face class": lambda p: architecture.mentions(p, CLASSES, "models"),
    "only hub/ imports huggingface_hub": lambda p: architecture.importers(p, "huggingface_hub", "hub"),
    "no hint needs a release": lambda p: architecture.mentions(p, EXTRA, ""),
    "nothing is keyed by id()": architecture.keyed_by_id,
    "at most five positional parameters": lambda p: architecture.wide_functions(p, 5, COMPILED),
    "at most 350 lines": lambda p: architecture.long_files(p, 350),
    "a test file of the same path": lambda p: architecture.untested(p, Path(__file__).parent, COMPILED),
}


@pytest.fixture(scope="module")
def house() -> Package:
    return architecture.parse(Path(gemmaq.__file__).parent)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rules(house: Package, rule: str) -> None:
    assert not RULES[rule](house)


def test_there_are_at_most_ten_floors() -> None:
    assert len(FLOORS) <= 10
    assert len(LOOSE) <= 4


def test_the_docstring_of_the_package_shows_the_floors() -> None:
    rows = re.findall(r"^ {4}(\d+) +(\S.*?)  ", gemmaq.__doc__ or "", re.MULTILINE)
    shown = {int(floor): tuple(name for name in re.findall(r"\w+", rooms)) for floor, rooms in rows}
    assert shown == {n: tuple(room for room in rooms if room) for n, rooms in enumerate(FLOORS, 1)}


def build(root: Path, files: dict[str, str]) -> Package:
    """A package of these files, with the `__init__` files that it needs."""
    package = root / "toy"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.relative_to(root).parents:
            if str(folder) != "." and not (root / folder / "__init__.py").exists():
                (root / folder / "__init__.py").write_text("")
    return architecture.parse(package)


TOY = (("",), ("low",), ("high",))

WALLS = {
    "at the top": ("low/a.py", "from toy.high import b\n"),
    "of the package": ("low/a.py", "import toy.high.b\n"),
    "in a function": ("low/a.py", "def f():\n    from toy.high.b import g\n    return g\n"),
    "for types only": (
        "low/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.high.b import g\n",
    ),
    "relative": ("low/a.py", "from ..high import b\n"),
    "relative, in an __init__": ("low/__init__.py", "from ..high.b import g\n"),
    "by a name": ("low/a.py", "from importlib import import_module\nb = import_module('toy.high.b')\n"),
    "by a name in a table": ("low/a.py", "TABLE = {'b': 'toy.high.b'}\n"),
    "by a computed name": (
        "low/a.py",
        "def f(n):\n    return __import__('importlib').import_module(f'toy.high.{n}')\n",
    ),
}


@pytest.mark.parametrize("wall", WALLS)
def test_an_import_of_a_higher_floor_is_seen(tmp_path: Path, wall: str) -> None:
    name, text = WALLS[wall]
    package = build(tmp_path, {"high/b.py": "def g(): ...\n", "low/c.py": "", name: text})
    [complaint] = architecture.climbs(package, TOY)
    assert complaint.startswith(f"{name} imports toy.high")


def test_imports_that_go_down_or_stay_in_the_room_are_fine(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        {
            "low/a.py": "import os.path\nfrom toy.low import b\nfrom json import dumps\n",
            "low/b.py": "NAME = 'toy'\n",
            "high/c.py": "from toy import __doc__\nfrom toy.low.a import b\nfrom .d import e\n",
            "high/d.py": "e = 'toy.nowhere, or a sentence about toy.low.a'\n",
        },
    )
    assert architecture.climbs(package, TOY) == []
    assert architecture.circles(package) == []
    assert architecture.room_circles(package) == []
    assert architecture.computed(package) == []


def test_a_room_on_the_same_floor_is_another_room(tmp_path: Path) -> None:
    package = build(tmp_path, {"one/a.py": "import toy.two.b\n", "two/b.py": ""})
    assert architecture.climbs(package, (("",), ("one", "two"))) == ["one/a.py imports toy.two.b"]


def test_a_room_on_no_floor_is_seen(tmp_path: Path) -> None:
    package = build(tmp_path, {"low/a.py": "", "utils/b.py": ""})
    assert architecture.climbs(package, TOY) == ["utils is on no floor"]


def test_a_hidden_name_is_seen(tmp_path: Path) -> None:
    text = "from importlib import import_module\n\n\ndef f(name):\n    return import_module(name)\n"
    package = build(tmp_path, {"low/a.py": text, "low/b.py": text + "\n\nTABLE = {'c': 'toy.low.c'}\n", "low/c.py": ""})
    assert architecture.computed(package) == ["low/a.py"]


def test_circles_of_files_and_of_rooms_are_seen(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        {
            "low/a.py": "from toy.low.b import f\n",
            "low/b.py": "def f():\n    from toy.low.c import g\n",
            "low/c.py": "from toy.low import a\n",
            "low/d.py": "from toy.high import e\n",
            "high/e.py": "from toy.low import a\n",
        },
    )
    assert architecture.circles(package) == ["low/a.py <-> low/b.py <-> low/c.py"]
    assert architecture.room_circles(package) == ["high <-> low"]


def test_a_registry_may_open_the_files_of_its_room_which_import_it(tmp_path: Path) -> None:
    registry = "from importlib import import_module\n\n\ndef f(name):\n    return import_module(f'{__name__}.{name}')\n"
    package = build(tmp_path, {"low/__init__.py": registry, "low/a.py": "from toy.low import f\n"})
    assert architecture.circles(package) == []
    assert architecture.computed(package) == []


def test_loose_files_are_seen(tmp_path: Path) -> None:
    package = build(tmp_path, {"errors.py": "", "helpers.py": "", "low/a.py": ""})
    assert architecture.loose_files(package) == ["errors.py", "helpers.py"]


def test_a_command_that_imports_its_sibling_is_seen(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        {
            "cli/app.py": "from toy.cli.one import one\nfrom toy.cli.two import two\n",
            "cli/one.py": "def one(): ...\n\n\ndef part(): ...\n",
            "cli/two.py": "from toy.cli.options import cores\n\n\ndef two():\n    from toy.cli.one import part\n",
            "cli/options.py": "def cores(): ...\n",
        },
    )
    assert architecture.sibling_imports(package, "cli", "app") == ["cli/two.py imports toy.cli.one"]


def test_calls_of_id_are_seen(tmp_path: Path) -> None:
    package = build(tmp_path, {"low/a.py": "d = {id(x): x for x in ()}\n", "low/b.py": "token.id(3)\nid = 4\n"})
    assert architecture.keyed_by_id(package) == ["low/a.py"]


def test_long_rows_of_positional_parameters_are_seen(tmp_path: Path) -> None:
    text = """
def wide(a, b, c, d, e, f): ...
def keywords(a, *, b, c, d, e, f): ...
def _private(a, b, c, d, e, f): ...
@compiled
def kernel(a, b, c, d, e, f): ...
class Thing:
    def fine(self, a, b, c, d, e): ...
    def wide(self, a, b, c, d, e, /, f): ...
"""
    package = build(tmp_path, {"low/a.py": text})
    assert architecture.wide_functions(package, 5, "compiled") == ["low/a.py Thing.wide", "low/a.py wide"]


@pytest.mark.parametrize("word", ["gemma3", "Gemma 3", "GEMMA_3", "gemma-3-27b", "SigLIP"])
def test_the_name_of_a_family_is_seen(tmp_path: Path, word: str) -> None:
    package = build(tmp_path, {"models/a.py": f"# {word}\n", "low/b.py": f"# of {word}\n", "low/c.py": "# gemma\n"})
    assert architecture.mentions(package, FAMILY, "models") == ["low/b.py"]


def test_the_name_of_a_family_in_a_file_name_is_seen(tmp_path: Path) -> None:
    assert architecture.mentions(build(tmp_path, {"low/gemma3.py": ""}), FAMILY, "models") == ["low/gemma3.py"]


def test_importers_of_another_package_are_seen(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        {
            "hub/a.py": "import far\n",
            "low/b.py": "def f():\n    from far.away import g\n",
            "low/c.py": "from .far import g\n",
        },
    )
    assert architecture.importers(package, "far", "hub") == ["low/b.py"]


def test_modules_without_a_test_file_are_seen(tmp_path: Path) -> None:
    package = build(
        tmp_path,
        {
            "low/a.py": "def f(): ...\n",
            "low/b.py": "class C:\n    def m(self): ...\n",
            "low/c.py": "def f(): ...\n",
            "low/data.py": "X = 1\n",
            "low/kernels.py": "@compiled\ndef f(): ...\n",
            "low/__init__.py": "def f(): ...\n",
        },
    )
    tests = tmp_path / "tests"
    (tests / "low").mkdir(parents=True)
    for name in ("test_a.py", "test_c_fails.py", "test_low.py"):
        (tests / "low" / name).touch()
    assert architecture.untested(package, tests, "compiled") == ["low/b.py"]


def test_long_files_are_seen(tmp_path: Path) -> None:
    package = build(tmp_path, {"low/a.py": "\n" * 11, "low/b.py": "\n" * 10})
    assert architecture.long_files(package, 10) == ["low/a.py"]
