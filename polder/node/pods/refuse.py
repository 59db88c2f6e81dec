"""What a node does not run, whatever the API object says: rights that tenants do not have, and features not there yet."""

from __future__ import annotations

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container
from polder.api.sysctls import dotted, is_allowed
from polder.api.unsupported import TENANT_CAPABILITIES
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.node.pods.features import NOTHING, Features
from polder.node.pods.security import app_armor_profile

FORBIDDEN = "Forbidden"
SYSCTL_FORBIDDEN = "SysctlForbidden"
UNSUPPORTED = "Unsupported"
APP_ARMOR = "AppArmor"
STRICT_GROUPS = "SupplementalGroupsPolicyNotSupported"


def refusal(pod: Pod, features: Features = NOTHING) -> tuple[str, str] | None:
    """(reason, one sentence) why this node will never run the pod; None if it will. SELinux options mean nothing to a host
    without SELinux; on another one a label would be the pod's way out of its confinement.
    """
    if tenant_of(pod.metadata) != ROOT:
        forbidden = _beyond_tenant(pod)
        if forbidden:
            return FORBIDDEN, f"{forbidden}: for pods of the platform (tenant root) only"
    for name in sysctls(pod):
        if not is_allowed(name, features.sysctls):
            return SYSCTL_FORBIDDEN, f'forbidden sysctl: "{name}" not allowlisted'
    if _labelled(pod) and features.selinux:
        return UNSUPPORTED, "securityContext.seLinuxOptions is not supported on a host that has SELinux; leave it out"
    if not features.app_armor and _wants_app_armor(pod):
        return APP_ARMOR, "Cannot enforce AppArmor: AppArmor is not enabled on the host"
    around = pod.spec.security_context
    if around is not None and around.supplemental_groups_policy == "Strict" and not features.strict_groups:
        return STRICT_GROUPS, "SupplementalGroupsPolicy=Strict is not supported in this node"
    missing = _unsupported(pod)
    return (UNSUPPORTED, missing) if missing else None


def sysctls(pod: Pod) -> dict[str, str]:
    """The kernel parameters that a pod asks for, their names with dots."""
    around = pod.spec.security_context
    return {dotted(s["name"]): s.get("value", "") for s in (around.sysctls if around else None) or ()}


def _labelled(pod: Pod) -> bool:
    contexts = [pod.spec.security_context, *(container.security_context for _, container in _every(pod))]
    return any(context is not None and context.se_linux_options for context in contexts)


def _wants_app_armor(pod: Pod) -> bool:
    """Whether a container is to be confined; those that say nothing are where it can be done."""
    profiles = [app_armor_profile(pod, container) for _, container in _every(pod)]
    return any(profile is not None and profile.type != "Unconfined" for profile in profiles)


def _unconfined(pod: Pod) -> str:
    for where, container in [("spec", None), *_every(pod)]:
        context = pod.spec.security_context if container is None else container.security_context
        if context is None:
            continue
        for profile, name in (
            (context.seccomp_profile, "seccompProfile"),
            (context.app_armor_profile, "appArmorProfile"),
        ):
            if profile is not None and profile.type == "Unconfined":
                return f"{where}: securityContext.{name}.type Unconfined"
    return ""


def _every(pod: Pod) -> list[tuple[str, Container]]:
    return [(f"container {c.name}", c) for c in [*(pod.spec.init_containers or []), *pod.spec.containers]]


def _beyond_tenant(pod: Pod) -> str:
    spec = pod.spec
    for on, name in ((spec.host_network, "hostNetwork"), (spec.host_pid, "hostPID"), (spec.host_ipc, "hostIPC")):
        if on:
            return f"spec.{name}"
    for volume in spec.volumes or []:
        if volume.host_path is not None:
            return f"spec.volumes, {volume.name}: hostPath"
    if unconfined := _unconfined(pod):
        return unconfined
    for where, container in _every(pod):
        if beyond := _container_beyond(container):
            return f"{where}: securityContext.{beyond}"
        if any(port.host_port for port in container.ports or []):
            return f"{where}: ports.hostPort"
    return ""


def _container_beyond(container: Container) -> str:
    security = container.security_context
    if security is not None and security.privileged:
        return "privileged"
    added = (security.capabilities.add if security and security.capabilities else None) or []
    beyond = sorted({name.upper().removeprefix("CAP_") for name in added} - TENANT_CAPABILITIES)
    return f"capabilities.add {beyond[0]}" if beyond else ""


def check_ephemeral(pod: Pod, container: Container) -> None:
    """An ephemeral container comes to a pod that runs. Raises PermanentError for one with rights that tenants do not have."""
    if tenant_of(pod.metadata) == ROOT:
        return
    context = container.security_context
    for profile in (context.seccomp_profile, context.app_armor_profile) if context else ():
        if profile is not None and profile.type == "Unconfined":
            raise PermanentError(f"container {container.name}: unconfined, for pods of the platform (tenant root) only")
    if beyond := _container_beyond(container):
        raise PermanentError(f"container {container.name}: {beyond}, for pods of the platform (tenant root) only")


def _unsupported(pod: Pod) -> str:
    for volume in pod.spec.volumes or []:
        kinds = (volume.empty_dir, volume.host_path, volume.config_map, volume.secret, volume.projected)
        claims = (volume.persistent_volume_claim, volume.ephemeral)
        if all(kind is None for kind in (*kinds, *claims, volume.downward_api, volume.image)):
            return (
                f"spec.volumes, {volume.name}: only emptyDir, configMap, secret, projected, downwardAPI, hostPath, "
                "persistentVolumeClaim, ephemeral and image are supported"
            )
    for where, container in _every(pod):
        if container.lifecycle is not None and container.lifecycle.stop_signal:
            return f"{where}: lifecycle.stopSignal is not supported; leave it out"
    return ""
