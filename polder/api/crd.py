"""CustomResourceDefinition (apiextensions/v1): acceptance, and the kinds that a definition makes.

The rules of a definition are in ``validation.crds``, those of schemas in ``crd_rules``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from polder.api import structural
from polder.api.errors import Field, FieldError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.validation.meta import validate_meta, validate_meta_update

PROBLEMS_SHOWN = 64
"""Problems of one custom object that an answer names."""

# --- acceptance -------------------------------------------------------------------------------------------------------


def accepted_status(crd: Raw, others: Iterable[Raw], now: str) -> Raw:
    """The status of a definition beside the tenant's others: which names it gets, and whether it is established."""
    spec, status = crd["spec"], crd.get("status") or {}
    given = spec["names"]
    taken: dict[str, set[str]] = {"names": set(), "kinds": set()}
    for other in others:
        theirs = other["spec"]["names"]
        if other["metadata"]["name"] == crd["metadata"]["name"] or other["spec"]["group"] != spec["group"]:
            continue
        taken["names"] |= {theirs["plural"], theirs["singular"], *(theirs.get("shortNames") or ())}
        taken["kinds"] |= {theirs["kind"], theirs["listKind"]}
    wanted = [given["plural"], given["singular"], *(given.get("shortNames") or ())]
    clash = next((name for name in wanted if name in taken["names"]), "")
    clash = clash or next((name for name in (given["kind"], given["listKind"]) if name in taken["kinds"]), "")
    stored = list(status.get("storedVersions") or ())
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    conditions = [_condition("NamesAccepted", clash, now), _condition("Established", clash, now)]
    return {
        "conditions": _kept_times(conditions, status.get("conditions") or []),
        "acceptedNames": (status.get("acceptedNames") or {"plural": "", "kind": ""}) if clash else given,
        "storedVersions": stored if storage in stored else [*stored, storage],
    }


def _condition(kind: str, clash: str, now: str) -> Raw:
    if clash:
        reason, message = "NotAccepted", f'"{clash}" is already in use'
    elif kind == "Established":
        reason, message = "InitialNamesAccepted", "the initial names have been accepted"
    else:
        reason, message = "NoConflicts", "no conflicts found"
    status = "False" if clash else "True"
    return {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}


def _kept_times(conditions: list[Raw], before: list[Raw]) -> list[Raw]:
    """Conditions that did not change keep their time."""
    old = {condition["type"]: condition for condition in before}
    return [
        {**condition, "lastTransitionTime": old[condition["type"]]["lastTransitionTime"]}
        if old.get(condition["type"], {}).get("status") == condition["status"]
        else condition
        for condition in conditions
    ]


def is_established(crd: Raw) -> bool:
    """Whether its kinds are served."""
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


# --- kinds ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CustomVersion:
    """One served version of a custom kind, with its compiled schema."""

    kind: Kind
    schema: Raw
    columns: tuple[Mapping[str, Any], ...] = ()

    def prune(self, obj: Raw) -> tuple[Raw, tuple[str, ...]]:
        """The object without fields that the schema does not know, with its defaults; and the paths of these fields."""
        found, unknown = structural.prune(self.schema, obj)
        defaulted: Raw = structural.apply_defaults(self.schema, found)
        return defaulted, tuple(unknown)

    def validate(self, obj: Raw, old: Raw | None) -> list[FieldError]:
        """What breaks the rules of metadata or the schema."""
        meta = obj.get("metadata") or {}
        if old is None:
            found = list(validate_meta(self.kind, meta))
        else:
            found = list(validate_meta_update(self.kind, meta, old.get("metadata") or {}))
        body = {key: value for key, value in obj.items() if key != "metadata"}
        return found + list(itertools.islice(structural.validate(self.schema, body, Field()), PROBLEMS_SHOWN))


@functools.lru_cache(maxsize=256)
def _shared_schema(text: bytes) -> Raw:
    found: Raw = orjson.loads(text)
    found["required"] = [key for key in found.get("required") or () if key != "metadata"]
    return found


def to_versions(crd: Raw) -> list[CustomVersion]:
    """The served versions; equal schemas of different tenants are one object in memory."""
    spec = crd["spec"]
    given = spec["names"]
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        kind = Kind(
            spec["group"],
            version["name"],
            given["kind"],
            given["plural"],
            given["singular"],
            spec["scope"] == "Namespaced",
            tuple(given.get("shortNames") or ()),
            tuple(given.get("categories") or ()),
            ("status",) if "status" in (version.get("subresources") or {}) else (),
        )
        text = orjson.dumps(version["schema"]["openAPIV3Schema"], option=orjson.OPT_SORT_KEYS)
        columns = tuple(version.get("additionalPrinterColumns") or ())
        found.append(CustomVersion(kind, _shared_schema(text), columns))
    return found
