"""The README's commands, run as they stand (only state, name and addresses are another cluster's)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import new_cluster
from tests.e2e.harness import ROOT
from tests.e2e.host import snapshot

pytestmark = pytest.mark.e2e
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_session_in_the_readme_works(tmp_path: Path) -> None:
    cluster = new_cluster("r", 192)
    before = snapshot(cluster.name), snapshot(str(cluster.state))
    script = "\n".join(BLOCK.findall((ROOT / "README.md").read_text()))
    assert script.count("make up") == script.count("make down") == 1
    up = f"polder up --name {cluster.name} --subnet {cluster.subnet} --port {cluster.port}"
    script = script.replace("/var/lib/polder", str(cluster.state)).replace("make up", f".venv/bin/{up}")
    # `! command` does not end a script under -e, so each refusal is asked for by name.
    script = re.sub(r"^! (.*)$", r"if \1; then exit 9; fi", script, flags=re.MULTILINE)
    for name in ("acme", "globex", "jane"):
        script = script.replace(f"{name}.kubeconfig", f"{tmp_path}/{name}")
    script = script.replace("https://127.0.0.1:6443", f"https://127.0.0.1:{cluster.port}")
    environment = {**os.environ, "POLDER_STATE": str(cluster.state)}
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("| head -c 200", "| cut -c1-200")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "Ready" in done.stdout
        assert 'tenants.polder.dev "nobody" is forbidden' in done.stderr
        assert 'tenants.polder.dev "globex" is forbidden: User "jane"' in done.stderr
        assert (snapshot(cluster.name), snapshot(str(cluster.state))) == before
    finally:
        cluster.down("--wipe")
        shutil.rmtree(cluster.state, ignore_errors=True)
