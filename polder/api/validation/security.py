"""Security contexts of pods and containers.

Source: upstream's ValidateSecurityContext, validatePodSpecSecurityContext and those below them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_MAX_ID: Final = 2**31 - 1
_ID_RULE: Final = f"must be between 0 and {_MAX_ID}, inclusive"
_PROFILES: Final = ("Localhost", "RuntimeDefault", "Unconfined")
_LONGEST_PROFILE: Final = 4095
_PROC_MOUNTS: Final = ("Default", "Unmasked")
_CHOICES: Final = {
    "supplementalGroupsPolicy": ("Merge", "Strict"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
}


def validate_pod_security(spec: Raw, at: Field) -> Iterator[FieldError]:
    """``securityContext`` of a pod's spec, and whose users it has; ``at`` is the spec."""
    context, where = spec.get("securityContext") or {}, at / "securityContext"
    yield from validate_ids(context, where)
    for name, known in _CHOICES.items():
        if name in context and context[name] not in known:
            yield (where / name).not_supported(context[name], known)
    yield from _profiles(context, where)
    if spec.get("hostUsers") is False:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                yield (at / name).forbidden("when `hostUsers` is false")


def validate_security(context: Raw, at: Field) -> Iterator[FieldError]:
    """``securityContext`` of a container."""
    yield from validate_ids(context, at)
    if context.get("procMount", "Default") not in _PROC_MOUNTS:
        yield (at / "procMount").not_supported(context["procMount"], _PROC_MOUNTS)
    yield from _profiles(context, at)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            yield at.invalid(context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        if {"SYS_ADMIN", "CAP_SYS_ADMIN"} & {*((context.get("capabilities") or {}).get("add") or ())}:
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield at.invalid(context, why)


def validate_ids(context: Raw, at: Field) -> Iterator[FieldError]:
    """User and group numbers of a security context."""
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        if name in context and not 0 <= context[name] <= _MAX_ID:
            yield (at / name).invalid(context[name], _ID_RULE)
    for number, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= _MAX_ID:
            yield (at / "supplementalGroups")[number].invalid(group, _ID_RULE)


def _profiles(context: Raw, at: Field) -> Iterator[FieldError]:
    for name, what in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        if (profile := context.get(name)) is not None:
            yield from _profile(profile, at / name, what)


def _profile(profile: Raw, at: Field, what: str) -> Iterator[FieldError]:
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        yield (at / "type").required(f"type is required when {at.path.rpartition('.')[2]} is set")
        return
    if kind not in _PROFILES:
        yield (at / "type").not_supported(kind, _PROFILES)
        return
    here = at / "localhostProfile"
    if kind != "Localhost":
        if local is not None:
            yield here.invalid(local, f"can only be set when {what} type is Localhost")
    elif not local:
        yield here.required(f"must be set when {what} type is Localhost")
    elif what == "AppArmor":
        if local != local.strip():
            yield here.invalid(local, "must not be padded with whitespace")
        if len(local) > _LONGEST_PROFILE:
            yield here.too_long(_LONGEST_PROFILE)
    else:
        if local.startswith("/"):
            yield here.invalid(local, "must be a relative path")
        if ".." in local.split("/"):
            yield here.invalid(local, "must not contain '..'")
