"""A whole cluster under test, used as a person uses it: through `polder` and `kubectl`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class CommandError(AssertionError):
    """A command that should have worked did not."""


def run(
    *argv: str, stdin: str | None = None, timeout: float = 120, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise CommandError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, check: Callable[[], object], within: float = 90) -> None:
    """Polls until check() is true. The last answer is in the failure."""
    end = time.monotonic() + within
    answer: object = None
    while time.monotonic() < end:
        try:
            answer = check()
        except CommandError as error:
            answer = error
        else:
            if answer:
                return
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {within} s; last answer: {answer}")


@dataclass
class Cluster:
    """One cluster of its own name, subnet and port, so that several can run on a machine."""

    state: Path
    name: str
    subnet: str
    nodes: int = 2
    port: int = field(default_factory=free_port)

    def polder(self, *args: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-m", "polder.main", "--state", str(self.state), *args, check=check, timeout=timeout)

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.polder(
            "up", "--nodes", str(self.nodes), "--name", self.name, "--subnet", self.subnet, "--port", str(self.port)
        )

    def down(self, *args: str) -> subprocess.CompletedProcess[str]:
        return self.polder("down", *args)

    def kubeconfig(self, tenant: str) -> Path:
        if tenant == "root":
            return self.state / "admin.kubeconfig"
        path = self.state / f"test-{tenant}.kubeconfig"
        if not path.exists():
            self.polder("kubeconfig", tenant, "--file", str(path))
        return path

    def kubectl(
        self, tenant: str, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        path = shutil.which("kubectl")
        assert path, "kubectl is missing"
        config = str(self.kubeconfig(tenant))
        return run(path, "--kubeconfig", config, *args, stdin=stdin, check=check, timeout=timeout)

    def get(self, tenant: str, *args: str) -> Any:
        return json.loads(self.kubectl(tenant, "get", *args, "-o", "json").stdout)

    def apply(self, tenant: str, *objects: dict[str, Any]) -> None:
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl(tenant, "apply", "-f", "-", stdin=document)

    def make_tenant(self, name: str) -> None:
        self.apply("root", {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}})

    def delete_tenant(self, name: str) -> None:
        self.kubectl("root", "delete", "tenant", name, "--wait", timeout=180)
        (self.state / f"test-{name}.kubeconfig").unlink(missing_ok=True)

    def pod_running(self, tenant: str, name: str) -> bool:
        status = self.get(tenant, "pod", name)["status"]
        return status.get("phase") == "Running" and bool(status.get("podIP"))

    def netns(self, node: str, tenant: str) -> Path:
        return self.state / "nodes" / node / "netns" / tenant

    def pid(self, daemon: str) -> int:
        """``server`` or a node's name."""
        folder = self.state / "server" if daemon == "server" else self.state / "nodes" / daemon
        return int(json.loads((folder / "pid").read_text())["pid"])

    def exec(self, tenant: str, pod: str, *argv: str, timeout: int = 20) -> str:
        """Runs a command in the pod's first container, through the node's own runtime."""
        found = self.get(tenant, "pod", pod)
        container = found["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        address = self.state / "nodes" / found["spec"]["nodeName"] / "containerd" / "sock"
        name = f"test-{os.getpid()}-{time.monotonic_ns()}"
        base = ["ctr", "--address", str(address), "-n", "k8s.io", "task", "exec", "--exec-id", name, container]
        return run(*base, *argv, check=False, timeout=timeout).stdout


def pod(name: str, *, address: str = "", node: str = "", command: str = "sleep 1d", **spec: Any) -> dict[str, Any]:
    """A pod of the toolbox image."""
    annotations = {"polder.dev/address": address} if address else {}
    selector = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    container = {
        "name": "main",
        "image": "toolbox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **selector, **spec},
    }
