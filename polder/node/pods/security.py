"""What a container may do: users, groups, capabilities, seccomp, AppArmor, as the runtime is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container, Profile
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.system.cri_types import ImageInfo, Security, SecurityProfile

T = TypeVar("T")
MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
OF_TENANTS = "tenants"
"""The directory of seccomp profiles that tenants may name; the others are the platform's."""
APP_ARMOR_OF_TENANTS = "tenants-"
"""Begins the names of the AppArmor profiles that tenants may name."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """Where the node's seccomp profiles are (``Localhost``), and whether the kernel has AppArmor."""

    seccomp: Path
    app_armor: bool = False


def first(own: T | None, around: T | None) -> T | None:
    """The container's word, else the pod's."""
    return own if own is not None else around


def pod_spaces(pod: Pod) -> Security:
    """The namespaces that a pod shares with its node, and its containers with each other; the runtime takes a container with
    all rights into a sandbox only that has them.
    """
    spec = pod.spec
    own = [c.security_context for c in (*(spec.init_containers or ()), *spec.containers)]
    return Security(
        privileged=any(security is not None and bool(security.privileged) for security in own),
        host_network=spec.host_network,
        host_pid=spec.host_pid,
        host_ipc=spec.host_ipc,
        shared_pid=bool(spec.share_process_namespace),
    )


def container_security(pod: Pod, container: Container, image: ImageInfo, profiles: Profiles) -> Security:
    """Raises PermanentError for an image that runs as root though the pod forbids it, and for a profile that is not there."""
    own, around = container.security_context, pod.spec.security_context
    group = first(own.run_as_group if own else None, around.run_as_group if around else None)
    capabilities = own.capabilities if own else None
    spaces = pod_spaces(pod)
    return Security(
        privileged=bool(own and own.privileged),
        user=_user(pod, container, image),
        group=group,
        supplemental_groups=tuple(_groups(pod)),
        strict_groups=bool(around and around.supplemental_groups_policy == "Strict"),
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
        seccomp=_seccomp(pod, container, profiles),
        app_armor=_app_armor(pod, container, profiles),
    )


def _user(pod: Pod, container: Container, image: ImageInfo) -> int | None:
    own, around = container.security_context, pod.spec.security_context
    said = first(own.run_as_user if own else None, around.run_as_user if around else None)
    effective = first(said, image.user)
    if not first(own.run_as_non_root if own else None, around.run_as_non_root if around else None):
        return effective
    where = f'(pod: "{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})", container: {container.name})'
    if said == 0:
        raise PermanentError(f"container's runAsUser breaks non-root policy {where}")
    if effective is None and image.user_name and image.user_name != "root":
        why = f"image has non-numeric user ({image.user_name}), cannot verify user is non-root"
        raise PermanentError(f"container has runAsNonRoot and {why} {where}")
    if not effective:  # an image that names no user runs as root
        raise PermanentError(f"container has runAsNonRoot and image will run as root {where}")
    return effective


def _groups(pod: Pod) -> list[int]:
    around = pod.spec.security_context
    if around is None:
        return []
    groups = list(around.supplemental_groups or [])
    return [*groups, around.fs_group] if around.fs_group is not None else groups


def _seccomp(pod: Pod, container: Container, profiles: Profiles) -> SecurityProfile:
    own, around = container.security_context, pod.spec.security_context
    wanted = first(own.seccomp_profile if own else None, around.seccomp_profile if around else None)
    if wanted is None:
        return SecurityProfile()
    if wanted.type != "Localhost":
        return SecurityProfile(wanted.type)
    name = Path(wanted.localhost_profile)
    if name.is_absolute() or ".." in name.parts:
        raise PermanentError(f"seccomp profile {wanted.localhost_profile!r} must be relative and must not contain '..'")
    if tenant_of(pod.metadata) != ROOT and name.parts[:1] != (OF_TENANTS,):
        raise PermanentError(
            f"seccomp profile {wanted.localhost_profile!r}: tenants use those below {OF_TENANTS}/ only"
        )
    path = profiles.seccomp / name
    if not path.is_file():
        raise PermanentError(f"the node has no seccomp profile {wanted.localhost_profile!r}")
    return SecurityProfile("Localhost", str(path))


def app_armor_profile(pod: Pod, container: Container) -> Profile | None:
    """The AppArmor profile that is asked for; None where nothing is said."""
    own, around = container.security_context, pod.spec.security_context
    return first(own.app_armor_profile if own else None, around.app_armor_profile if around else None)


def _app_armor(pod: Pod, container: Container, profiles: Profiles) -> SecurityProfile | None:
    """What the runtime is told where the kernel has AppArmor; elsewhere nothing confines. Raises PermanentError."""
    if not profiles.app_armor:
        return None
    wanted = app_armor_profile(pod, container) or Profile(type="RuntimeDefault")
    name = wanted.localhost_profile
    if wanted.type == "Localhost" and tenant_of(pod.metadata) != ROOT and not name.startswith(APP_ARMOR_OF_TENANTS):
        # Any host has profiles that confine nothing: of its own programs, and those marked unconfined.
        raise PermanentError(
            f"AppArmor profile {name!r}: tenants use those that begin with {APP_ARMOR_OF_TENANTS} only"
        )
    return SecurityProfile(wanted.type, wanted.localhost_profile)
