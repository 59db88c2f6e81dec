from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Cluster


def new_cluster(letter: str, third: int) -> Cluster:
    state = Path(tempfile.mkdtemp(prefix=f"polder-{letter}", dir="/tmp"))
    return Cluster(state=state, name=f"{letter}{os.getpid() % 100000}", subnet=f"172.30.{third}.0/24")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, shared by the tests: each makes tenants of its own."""
    made = new_cluster("e", 130 + os.getpid() % 50)
    try:
        made.up()
        yield made
    finally:
        logs = [made.state / "server" / "log", *(made.state.glob("nodes/*/log"))]
        for log in logs:
            if log.exists():
                print(f"--- the last lines of {log}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
        made.down()
        shutil.rmtree(made.state)
