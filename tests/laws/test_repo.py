"""Laws of the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SYSTEM_LIBRARIES = ("grpc", "cryptography", "ctypes")
"""Libraries that reach the host; each has one door in polder/system: a file, or a package where a file is too small."""


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return out.stdout.splitlines()


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_each_system_library_has_one_door() -> None:
    for library in SYSTEM_LIBRARIES:
        users = [p for p in tracked() if p.startswith("polder/") and p.endswith(".py") and library in imports(ROOT / p)]
        outside = [u for u in users if not u.startswith("polder/system/")]
        assert outside == [], library
        if library != "ctypes":
            doors = {u if u.count("/") == 2 else u.rpartition("/")[0] for u in users}
            assert len(doors) <= 1, (library, users)


def test_no_marks_of_unfinished_work() -> None:
    mark = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|X" + "XX)\\b|NotImplemented" + "Error")
    found = [
        f"{path}:{number}"
        for path in tracked()
        if path.endswith((".py", ".sh", ".c", "Makefile"))
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if mark.search(line)
    ]
    assert found == []


def test_only_main_reads_the_environment() -> None:
    reads = re.compile(r"os\.environ|os\.getenv|getenv\(")
    found = [
        path
        for path in tracked()
        if path.startswith("polder/") and path.endswith(".py") and not path.startswith("polder/main/")
        if reads.search((ROOT / path).read_text())
    ]
    assert found == []


def test_no_registry_host_and_no_machine_path_is_named() -> None:
    named = re.compile(
        "pypi" + r"\.org|python" + "hosted|deb" + r"\.debian|registry\.npm" + "js|/wo" + "rk/|/ro" + "ot/"
    )
    found = [
        f"{path}:{number}"
        for path in tracked()
        if not path.startswith("third_party/")
        for number, line in enumerate((ROOT / path).read_text(errors="replace").splitlines(), 1)
        if named.search(line)
    ]
    assert found == []


def test_nothing_waits_in_a_way_that_loses_cancellations() -> None:
    lossy = "asyncio.wait_" + "for("
    found = [p for p in tracked() if p.startswith("polder/") and p.endswith(".py") and lossy in (ROOT / p).read_text()]
    assert found == [], "in Python 3.11 it may swallow a cancellation: use asyncio.timeout, or polder.loop.wait"
