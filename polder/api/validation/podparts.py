"""Changes of a pod through its subresources: ephemeral containers and resizing in place.

Source: upstream's ValidatePodEphemeralContainersUpdate and ValidatePodResize.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api.defaults_pods import qos_class
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.staticpods import is_mirror
from polder.api.validation.containers import validate_container, volumes_of
from polder.api.validation.podlevel import validate_whole_resize

_SPEC: Final = Field("spec")
_ALLOWED: Final = frozenset({
    "name", "image", "command", "args", "workingDir", "envFrom", "env", "resources", "volumeMounts", "volumeDevices",
    "restartPolicy", "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "securityContext", "stdin",
    "stdinOnce", "tty", "targetContainerName",
})  # fmt: skip
"""What an ephemeral container may say; resources only as an empty object."""
_MUTABLE: Final = frozenset({"cpu", "memory"})


def _containers(pod: Raw, group: str) -> list[Raw]:
    return (pod.get("spec") or {}).get(group) or []


# --- ephemeral containers ---------------------------------------------------------------------------------------------


def validate_ephemeral_change(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Ephemeral containers are added; those that are there stay as they are."""
    if is_mirror(old):
        yield Field("").forbidden("static pods do not support ephemeral containers")
        return
    yield from validate_ephemeral(new)
    at = _SPEC / "ephemeralContainers"
    after = {container.get("name"): container for container in _containers(new, "ephemeralContainers")}
    for container in _containers(old, "ephemeralContainers"):
        found = after.get(container.get("name"))
        if found is None:
            yield at.forbidden(f'existing ephemeral containers "{container.get("name")}" may not be removed')
        elif found != container:
            yield at.forbidden(f'existing ephemeral containers "{container.get("name")}" may not be changed')


def validate_ephemeral(pod: Raw) -> Iterator[FieldError]:
    """What is wrong with a pod's ephemeral containers."""
    spec = pod.get("spec") or {}
    others = {c.get("name") for group in ("containers", "initContainers") for c in spec.get(group) or ()}
    volumes = volumes_of(spec)
    names = set(others)
    for number, container in enumerate(spec.get("ephemeralContainers") or ()):
        at = (_SPEC / "ephemeralContainers")[number]
        common = {key: value for key, value in container.items() if key in _ALLOWED and key != "targetContainerName"}
        yield from validate_container(common, at, volumes)
        if container.get("name") in names:
            yield (at / "name").duplicate(container["name"])
        names.add(container.get("name"))
        target = container.get("targetContainerName")
        if target and target not in others:
            yield (at / "targetContainerName").not_found(target)
        for key in container:
            if key not in _ALLOWED or (key == "resources" and container[key]):
                yield (at / key).forbidden("cannot be set for an Ephemeral Container")
        for place, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    where = (at / "volumeMounts")[place] / key
                    yield where.forbidden("cannot be set for an Ephemeral Container")


# --- resizing ---------------------------------------------------------------------------------------------------------


def validate_resize(new: Raw, old: Raw) -> Iterator[FieldError]:
    """CPU and memory of containers and of the whole pod change; nothing is taken away, and the class of service stays."""
    spec = old.get("spec") or {}
    if is_mirror(old):
        yield Field("").forbidden("static pods cannot be resized")
        return
    if (spec.get("os") or {}).get("name") == "windows":
        yield Field("").forbidden("windows pods cannot be resized")
        return
    if qos_class(spec) != qos_class(new.get("spec") or {}):
        shown = (new.get("status") or {}).get("qosClass", "")
        yield _SPEC.invalid(shown, "Pod QOS Class may not change as a result of resizing")
    yield from validate_whole_resize(spec, new.get("spec") or {})
    for group in ("containers", "initContainers"):
        before, after = _containers(old, group), _containers(new, group)
        at = _SPEC / group
        if [c.get("name") for c in before] != [c.get("name") for c in after]:
            yield at.forbidden("containers may not be added, removed, renamed or reordered on resize")
            return
        for number, (standing, wanted) in enumerate(zip(before, after, strict=True)):
            yield from _resized(standing, wanted, at[number])


def _resized(old: Raw, new: Raw, at: Field) -> Iterator[FieldError]:
    before, after = old.get("resources") or {}, new.get("resources") or {}
    for part in ("requests", "limits"):
        if set(before.get(part) or ()) - set(after.get(part) or ()):
            yield (at / "resources" / part).forbidden(f"resource {part} cannot be removed")
    if (old.get("resizePolicy") or []) != (new.get("resizePolicy") or []) or _fixed(before) != _fixed(after):
        yield _SPEC.forbidden("only cpu and memory resources are mutable")


def _fixed(resources: Raw) -> Any:
    """What of the resources no resize changes."""
    amounts = {
        part: {name: amount for name, amount in (resources.get(part) or {}).items() if name not in _MUTABLE}
        for part in ("requests", "limits")
    }
    return amounts, resources.get("claims") or []
