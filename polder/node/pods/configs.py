"""What the runtime is told of a pod: sandbox and container configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container
from polder.base.errors import PermanentError
from polder.node.pods import environment, resources
from polder.node.pods.refuse import sysctls
from polder.node.pods.resolv import Resolver, dns_config
from polder.system.cri import UID_LABEL
from polder.system.cri_types import (
    BindMount,
    ContainerConfig,
    ImageInfo,
    SandboxConfig,
    SandboxMetadata,
    Security,
)

TENANT_LABEL = "polder.dev/tenant"
GRACE_ANNOTATION = "io.kubernetes.pod.terminationGracePeriod"
IMAGE_ANNOTATION = "polder.dev/image"
"""On a container: its image as the pod's spec named it when the container was made."""
MESSAGE_ANNOTATION = "io.kubernetes.container.terminationMessagePath"
POLICY_ANNOTATION = "io.kubernetes.container.terminationMessagePolicy"
T = TypeVar("T")
MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
HOSTNAME_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Places:
    """Where a node keeps what belongs to pods, and the cgroup below which they run."""

    pods: Path
    logs: Path
    cgroup: str

    def pod(self, uid: str) -> Path:
        """A pod's own directory."""
        return self.pods / uid

    def hosts(self, uid: str) -> Path:
        """The pod's /etc/hosts."""
        return self.pods / uid / "etc-hosts"

    def sub_paths(self, uid: str) -> Path:
        """Where subPaths of the pod's volumes are bound."""
        return self.pods / uid / "subpaths"

    def message(self, uid: str, container: str, attempt: int) -> Path:
        """Where a container's last words go."""
        return self.pods / uid / "containers" / container / str(attempt)

    def log_directory(self, pod: Pod) -> Path:
        """The directory of a pod's logs: unambiguous, for underscores occur in none of the names."""
        meta = pod.metadata
        return self.logs / f"{tenant_of(meta)}_{meta.namespace}_{meta.name}_{meta.uid}"

    def pod_cgroup(self, uid: str) -> str:
        """The pod's cgroup."""
        return f"/{self.cgroup.strip('/')}/pod{uid}"


def hostname(pod: Pod) -> str:
    """What the pod calls itself."""
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_LENGTH].rstrip("-.")


def hosts_file(pod: Pod, addresses: Sequence[str], domain: str, api: str = "") -> str:
    """The contents of /etc/hosts. ``api``: the address of the tenant's ``kubernetes`` service, where no DNS tells it."""
    lines = [
        "# Written by Polder.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    own = hostname(pod)
    for address in addresses:
        full = f"{own}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{domain}" if pod.spec.subdomain else ""
        lines.append("\t".join(part for part in (address, full, own) if part))
    if api:
        names = [f"kubernetes.default.svc.{domain}", "kubernetes.default.svc", "kubernetes.default"]
        lines.append("\t".join([api, *names]))
    lines += ["\t".join([str(a.get("ip", "")), *a.get("hostnames", [])]) for a in pod.spec.host_aliases or []]
    return "\n".join(lines) + "\n"


def _labels(pod: Pod) -> dict[str, str]:
    meta = pod.metadata
    return {
        UID_LABEL: meta.uid,
        "io.kubernetes.pod.name": meta.name,
        "io.kubernetes.pod.namespace": meta.namespace,
        TENANT_LABEL: tenant_of(meta),
    }


def _namespaces(pod: Pod) -> Security:
    spec = pod.spec
    return Security(
        host_network=spec.host_network,
        host_pid=spec.host_pid,
        host_ipc=spec.host_ipc,
        shared_pid=bool(spec.share_process_namespace),
    )


def sandbox_config(pod: Pod, attempt: int, places: Places, resolver: Resolver) -> SandboxConfig:
    """The sandbox of a pod."""
    meta = pod.metadata
    return SandboxConfig(
        metadata=SandboxMetadata(meta.name, f"{tenant_of(meta)}/{meta.namespace}", meta.uid, attempt),
        hostname="" if pod.spec.host_network else hostname(pod),
        log_directory=str(places.log_directory(pod)),
        dns=dns_config(pod, resolver),
        cgroup_parent=places.pod_cgroup(meta.uid),
        security=_namespaces(pod),
        sysctls=sysctls(pod),
        labels=_labels(pod),
        annotations={GRACE_ANNOTATION: str(pod.spec.termination_grace_period_seconds)},
    )


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a container is made from beside its own spec."""

    attempt: int
    image: ImageInfo
    env: Mapping[str, str]
    mounts: Sequence[BindMount]
    node_memory: int


def container_config(pod: Pod, container: Container, inputs: Inputs, places: Places) -> ContainerConfig:
    """One container. Raises PermanentError for an image that runs as root though the pod forbids it."""
    uid, policy = pod.metadata.uid, container.termination_message_policy
    return ContainerConfig(
        name=container.name,
        attempt=inputs.attempt,
        image=inputs.image.id,
        user_image=container.image,
        command=environment.expand_all(container.command, inputs.env),
        args=environment.expand_all(container.args, inputs.env),
        working_dir=container.working_dir,
        env=tuple(inputs.env.items()),
        mounts=[
            *inputs.mounts,
            BindMount("/etc/hosts", str(places.hosts(uid))),
            BindMount(container.termination_message_path, str(places.message(uid, container.name, inputs.attempt))),
        ],
        log_path=f"{container.name}/{inputs.attempt}.log",
        resources=resources.container_resources(pod, container, inputs.node_memory),
        security=_security(pod, container, inputs.image),
        labels={**_labels(pod), "io.kubernetes.container.name": container.name},
        annotations={
            GRACE_ANNOTATION: str(pod.spec.termination_grace_period_seconds),
            IMAGE_ANNOTATION: container.image,
            MESSAGE_ANNOTATION: str(places.message(uid, container.name, inputs.attempt)),
            POLICY_ANNOTATION: policy,
        },
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
    )


def _security(pod: Pod, container: Container, image: ImageInfo) -> Security:
    own, around = container.security_context, pod.spec.security_context
    user = _first(own.run_as_user if own else None, around.run_as_user if around else None)
    group = _first(own.run_as_group if own else None, around.run_as_group if around else None)
    effective = _first(user, image.user)
    # An image without any user runs as root; one that names its user by name cannot be verified, so it is refused too.
    insists = _first(own.run_as_non_root if own else None, around.run_as_non_root if around else None)
    if insists and not effective:
        raise PermanentError(f"container {container.name} has runAsNonRoot and its image runs as root")
    groups = list((around.supplemental_groups if around else None) or [])
    groups += [around.fs_group] if around and around.fs_group is not None else []
    capabilities = own.capabilities if own else None
    spaces = _namespaces(pod)
    return Security(
        privileged=bool(own and own.privileged),
        user=effective,
        group=group,
        supplemental_groups=tuple(groups),
        read_only_root=bool(own and own.read_only_root_filesystem),
        no_new_privileges=bool(own and own.allow_privilege_escalation is False),
        capabilities=(
            tuple((capabilities.add if capabilities else None) or ()),
            tuple((capabilities.drop if capabilities else None) or ()),
        ),
        host_network=spaces.host_network,
        host_pid=spaces.host_pid,
        host_ipc=spaces.host_ipc,
        shared_pid=spaces.shared_pid,
        masked_paths=MASKED,
        read_only_paths=READ_ONLY,
    )


def _first(own: T | None, around: T | None) -> T | None:
    return own if own is not None else around
