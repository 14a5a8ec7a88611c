"""The package stands above the others: nothing imports it, and its modules import downwards only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import sentence_transformers
from sentence_transformers import order

PACKAGE, ALL = Path(order.__path__[0]), Path(sentence_transformers.__path__[0])
NAME = "sentence_transformers.order"


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_other_module_imports_the_package() -> None:
    """Neither the release's, nor the fixes', nor the planned sampler."""
    others = [path for path in ALL.rglob("*.py") if path.parent.name != "order"]
    assert len(others) > 100
    assert [path for path in others if any(name.startswith(NAME) for name in imports_of(path))] == []


def test_its_modules_import_each_other_without_a_circle() -> None:
    """But for the types that a checker alone reads."""
    graph = {}
    for path in PACKAGE.glob("*.py"):
        source = path.read_text("utf-8").partition("if TYPE_CHECKING:\n")
        rest = source[2].partition("\n\n")[2]
        tree = ast.parse(source[0] + rest) if source[1] else ast.parse(source[0])
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        graph[path.stem] = {name.removeprefix(f"{NAME}.") for name in modules if name.startswith(f"{NAME}.")}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph) > 10


def test_what_is_exported_is_what_is_named() -> None:
    """And nothing else is in ``__init__.py``."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names - {"annotations"} == set(order.__all__)
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in tree.body)
