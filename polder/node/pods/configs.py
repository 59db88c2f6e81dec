"""What the runtime is told of a pod: sandbox and container configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container
from polder.node.pods import environment, resources
from polder.node.pods.hostnames import kernel_hostname
from polder.node.pods.refuse import sysctls
from polder.node.pods.resolv import Resolver, dns_config
from polder.node.pods.security import Profiles, container_security, pod_spaces
from polder.system.cri import UID_LABEL
from polder.system.cri_types import (
    BindMount,
    ContainerConfig,
    ImageInfo,
    SandboxConfig,
    SandboxMetadata,
)

TENANT_LABEL = "polder.dev/tenant"
GRACE_ANNOTATION = "io.kubernetes.pod.terminationGracePeriod"
IMAGE_ANNOTATION = "polder.dev/image"
"""On a container: its image as the pod's spec named it when the container was made."""
RESOURCES_ANNOTATION = "polder.dev/resources"
"""On a container: the CPU and memory that it was made with, by requests and limits."""
MESSAGE_ANNOTATION = "io.kubernetes.container.terminationMessagePath"
HOSTS = "/etc/hosts"
POLICY_ANNOTATION = "io.kubernetes.container.terminationMessagePolicy"


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

    @property
    def seccomp(self) -> Path:
        """The node's seccomp profiles."""
        return self.pods.parent / "seccomp"

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

    @property
    def classes(self) -> tuple[str, ...]:
        """The cgroups that pods of each class are in: Guaranteed ones right below the node's."""
        return tuple(f"/{self.cgroup.strip('/')}{part}" for part in ("", "/burstable", "/besteffort"))

    def pod_cgroup(self, pod: Pod) -> str:
        """The pod's cgroup, where upstream's driver has it."""
        quality = (resources.GUARANTEED, resources.BURSTABLE, resources.BEST_EFFORT).index(resources.qos_class(pod))
        return f"{self.classes[quality]}/pod{pod.metadata.uid}"


def _labels(pod: Pod) -> dict[str, str]:
    meta = pod.metadata
    return {
        UID_LABEL: meta.uid,
        "io.kubernetes.pod.name": meta.name,
        "io.kubernetes.pod.namespace": meta.namespace,
        TENANT_LABEL: tenant_of(meta),
    }


def sandbox_config(pod: Pod, attempt: int, places: Places, resolver: Resolver) -> SandboxConfig:
    """The sandbox of a pod. Raises PermanentError for a hostname that the kernel does not take."""
    meta = pod.metadata
    return SandboxConfig(
        metadata=SandboxMetadata(meta.name, f"{tenant_of(meta)}/{meta.namespace}", meta.uid, attempt),
        hostname="" if pod.spec.host_network else kernel_hostname(pod, resolver.domain),
        log_directory=str(places.log_directory(pod)),
        dns=dns_config(pod, resolver),
        cgroup_parent=places.pod_cgroup(pod),
        security=pod_spaces(pod),
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
    profiles: Profiles


def container_config(pod: Pod, container: Container, inputs: Inputs, places: Places) -> ContainerConfig:
    """One container. Raises PermanentError for an image that runs as root though the pod forbids it."""
    uid, policy = pod.metadata.uid, container.termination_message_policy
    own_hosts = any(mount.container_path == HOSTS for mount in inputs.mounts)
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
            *([] if own_hosts else [BindMount(HOSTS, str(places.hosts(uid)))]),
            BindMount(container.termination_message_path, str(places.message(uid, container.name, inputs.attempt))),
        ],
        log_path=f"{container.name}/{inputs.attempt}.log",
        resources=resources.container_resources(pod, container, inputs.node_memory),
        security=container_security(pod, container, inputs.image, inputs.profiles),
        labels={**_labels(pod), "io.kubernetes.container.name": container.name},
        annotations={
            GRACE_ANNOTATION: str(pod.spec.termination_grace_period_seconds),
            IMAGE_ANNOTATION: container.image,
            RESOURCES_ANNOTATION: msgspec.json.encode(resources.noted(container)).decode(),
            MESSAGE_ANNOTATION: str(places.message(uid, container.name, inputs.attempt)),
            POLICY_ANNOTATION: policy,
        },
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
    )
