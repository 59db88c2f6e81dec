"""The runtime's messages (CRI v1) made from the nouns of ``cri_types``."""

from __future__ import annotations

from typing import Any

from polder._generated import api_pb2 as pb
from polder.system.cri_types import (
    BindMount,
    ContainerConfig,
    Resources,
    SandboxConfig,
    Security,
    SecurityProfile,
)

_PROPAGATION = {
    "": pb.PROPAGATION_PRIVATE,
    "None": pb.PROPAGATION_PRIVATE,
    "HostToContainer": pb.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": pb.PROPAGATION_BIDIRECTIONAL,
}


def _profile(profile: SecurityProfile) -> Any:
    return pb.SecurityProfile(profile_type=profile.type, localhost_ref=profile.localhost)


def _seccomp(security: Security) -> Any:
    return _profile(SecurityProfile("Unconfined") if security.privileged else security.seccomp)


def _app_armor(security: Security) -> Any:
    return None if security.app_armor is None else _profile(security.app_armor)


def _namespaces(security: Security) -> Any:
    pid = pb.POD if security.shared_pid else pb.CONTAINER
    if security.target:
        pid = pb.TARGET
    return pb.NamespaceOption(
        target_id=security.target,
        network=pb.NODE if security.host_network else pb.POD,
        pid=pb.NODE if security.host_pid else pid,
        ipc=pb.NODE if security.host_ipc else pb.POD,
    )


def _number(value: int | None) -> Any:
    return None if value is None else pb.Int64Value(value=value)


def sandbox_message(config: SandboxConfig) -> Any:
    """CRI PodSandboxConfig."""
    security, meta = config.security, config.metadata
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=meta.name, uid=meta.uid, namespace=meta.namespace, attempt=meta.attempt),
        hostname=config.hostname,
        log_directory=config.log_directory,
        dns_config=pb.DNSConfig(servers=config.dns.servers, searches=config.dns.searches, options=config.dns.options),
        labels=config.labels,
        annotations=config.annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=config.cgroup_parent,
            sysctls=config.sysctls,
            security_context=pb.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(security),
                run_as_user=_number(security.user),
                run_as_group=_number(security.group),
                supplemental_groups=security.supplemental_groups,
                privileged=security.privileged,
                seccomp=_seccomp(security),
            ),
        ),
    )


def _container_security(security: Security) -> Any:
    added, dropped = security.capabilities
    return pb.LinuxContainerSecurityContext(
        namespace_options=_namespaces(security),
        capabilities=pb.Capability(add_capabilities=added, drop_capabilities=dropped),
        privileged=security.privileged,
        run_as_user=_number(security.user),
        run_as_group=_number(security.group),
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=pb.Strict if security.strict_groups else pb.Merge,
        readonly_rootfs=security.read_only_root,
        no_new_privs=security.no_new_privileges,
        masked_paths=() if security.privileged else security.masked_paths,
        readonly_paths=() if security.privileged else security.read_only_paths,
        seccomp=_seccomp(security),
        apparmor=_app_armor(security),
    )


def resources_message(limits: Resources) -> Any:
    """LinuxContainerResources."""
    return pb.LinuxContainerResources(
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpu_shares=limits.cpu_shares,
        memory_limit_in_bytes=limits.memory,
        oom_score_adj=limits.oom_score_adj,
        memory_swap_limit_in_bytes=limits.memory_swap,
        hugepage_limits=[pb.HugepageLimit(page_size=size, limit=held) for size, held in limits.huge_pages],
    )


def _mount(mount: BindMount) -> Any:
    return pb.Mount(
        container_path=mount.container_path,
        host_path=mount.host_path,
        readonly=mount.read_only,
        propagation=_PROPAGATION[mount.propagation],
    )


def container_message(config: ContainerConfig) -> Any:
    """CRI ContainerConfig."""
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=config.name, attempt=config.attempt),
        image=pb.ImageSpec(image=config.image, user_specified_image=config.user_image),
        command=config.command,
        args=config.args,
        working_dir=config.working_dir,
        envs=[pb.KeyValue(key=key, value=value.encode()) for key, value in config.env],
        mounts=[_mount(mount) for mount in config.mounts],
        labels=config.labels,
        annotations=config.annotations,
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        linux=pb.LinuxContainerConfig(
            resources=resources_message(config.resources), security_context=_container_security(config.security)
        ),
    )
