"""Where probes and hooks reach the containers of a pod that run."""

from __future__ import annotations

from collections.abc import Mapping

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container
from polder.node.pods.context import Context
from polder.node.pods.observe import Observer
from polder.node.pods.resolv import dns_config
from polder.node.pods.restarts import is_sidecar
from polder.node.pods.view import View
from polder.node.probes.attempt import Target
from polder.node.probes.prober import Running
from polder.node.probes.reach import Place


def reached(pod: Pod) -> dict[str, Container]:
    """The containers that have probes and hooks, by name: those that are to run for as long as the pod does."""
    return {c.name: c for c in [*pod.spec.containers, *(pod.spec.init_containers or [])] if _lasts(pod, c)}


def _lasts(pod: Pod, container: Container) -> bool:
    return container in pod.spec.containers or is_sidecar(container)


async def place_of(ctx: Context, observer: Observer, pod: Pod, sandbox: str) -> Place:
    """From where the pod's containers are asked."""
    space = None if pod.spec.host_network else await observer.space(sandbox)
    return Place(space, dns_config(pod, ctx.resolver).servers)


async def targets_of(ctx: Context, observer: Observer, pod: Pod, view: View) -> dict[str, Target]:
    """Those that run in the sandbox that is ready, by id. Raises RuntimeFailureError."""
    sandbox = view.sandbox
    if sandbox is None or not sandbox.ready:
        return {}
    place = await place_of(ctx, observer, pod, sandbox.id)
    address = ctx.machine.host_ip if pod.spec.host_network else "".join(view.addresses[:1])
    specs = reached(pod)
    return {
        info.id: Target(info.id, specs[info.name], address, place, tenant_of(pod.metadata))
        for info in view.running()
        if info.name in specs and info.sandbox == sandbox.id
    }


def running_of(pod: Pod, view: View, targets: Mapping[str, Target]) -> dict[str, Running]:
    """As probes need them, with what the API shows of these very containers."""
    statuses = [*(pod.status.container_statuses or []), *(pod.status.init_container_statuses or [])]
    shown = {status.container_id: status for status in statuses}
    found = {}
    for info in view.running():
        if info.id in targets:
            was = shown.get(f"containerd://{info.id}")
            began = info.started / 1e9
            found[info.id] = Running(targets[info.id], began, bool(was and was.started), bool(was and was.ready))
    return found
