"""What a CustomResourceDefinition's status says: which names it got, whether it is served, whether it ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from polder.api.meta import Raw
from polder.api.validation.crds import approval, is_protected

CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
_NONE: Final[Raw] = {"plural": "", "kind": ""}


def condition(crd: Raw, kind: str) -> Raw | None:
    """One condition."""
    found = (crd.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c.get("type") == kind), None)


def is_true(crd: Raw, kind: str) -> bool:
    """Whether a condition is there and holds."""
    found = condition(crd, kind)
    return found is not None and found.get("status") == "True"


def is_established(crd: Raw) -> bool:
    """Whether its kinds are served."""
    return is_true(crd, "Established")


def set_condition(status: Raw, new: tuple[str, bool, str, str], now: str) -> Raw:
    """The status with one condition: type, whether it holds, reason, message. One that does not change keeps its time."""
    kind, holds, reason, message = new
    made: Raw = {"type": kind, "status": "True" if holds else "False", "lastTransitionTime": now}
    made |= {"reason": reason, "message": message}
    found, there = [], False
    for old in status.get("conditions") or ():
        if old.get("type") != kind:
            found.append(old)
            continue
        there = True
        if old.get("status") == made["status"]:
            made["lastTransitionTime"] = old.get("lastTransitionTime") or now
        found.append(made)
    return {**status, "conditions": found if there else [*found, made]}


def _taken(others: Iterable[Raw], group: str) -> tuple[set[str], set[str]]:
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        if (other.get("spec") or {}).get("group") != group:
            continue
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {names.get("plural") or "", names.get("singular") or "", *(names.get("shortNames") or ())}
        kinds |= {names.get("kind") or "", names.get("listKind") or ""}
    return resources - {""}, kinds - {""}


def accepted_names(crd: Raw, others: Iterable[Raw]) -> tuple[Raw, str, str]:
    """The names that a definition gets beside the tenant's others, and the reason and message of a conflict."""
    spec = crd.get("spec") or {}
    wanted, before = spec.get("names") or {}, (crd.get("status") or {}).get("acceptedNames") or _NONE
    resources, kinds = _taken(others, spec.get("group") or "")
    found: Raw = {key: value for key, value in before.items() if value}
    reason = message = ""
    for key, taken in (("plural", resources), ("singular", resources), ("kind", kinds), ("listKind", kinds)):
        name = wanted.get(key) or ""
        if name != (before.get(key) or "") and name in taken:
            reason, message = f"{key[0].upper()}{key[1:]}Conflict", f'"{name}" is already in use'
        else:
            found[key] = name
        if key == "singular":
            lost = _short_names(wanted, before, resources, found)
            reason, message = ("ShortNamesConflict", lost) if lost else (reason, message)
    if wanted.get("categories"):
        found["categories"] = wanted["categories"]
    else:
        found.pop("categories", None)
    return {"plural": "", "kind": "", **found}, reason, message


def _short_names(wanted: Raw, before: Raw, taken: set[str], found: Raw) -> str:
    """Takes the short names if all are free; otherwise tells which are not."""
    own = set(before.get("shortNames") or ())
    lost = [name for name in wanted.get("shortNames") or () if name not in own and name in taken]
    if lost:
        said = [f'"{name}" is already in use' for name in lost]
        return said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    if wanted.get("shortNames"):
        found["shortNames"] = wanted["shortNames"]
    else:
        found.pop("shortNames", None)
    return ""


def next_status(crd: Raw, others: Iterable[Raw], now: str) -> Raw:
    """The status of a definition as it is written, beside the tenant's others."""
    status: Raw = dict(crd.get("status") or {})
    names, reason, message = accepted_names(crd, others)
    if reason:
        status = set_condition(status, ("NamesAccepted", False, reason, message), now)
    else:
        status = set_condition(status, ("NamesAccepted", True, "NoConflicts", "no conflicts found"), now)
    if not is_true({"status": status}, "Established"):
        holds = ("Established", True, "InitialNamesAccepted", "the initial names have been accepted")
        waits = ("Established", False, "NotAccepted", "not all names are accepted")
        status = set_condition(status, waits if reason else holds, now)
    status = _with_approval(crd, status, now)
    status["acceptedNames"] = names
    stored = list(status.get("storedVersions") or ())
    storage: Any = next(
        (v.get("name") for v in (crd.get("spec") or {}).get("versions") or () if v.get("storage")), None
    )
    status["storedVersions"] = stored if storage in stored or storage is None else [*stored, storage]
    return status


def _with_approval(crd: Raw, status: Raw, now: str) -> Raw:
    if not is_protected((crd.get("spec") or {}).get("group") or ""):
        return status
    reason, message = approval(crd)
    kind = "KubernetesAPIApprovalPolicyConformant"
    return set_condition(status, (kind, reason == "ApprovedAnnotation", reason, message), now)
