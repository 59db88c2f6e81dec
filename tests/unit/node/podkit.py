"""Pods and views for unit tests of the node."""

from __future__ import annotations

from typing import Any

import msgspec

from polder.api.core import Pod
from polder.api.meta import TENANT_ANNOTATION
from polder.node.pods.view import View, make_view
from polder.system.cri_types import ContainerInfo, ContainerState, SandboxInfo, SandboxMetadata

SECOND = 1_000_000_000


def pod(spec: dict[str, Any] | None = None, *, tenant: str = "acme", **meta: Any) -> Pod:
    """A pod with containers ``a`` and ``b`` unless the spec says otherwise."""
    whole = {
        "nodeName": "n1",
        "containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}],
        **(spec or {}),
    }
    base = {"name": "p", "namespace": "ns", "uid": "u-1", "annotations": {TENANT_ANNOTATION: tenant}}
    return msgspec.convert({"metadata": {**base, **meta}, "spec": whole}, Pod)


def sandbox(attempt: int = 0, *, ready: bool = True) -> SandboxInfo:
    return SandboxInfo(f"s{attempt}", SandboxMetadata("p", "acme/ns", "u-1", attempt), ready, attempt, {}, {})


def container(name: str, attempt: int = 0, *, code: int | None = None, **other: Any) -> ContainerInfo:
    """Running, or ended with a code."""
    state = ContainerState.RUNNING if code is None else ContainerState.EXITED
    fields = {
        "id": f"{name}{attempt}",
        "sandbox": "s0",
        "name": name,
        "attempt": attempt,
        "state": state,
        "created": attempt + 1,
        "started": 100 * SECOND,
        "finished": 0 if code is None else 110 * SECOND,
        "exit_code": code or 0,
    }
    return ContainerInfo(**{**fields, **other})


def view(*containers: ContainerInfo, sandboxes: list[SandboxInfo] | None = None) -> View:
    return make_view([sandbox()] if sandboxes is None else sandboxes, list(containers), ("10.0.0.5",))
