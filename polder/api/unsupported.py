"""What of a pod Polder does not do: refused on creation instead of ignored. Known fields stand in lists of what works, so
that a field of a later release of Kubernetes is refused too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_LATER: Final = "is not supported by this version of Polder"
_ROOT_ONLY: Final = "is for pods of the platform (tenant root) only"
_SPEC: Final = Field("spec")
_SCHEDULER: Final = "default-scheduler"
_SYSTEM: Final = "linux"

_POD: Final = frozenset(
    {"containers", "initContainers", "volumes", "nodeName", "nodeSelector", "tolerations", "restartPolicy"}
    | {"terminationGracePeriodSeconds", "activeDeadlineSeconds", "serviceAccountName", "serviceAccount"}
    | {"automountServiceAccountToken", "hostNetwork", "hostPID", "hostIPC", "hostname", "subdomain", "hostAliases"}
    | {
        "dnsPolicy",
        "dnsConfig",
        "enableServiceLinks",
        "schedulerName",
        "securityContext",
        "shareProcessNamespace",
        "priority",
    }
    | {"preemptionPolicy", "priorityClassName", "affinity", "setHostnameAsFQDN", "hostnameOverride"}
    | {"topologySpreadConstraints", "schedulingGates", "overhead", "resources", "runtimeClassName"}
    | {"readinessGates", "imagePullSecrets", "os"}
)
_AFFINITY: Final = frozenset({"nodeAffinity", "podAffinity", "podAntiAffinity"})
_POD_SECURITY: Final = frozenset(
    {"runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "supplementalGroups", "sysctls", "seLinuxOptions"}
    | {"supplementalGroupsPolicy", "fsGroupChangePolicy", "seccompProfile", "appArmorProfile"}
)
_CONTAINER: Final = frozenset(
    {"name", "image", "command", "args", "workingDir", "ports", "env", "envFrom", "resources", "volumeMounts"}
    | {"imagePullPolicy", "securityContext", "stdin", "stdinOnce", "tty", "terminationMessagePath"}
    | {"terminationMessagePolicy", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"}
    | {"restartPolicy", "restartPolicyRules", "resizePolicy"}
)
_CONTAINER_SECURITY: Final = frozenset(
    {"privileged", "runAsUser", "runAsGroup", "runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation"}
    | {"capabilities", "seLinuxOptions", "seccompProfile", "appArmorProfile"}
)
_MOUNT: Final = frozenset(
    {"name", "mountPath", "readOnly", "subPath", "subPathExpr", "mountPropagation", "recursiveReadOnly"}
)
_VOLUME: Final = frozenset(
    {"name", "emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath", "csi"}
    | {"persistentVolumeClaim", "ephemeral", "image"}
)
_PROJECTED: Final = frozenset({"configMap", "secret", "downwardAPI", "serviceAccountToken"})
_ENV_SOURCE: Final = frozenset({"fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"})
_RESOURCES: Final = frozenset({"requests", "limits"})
_NEUTRAL: Final[dict[str, object]] = {
    "hostUsers": True,
    "procMount": "Default",
}
"""Values that ask for what happens anyway."""
TENANT_CAPABILITIES: Final = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"}
    | {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
"""What a container runtime gives by default; the others act on the kernel that all tenants share."""


def unsupported(pod: Raw, tenant_is_root: bool) -> list[FieldError]:
    """What a new pod asks for and does not get, one sentence each. The pod was conformed and defaulted."""
    spec = pod.get("spec") or {}
    found = list(_unknown(spec, _POD, _SPEC))
    found += _unknown(spec.get("securityContext") or {}, _POD_SECURITY, _SPEC / "securityContext")
    found += _unknown(spec.get("affinity") or {}, _AFFINITY, _SPEC / "affinity")
    found += _unknown(spec.get("resources") or {}, _RESOURCES, _SPEC / "resources")
    found += _system(spec.get("os") or {})
    for number, volume in enumerate(spec.get("volumes") or ()):
        found += _volume(volume, (_SPEC / "volumes")[number])
    for group in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(group) or ()):
            found += _container(container, (_SPEC / group)[number])
    if not tenant_is_root:
        found += _beyond_tenant(spec)
    return found


def unsupported_ephemeral(pod: Raw, tenant_is_root: bool) -> list[FieldError]:
    """Likewise what the ephemeral containers of a pod that runs ask for."""
    found: list[FieldError] = []
    for number, container in enumerate((pod.get("spec") or {}).get("ephemeralContainers") or ()):
        at = (_SPEC / "ephemeralContainers")[number]
        found += _container({key: value for key, value in container.items() if key != "targetContainerName"}, at)
        if not tenant_is_root:
            found += _container_beyond(container, at)
    return found


def _unknown(part: Raw, known: frozenset[str], at: Field) -> Iterator[FieldError]:
    for key, value in part.items():
        asks = (value not in (None, False, "", [], {}) or key == "hostUsers") and _NEUTRAL.get(key) != value
        if key not in known and asks:
            yield (at / key).forbidden(f"{key} {_LATER}")


def _system(system: Raw) -> Iterator[FieldError]:
    """Nodes run Linux."""
    if system and system.get("name") != _SYSTEM:
        yield (_SPEC / "os" / "name").not_supported(system.get("name", ""), (_SYSTEM,))


def _volume(volume: Raw, at: Field) -> Iterator[FieldError]:
    for key in volume.keys() - _VOLUME:
        yield (at / key).forbidden(f"a volume of kind {key} {_LATER}")
    medium = (volume.get("emptyDir") or {}).get("medium", "")
    if medium not in ("", "Memory", "HugePages") and not medium.startswith("HugePages-"):
        yield (at / "emptyDir.medium").forbidden(f"medium {medium} {_LATER}")
    for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        yield from _unknown(source, _PROJECTED, (at / "projected.sources")[number])


def _container(container: Raw, at: Field) -> Iterator[FieldError]:
    yield from _unknown(container, _CONTAINER, at)
    if (container.get("lifecycle") or {}).get("stopSignal"):
        yield (at / "lifecycle" / "stopSignal").forbidden(f"stopSignal {_LATER}")
    yield from _unknown(container.get("securityContext") or {}, _CONTAINER_SECURITY, at / "securityContext")
    yield from _unknown(container.get("resources") or {}, _RESOURCES, at / "resources")
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        yield from _unknown(mount, _MOUNT, (at / "volumeMounts")[number])
    for number, variable in enumerate(container.get("env") or ()):
        yield from _unknown(variable.get("valueFrom") or {}, _ENV_SOURCE, (at / "env")[number] / "valueFrom")


def _beyond_tenant(spec: Raw) -> Iterator[FieldError]:
    """What would reach out of the tenant."""
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield (_SPEC / key).forbidden(f"{key} {_ROOT_ONLY}")
    if spec.get("schedulerName", _SCHEDULER) != _SCHEDULER:
        yield (_SPEC / "schedulerName").forbidden(f"a scheduler other than {_SCHEDULER} {_ROOT_ONLY}")
    yield from _unconfined(spec.get("securityContext") or {}, _SPEC / "securityContext")
    for number, volume in enumerate(spec.get("volumes") or ()):
        if "hostPath" in volume:
            yield ((_SPEC / "volumes")[number] / "hostPath").forbidden(f"hostPath {_ROOT_ONLY}")
    for group in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(group) or ()):
            yield from _container_beyond(container, (_SPEC / group)[number])


def _container_beyond(container: Raw, where: Field) -> Iterator[FieldError]:
    for number, port in enumerate(container.get("ports") or ()):
        if port.get("hostPort"):
            yield ((where / "ports")[number] / "hostPort").forbidden(f"hostPort {_ROOT_ONLY}")
    at, context = where / "securityContext", container.get("securityContext") or {}
    if context.get("privileged"):
        yield (at / "privileged").forbidden(f"privileged {_ROOT_ONLY}")
    yield from _unconfined(context, at)
    yield from _capabilities((context.get("capabilities") or {}).get("add") or (), at / "capabilities.add")


def _unconfined(context: Raw, at: Field) -> Iterator[FieldError]:
    for key in ("seccompProfile", "appArmorProfile"):
        if (context.get(key) or {}).get("type") == "Unconfined":
            yield (at / key / "type").forbidden(f"an unconfined container {_ROOT_ONLY}")


def _capabilities(added: Iterable[str], at: Field) -> Iterator[FieldError]:
    for number, name in enumerate(added):
        if name.upper().removeprefix("CAP_") not in TENANT_CAPABILITIES:
            yield at[number].forbidden(f"capability {name} {_ROOT_ONLY}")
