"""The scale of an object (autoscaling/v1): where its replicas stand, and who owns them there.

Built-in workloads and custom kinds that declare a scale share this. Source: upstream's ScaleREST and ScaleHandler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from polder.api import fieldsets
from polder.api.apply import UnknownVersionError
from polder.api.apply_types import Type, type_of_schema
from polder.api.errors import Field, FieldError
from polder.api.fieldsets import Fields, Path
from polder.api.meta import Raw
from polder.api.ownership import Managed, Manager, Owned
from polder.api.schemas import named

VERSION: Final = "autoscaling/v1"
SUBRESOURCE: Final = "scale"
_REPLICAS: Final = fieldsets.of_paths(("f:spec", "f:replicas"))


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where an object holds the replicas that are wanted and those that are there, and its selector: a selector of labels
    (``selector`` names an object), or text where ``textual``; no path where there is none.
    """

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")
    textual: bool = False

    @property
    def field(self) -> Path:
        """The element path of the wanted replicas."""
        return tuple(f"f:{name}" for name in self.spec)


BUILT_IN_SCALES: Final[Mapping[str, ScalePaths]] = {
    "deployments.apps": ScalePaths(),
    "replicasets.apps": ScalePaths(),
    "statefulsets.apps": ScalePaths(),
    "replicationcontrollers": ScalePaths(),
}
"""By the store's name of the kind."""


def declared_scale(subresources: Raw) -> ScalePaths | None:
    """What a CustomResourceDefinition's version declares; None for no scale."""
    found = subresources.get("scale")
    if not isinstance(found, dict):
        return None
    paths = [_split(found.get(key) or "") for key in ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")]
    return ScalePaths(paths[0], paths[1], paths[2], textual=True)


def _split(path: str) -> tuple[str, ...]:
    return tuple(filter(None, path.split(".")))


def _at(obj: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj if path else None


def scale_of(obj: Raw, paths: ScalePaths) -> Raw:
    """The Scale of an object."""
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Raw = {"replicas": _number(_at(obj, paths.status))}
    selector = _at(obj, paths.selector)
    text = selector if paths.textual else selector_text(selector)
    if text:
        status["selector"] = text
    return {
        "kind": "Scale",
        "apiVersion": VERSION,
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"replicas": _number(_at(obj, paths.spec))},
        "status": status,
    }


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def with_replicas(obj: Raw, paths: ScalePaths, replicas: int) -> Raw:
    """The object with other replicas; the argument stays as it is."""
    found: Raw = _set(obj, paths.spec, replicas)
    return found


def _set(obj: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    inner = obj if isinstance(obj, dict) else {}
    return {**inner, path[0]: _set(inner.get(path[0]), path[1:], value)}


def selector_text(selector: Any) -> str:
    """A selector as text: ``a=b,c in (d,e)``, in the order of the keys."""
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        selector = {"matchLabels": selector}  # a replication controller's is a map
    found = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key", ""), ",".join(sorted(rule.get("values") or ()))
        text = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }.get(rule.get("operator", ""), "")
        found.append((key, text))
    return ",".join(text for _, text in sorted(found, key=lambda row: row[0]))


def validate_scale(scale: Raw) -> Iterator[FieldError]:
    """What is wrong with a Scale."""
    replicas = _number((scale.get("spec") or {}).get("replicas"))
    if replicas < 0:
        yield (Field("spec") / "replicas").invalid(replicas, "must be greater than or equal to 0")


# --- owners -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScaleVersions:
    """There is one version of Scale."""

    @property
    def fixed(self) -> bool:
        """It does not change."""
        return True

    def type_in(self, version: str) -> Type:
        """Raises UnknownVersionError."""
        if version != VERSION:
            raise UnknownVersionError(version)
        return type_of_schema(named("io.k8s.api.autoscaling.v1.Scale"))

    async def convert(self, obj: Raw, version: str) -> Raw:
        """Raises UnknownVersionError."""
        if version != VERSION:
            raise UnknownVersionError(version)
        return obj


@dataclass(frozen=True, slots=True)
class ScaleOwners:
    """The owners of an object as those of its scale, and back. ``version`` is the one of the object that is asked for."""

    parents: Managed
    paths: ScalePaths
    version: str

    def of_scale(self) -> Managed:
        """Those who own the replicas, as they own them in the Scale."""
        found = Managed()
        for manager, owned in self.parents.owners.items():
            if fieldsets.has(owned.fields, self.paths.field):
                found.owners[_in_scale(manager)] = Owned(_REPLICAS, VERSION, owned.time)
        return found

    def of_object(self, scale: Managed) -> Managed:
        """The object's owners after its scale's became these."""
        replicas: Fields = fieldsets.of_paths(self.paths.field)
        left = dict(scale.owners)
        found = Managed()
        for manager, owned in self.parents.owners.items():
            if not fieldsets.has(owned.fields, self.paths.field) or left.pop(_in_scale(manager), None) is not None:
                found.owners[manager] = owned
            else:
                found.put(manager, fieldsets.difference(owned.fields, replicas), owned.version, owned.time)
        for manager, owned in left.items():
            if fieldsets.has(owned.fields, ("f:spec", "f:replicas")):
                back = replace(manager, version=self.version) if manager.version else manager
                found.owners[back] = Owned(replicas, self.version, owned.time)
        return found


def _in_scale(manager: Manager) -> Manager:
    return replace(manager, version=VERSION) if manager.version else manager
