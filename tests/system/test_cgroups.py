"""The limits of a pod's control group, on the machine's own hierarchies."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from polder.system.cgroups import Cgroups, Limits

pytestmark = pytest.mark.system


def test_a_pod_that_forks_for_ever_meets_its_limit() -> None:
    top = f"/pldcg{os.getpid()}"
    groups = Cgroups()
    try:
        groups.ensure(f"{top}/pod1", Limits(processes=16))
        groups.limit_processes(top)
        found = sorted(Path("/sys/fs/cgroup").rglob(f"pldcg{os.getpid()}/**/pids.max"))
        shown = {path.parent.name: path.read_text().strip() for path in found}
        assert shown == {top[1:]: str(int(Path("/proc/sys/kernel/pid_max").read_text()) // 4), "pod1": "16"}
        (place,) = (path.parent / "cgroup.procs" for path in found if path.parent.name == "pod1")
        bomb = f"echo $$ > {place}; for i in $(seq 40); do sleep 5 & done; wait"
        ended = subprocess.run(["sh", "-c", bomb], capture_output=True, text=True, timeout=60, check=False)
        assert "fork" in ended.stderr.lower()
    finally:
        for process in groups.processes(top):
            os.kill(process.pid, 9)
        assert groups.remove(top, within=10.0)
