"""The JavaScript client's ordinary operations, by the platform and by a tenant's administrator."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"


@pytest.fixture(scope="session")
def packages() -> Path:
    """The packages that the lock file names, installed once."""
    where = Path(__file__).parents[2] / ".venv" / "js-clients"
    where.mkdir(parents=True, exist_ok=True)
    lock = (CLIENTS / "package-lock.json").read_text()
    if not (where / "installed").exists() or (where / "installed").read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            (where / name).write_text((CLIENTS / name).read_text())
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=where, check=True, capture_output=True)
        (where / "installed").write_text(lock)
    (where / "ordinary.mjs").write_text((CLIENTS / "ordinary.mjs").read_text())
    return where


async def play(packages: Path, kubeconfig: Path) -> Any:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(packages / "ordinary.mjs"),
        str(kubeconfig),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


EXPECTED = {
    "version": "1",
    "created": "RollingUpdate",
    "scaled": 3,
    "patched": {"a": "b"},
    "applied": [5, True],
    "watched": [["ADDED", "1"], ["MODIFIED", "2"], ["DELETED", "2"]],
    "informed": "i",
    "allowed": True,
    "custom": [3],
    "missing": 404,
}


async def test_in_root_and_in_a_tenant(running: Any, admin: Any, packages: Path) -> None:
    assert await play(packages, running.kubeconfig(running.admin_leaf())) == EXPECTED
    await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})
    assert await play(packages, running.kubeconfig(await running.tenant_leaf("acme"))) == EXPECTED
