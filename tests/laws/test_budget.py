"""The size budget: small files, short functions, few parameters, flat inheritance."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("polder", "tests", "tools", "bench")
FILE_LINES = 400
FUNCTION_LINES = 40
PARAMETERS = 6
PATCHES_PER_100_TESTS = 5


def sources(*folders: str) -> list[Path]:
    found = [
        path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "_generated" not in path.parts
    ]
    assert found, folders
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", sources(*FOLDERS), ids=name)
def test_file_length(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", sources("polder", "tools", "bench"), ids=name)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    over = []
    for function in functions(ast.parse(path.read_text())):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > FUNCTION_LINES:
            over.append(f"{function.name} has {length} lines, more than {FUNCTION_LINES}")
        arguments = function.args
        names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
        taken = [n for n in names if n not in ("self", "cls")]
        if len(taken) > PARAMETERS:
            over.append(f"{function.name} takes {len(taken)} parameters, more than {PARAMETERS}")
    assert over == []


def test_inheritance_is_flat() -> None:
    bases: dict[str, list[str]] = {}
    for path in sources("polder"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]

    def is_error(cls: str) -> bool:
        return cls.endswith("Error")

    def depth(cls: str) -> int:
        own = [b for b in bases.get(cls, []) if b in bases and b != cls]
        return 1 + max((depth(b) for b in own), default=0)

    # msgspec's base classes of ours (Struct, Object) and error trees are vocabularies, not behaviour.
    vocabulary = {"Struct", "Object"}
    over = [cls for cls in bases if not is_error(cls) and depth(cls) - len(vocabulary & ancestors(cls, bases)) > 2]
    assert over == []


def ancestors(cls: str, bases: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(bases.get(cls, []))
    while todo:
        base = todo.pop()
        if base not in found:
            found.add(base)
            todo.extend(bases.get(base, []))
    return found


def test_few_patches() -> None:
    patches = tests = 0
    for path in sources("tests"):
        tree = ast.parse(path.read_text())
        tests += sum(f.name.startswith("test_") for f in functions(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in {"setattr", "setitem", "setenv", "patch"}:
                patches += isinstance(node.value, ast.Name) and node.value.id in {"monkeypatch", "mock", "mocker"}
    assert patches * 100 <= PATCHES_PER_100_TESTS * tests
