"""The house rules of the package, checked on its source: who imports whom, and what is public."""

import ast
import json
import subprocess
import sys
from collections.abc import Collection
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import advisor

PACKAGE = Path(advisor.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "bundle" not in path.parts)

BASE = {"records", "errors", "documents", "figures"}
CATALOGUE = BASE | {"task", "catalog"}
SERVING = CATALOGUE | {"physics", "serving"}
BELOW_DECIDE = SERVING | {"quality", "calibrate", "predict", "economics"}
MAY_IMPORT: dict[str, set[str]] = {
    "records": set(),
    "errors": set(),
    "figures": set(),
    "documents": {"records", "errors"},
    "task": BASE,
    "catalog": BASE | {"task"},
    "physics": CATALOGUE,
    "serving": CATALOGUE | {"physics"},
    "quality": CATALOGUE,
    "economics": CATALOGUE,
    "calibrate": SERVING,
    "predict": SERVING | {"calibrate"},
    "decide": BELOW_DECIDE,
    "simulation": BELOW_DECIDE | {"decide"},
    "router": CATALOGUE | {"quality"},
    "trial": SERVING | {"quality", "calibrate", "decide", "router"},
    "export": BELOW_DECIDE | {"decide", "router"},
    "schemas": BELOW_DECIDE | {"decide", "router"},
}
"""Rooms of the package, and the rooms that each may import."""

ANYTHING = {"screens", "cli", "__init__", "__main__"}
"""Import what they like; nothing imports them."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms named by any import of a module, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("advisor.")}


def test_the_map_of_rooms_has_no_cycle() -> None:
    order = list(TopologicalSorter(MAY_IMPORT).static_order())

    assert order.index("serving") < order.index("decide") < order.index("trial")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_the_rooms_below_them(path: Path) -> None:
    room = room_of(path)
    if room in ANYTHING:
        return
    assert room in MAY_IMPORT, f"the room '{room}' has no place in the map of rooms"
    beyond = imported_rooms(path) - MAY_IMPORT[room] - {room}
    assert not beyond, f"{room} may not import {', '.join(sorted(beyond))}"


def test_no_module_needs_itself_to_be_imported() -> None:
    modules = {name_of(path): path for path in MODULES}
    graph = {name: imported_first(path, modules.keys()) - {name} for name, path in modules.items()}

    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_first(path: Path, modules: Collection[str]) -> set[str]:
    """Modules that a module's own top-level imports mean."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            both = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else f"{node.module}" for name in both}
    return names & set(modules)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_say_what_they_are_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))

    assert ast.get_docstring(tree) or not tree.body, "no module docstring"


def test_public_names_are_what_they_say() -> None:
    assert advisor.__all__ == sorted(advisor.__all__)
    for name in advisor.__all__:
        value = getattr(advisor, name)
        assert value.__name__ == name
        assert value.__doc__
        assert name in dir(advisor)


def test_predict_stays_the_function_once_its_module_is_imported() -> None:
    module = import_module("advisor.predict")

    assert advisor.predict is module.predict
    assert sys.modules["advisor.predict"] is module


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        _ = advisor.recomend  # type: ignore[attr-defined]


HEAVY = ("streamlit", "pandas", "transformers", "torch", "sklearn", "scipy.stats", "altair")

PROBE = """
import json, sys, time
begin = time.perf_counter()
from advisor.cli import main
sys.stdout, out = open("/dev/null", "w"), sys.stdout
code = main(sys.argv[2:])
seconds = time.perf_counter() - begin
loaded = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
json.dump({"code": code, "heavy": loaded, "seconds": seconds}, out)
"""


def in_new_process(*arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    print(f"advisor {' '.join(arguments)}: {found['seconds']:.2f} s in a new process")
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("recommend", "intent-classification"),
        ("simulate", "batch-tagging", "--model", "Qwen3-8B", "--accelerator", "H100-SXM"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_answers_at_the_command_line_load_nothing_heavy(arguments: tuple[str, ...]) -> None:
    found = in_new_process(*arguments)

    assert found["code"] in (0, 1)
    assert found["heavy"] == []


def test_importing_the_package_loads_none_of_its_parts() -> None:
    program = "import sys, advisor; print([n for n in sys.modules if n.startswith('advisor.')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
