"""The Pod Security Standards: what a pod may not ask for at the levels baseline and restricted.

Source: Kubernetes documentation, "Pod Security Standards"; k8s.io/pod-security-admission (facts, and the form of the sentences).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from polder.api.meta import Raw

LATEST: Final = 36
"""The minor version that ``latest`` means."""
LEVELS: Final = ("privileged", "baseline", "restricted")
PREFIX: Final = "pod-security.kubernetes.io/"
MODES: Final = ("enforce", "audit", "warn")
_VERSION: Final = re.compile(r"v1\.(0|[1-9][0-9]{0,5})$")


@dataclass(frozen=True, slots=True)
class Standard:
    """A level as of a version; ``minor`` None is the latest."""

    level: str = "privileged"
    minor: int | None = None

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor is None else f'v1.{self.minor}'}"


def standards_of(labels: Mapping[str, str]) -> tuple[dict[str, Standard], list[tuple[str, str, str]]]:
    """The standard of each mode by a namespace's labels, and what is wrong with these: label, value, sentence. A label that
    cannot be read counts as the strictest level.
    """
    found, problems = {}, []
    for mode in MODES:
        level, version = labels.get(PREFIX + mode, "privileged"), labels.get(f"{PREFIX}{mode}-version", "latest")
        minor = None
        if level not in LEVELS:
            problems.append((PREFIX + mode, level, f"must be one of {', '.join(LEVELS)}"))
            level = "restricted" if mode == "enforce" else "privileged"
        said = _VERSION.match(version)
        if said:
            minor = int(said.group(1))
        elif version != "latest":
            problems.append((f"{PREFIX}{mode}-version", version, 'must be "latest" or "v1.x"'))
        found[mode] = Standard(level, minor)
    return found, problems


def violations(standard: Standard, meta: Raw, spec: Raw) -> str:
    """What of a pod breaks the standard; empty if nothing does."""
    if standard.level == "privileged":
        return ""
    minor = LATEST if standard.minor is None else min(standard.minor, LATEST)
    pod = _Pod(meta, spec, minor)
    restricted = standard.level == "restricted"
    replaced = {before for since, _, before in RESTRICTED if restricted and minor >= since and before}
    checks = [check for since, check in BASELINE if minor >= since and check not in replaced]
    if restricted:
        checks += [check for since, check, _ in RESTRICTED if minor >= since]
    said = [found for check in checks if (found := check(pod)) is not None]
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in said)


Finding = tuple[str, str] | None
"""A reason and its details."""


@dataclass(frozen=True, slots=True)
class _Pod:
    meta: Raw
    spec: Raw
    minor: int

    @property
    def containers(self) -> list[Raw]:
        return [
            c for kind in ("initContainers", "containers", "ephemeralContainers") for c in self.spec.get(kind) or []
        ]

    @property
    def security(self) -> Raw:
        found: Raw = self.spec.get("securityContext") or {}
        return found

    @property
    def is_windows(self) -> bool:
        return self.minor >= 25 and (self.spec.get("os") or {}).get("name") == "windows"

    @property
    def is_relaxed(self) -> bool:
        """A user namespace of its own makes some rules moot (KEP-127)."""
        return self.minor >= 35 and self.spec.get("hostUsers") is False


def _context(container: Raw) -> Raw:
    found: Raw = container.get("securityContext") or {}
    return found


def _quoted(values: Iterable[Any]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _some(one: str, many: str, values: list[Any] | set[Any]) -> str:
    return one if len(values) == 1 else many


def _named(containers: list[str]) -> str:
    return f"{_some('container', 'containers', containers)} {_quoted(containers)}"


def _setters(pod: bool, containers: list[str]) -> str:
    return " and ".join([*(["pod"] if pod else []), *([_named(containers)] if containers else [])])


def _bad(pod: _Pod, test: Callable[[Raw], bool]) -> list[str]:
    return [str(c.get("name", "")) for c in pod.containers if test(c)]


# --- baseline ---------------------------------------------------------------------------------------------------------

_CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
_SYSCTLS: Final[Mapping[str, int]] = {
    "kernel.shm_rmid_forced": 0, "net.ipv4.ip_local_port_range": 0, "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0, "net.ipv4.ip_unprivileged_port_start": 0, "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29, "net.ipv4.tcp_fin_timeout": 29, "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29, "net.ipv4.tcp_rmem": 32, "net.ipv4.tcp_wmem": 32,
}  # fmt: skip
"""Harmless kernel settings, and since which version they count as such."""
_PROFILES: Final = frozenset({"RuntimeDefault", "Localhost"})
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"


def _app_armor(pod: _Pod) -> Finding:
    wrong: set[str] = set()

    def breaks(context: Raw) -> bool:
        profile = context.get("appArmorProfile")
        if not profile or profile.get("type") in _PROFILES:
            return False
        wrong.add(str(profile.get("type", "")))
        return True

    itself = breaks(pod.security)
    containers = _bad(pod, lambda c: breaks(_context(c)))
    setters = [_setters(itself, containers)] if itself or containers else []
    annotations = sorted(
        f'{key}="{value}"'
        for key, value in (pod.meta.get("annotations") or {}).items()
        if key.startswith(_APPARMOR) and value and value != "runtime/default" and not value.startswith("localhost/")
    )
    if annotations:
        setters.append(_some("annotation", "annotations", annotations))
    values = [*sorted(wrong), *annotations]
    if not setters:
        return None
    reason = _some("forbidden AppArmor profile", "forbidden AppArmor profiles", values)
    return reason, f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(values)}"


def _added(container: Raw) -> list[str]:
    return list((_context(container).get("capabilities") or {}).get("add") or [])


def _capabilities(pod: _Pod) -> Finding:
    containers = _bad(pod, lambda c: not _CAPABILITIES.issuperset(_added(c)))
    if not containers:
        return None
    wrong = sorted({name for c in pod.containers for name in _added(c)} - _CAPABILITIES)
    detail = f"{_named(containers)} must not include {_quoted(wrong)} in securityContext.capabilities.add"
    return "non-default capabilities", detail


def _host_namespaces(pod: _Pod) -> Finding:
    found = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name)]
    return ("host namespaces", ", ".join(found)) if found else None


def _host_paths(pod: _Pod) -> Finding:
    found = [str(v.get("name", "")) for v in pod.spec.get("volumes") or [] if v.get("hostPath") is not None]
    return ("hostPath volumes", f"{_some('volume', 'volumes', found)} {_quoted(found)}") if found else None


def _host_ports(pod: _Pod) -> Finding:
    ports = {str(p["hostPort"]) for c in pod.containers for p in c.get("ports") or [] if p.get("hostPort")}
    containers = _bad(pod, lambda c: any(p.get("hostPort") for p in c.get("ports") or []))
    if not containers:
        return None
    use, which = _some("uses", "use", containers), _some("hostPort", "hostPorts", ports)
    return "hostPort", f"{_named(containers)} {use} {which} {', '.join(sorted(ports))}"


def _hosts(container: Raw) -> set[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [lifecycle.get(name) for name in ("postStart", "preStop")]
    found = {
        (handler.get(how) or {}).get("host") for handler in handlers if handler for how in ("httpGet", "tcpSocket")
    }
    return {host for host in found if host}


def _probe_hosts(pod: _Pod) -> Finding:
    containers = sorted(set(_bad(pod, lambda c: bool(_hosts(c)))))
    if not containers:
        return None
    hosts = sorted({host for c in pod.containers for host in _hosts(c)})
    use, which = _some("uses", "use", containers), _some("probe or lifecycle host", "probe or lifecycle hosts", hosts)
    return "probe or lifecycle host", f"{_named(containers)} {use} {which} {_quoted(hosts)}"


def _privileged(pod: _Pod) -> Finding:
    containers = _bad(pod, lambda c: _context(c).get("privileged") is True)
    return ("privileged", f"{_named(containers)} must not set securityContext.privileged=true") if containers else None


def _proc_mount_strict(pod: _Pod) -> Finding:
    containers = _bad(pod, lambda c: _context(c).get("procMount") not in {None, "Default"})
    if not containers:
        return None
    values = sorted(
        {str(_context(c)["procMount"]) for c in pod.containers if _context(c).get("procMount")} - {"Default"}
    )
    return "procMount", f"{_named(containers)} must not set securityContext.procMount to {_quoted(values)}"


def _proc_mount(pod: _Pod) -> Finding:
    return None if pod.is_relaxed else _proc_mount_strict(pod)


def _se_linux(pod: _Pod) -> Finding:
    allowed = {"", "container_t", "container_init_t", "container_kvm_t"} | (
        {"container_engine_t"} if pod.minor >= 31 else set()
    )
    seen: list[Raw] = []

    def breaks(context: Raw) -> bool:
        options = context.get("seLinuxOptions") or {}
        if options.get("type", "") in allowed and not options.get("user") and not options.get("role"):
            return False
        seen.append(options)
        return True

    itself = breaks(pod.security)
    containers = _bad(pod, lambda c: breaks(_context(c)))
    if not seen:
        return None
    types = sorted({str(o.get("type", "")) for o in seen} - allowed)
    data = [f"{_some('type', 'types', types)} {_quoted(types)}"] if types else []
    data += [f"{name} may not be set" for name in ("user", "role") if any(o.get(name) for o in seen)]
    return (
        "seLinuxOptions",
        f"{_setters(itself, containers)} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}",
    )


def _seccomp_type(context: Raw) -> str | None:
    profile = context.get("seccompProfile")
    return None if profile is None else str(profile.get("type", ""))


def _seccomp(pod: _Pod) -> Finding:
    def breaks(context: Raw) -> bool:
        return _seccomp_type(context) not in {None, *_PROFILES}

    itself, containers = breaks(pod.security), _bad(pod, lambda c: breaks(_context(c)))
    if not itself and not containers:
        return None
    every = [pod.security, *map(_context, pod.containers)]
    values = sorted({str(_seccomp_type(context)) for context in every if breaks(context)})
    setters = _setters(itself, containers)
    return "seccompProfile", f"{setters} must not set securityContext.seccompProfile.type to {_quoted(values)}"


def _sysctls(pod: _Pod) -> Finding:
    names = [str(s.get("name", "")) for s in pod.security.get("sysctls") or []]
    found = [name for name in names if _SYSCTLS.get(name, LATEST + 1) > pod.minor]
    return ("forbidden sysctls", ", ".join(found)) if found else None


def _host_process(pod: _Pod) -> Finding:
    def breaks(context: Raw) -> bool:
        return (context.get("windowsOptions") or {}).get("hostProcess") is True

    itself, containers = breaks(pod.security), _bad(pod, lambda c: breaks(_context(c)))
    if not itself and not containers:
        return None
    return "hostProcess", f"{_setters(itself, containers)} must not set securityContext.windowsOptions.hostProcess=true"


# --- restricted -------------------------------------------------------------------------------------------------------

_VOLUMES: Final = frozenset(
    {
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    }
)  # fmt: skip


def _escalation(pod: _Pod) -> Finding:
    containers = [] if pod.is_windows else _bad(pod, lambda c: _context(c).get("allowPrivilegeEscalation") is not False)
    detail = f"{_named(containers)} must set securityContext.allowPrivilegeEscalation=false"
    return ("allowPrivilegeEscalation != false", detail) if containers else None


def _strict_capabilities(pod: _Pod) -> Finding:
    if pod.is_windows:
        return None
    keeping = _bad(pod, lambda c: "ALL" not in ((_context(c).get("capabilities") or {}).get("drop") or []))
    adding = _bad(pod, lambda c: bool(set(_added(c)) - {"NET_BIND_SERVICE"}))
    details = [f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    if adding:
        wrong = sorted({name for c in pod.containers for name in _added(c)} - {"NET_BIND_SERVICE"})
        details.append(f"{_named(adding)} must not include {_quoted(wrong)} in securityContext.capabilities.add")
    return ("unrestricted capabilities", "; ".join(details)) if details else None


def _strict_volumes(pod: _Pod) -> Finding:
    wrong = [v for v in pod.spec.get("volumes") or [] if not _VOLUMES & v.keys()]
    if not wrong:
        return None
    kinds = sorted({next((key for key in v if key != "name"), "unknown") for v in wrong})
    names = [str(v.get("name", "")) for v in wrong]
    which = _some("restricted volume type", "restricted volume types", kinds)
    detail = (
        f"{_some('volume', 'volumes', names)} {_quoted(names)} {_some('uses', 'use', names)} {which} {_quoted(kinds)}"
    )
    return "restricted volume types", detail


def _non_root(pod: _Pod) -> Finding:
    if pod.is_relaxed:
        return None
    itself = pod.security.get("runAsNonRoot")
    explicit = _bad(pod, lambda c: _context(c).get("runAsNonRoot") is False)
    if itself is False or explicit:
        detail = f"{_setters(itself is False, explicit)} must not set securityContext.runAsNonRoot=false"
        return "runAsNonRoot != true", detail
    silent = [] if itself else _bad(pod, lambda c: _context(c).get("runAsNonRoot") is None)
    return (
        ("runAsNonRoot != true", f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true")
        if silent
        else None
    )


def _user(pod: _Pod) -> Finding:
    if pod.is_relaxed:
        return None

    def breaks(context: Raw) -> bool:
        return context.get("runAsUser") == 0

    itself, containers = breaks(pod.security), _bad(pod, lambda c: breaks(_context(c)))
    return ("runAsUser=0", f"{_setters(itself, containers)} must not set runAsUser=0") if itself or containers else None


def _strict_seccomp(pod: _Pod) -> Finding:
    if pod.is_windows:
        return None
    loose = _seccomp(pod)
    if loose is not None or _seccomp_type(pod.security) is not None:
        return loose
    silent = _bad(pod, lambda c: _seccomp_type(_context(c)) is None)
    detail = f'pod or {_named(silent)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return ("seccompProfile", detail) if silent else None


Check = Callable[[_Pod], Finding]
BASELINE: Final[tuple[tuple[int, Check], ...]] = (
    (0, _app_armor), (0, _capabilities), (0, _host_namespaces), (0, _host_paths), (0, _host_ports), (34, _probe_hosts),
    (0, _privileged), (0, _proc_mount), (0, _se_linux), (19, _seccomp), (0, _sysctls), (0, _host_process),
)  # fmt: skip
"""Checks with the minor version that brought them."""
RESTRICTED: Final[tuple[tuple[int, Check, Check | None], ...]] = (
    (8, _escalation, None), (22, _strict_capabilities, _capabilities), (35, _proc_mount_strict, _proc_mount),
    (0, _strict_volumes, _host_paths), (0, _non_root, None), (23, _user, None), (19, _strict_seccomp, _seccomp),
)  # fmt: skip
"""Further checks, and which of baseline's they replace."""
