"""Which objects a ResourceQuota is about: pure. Its scopes and its scope selector, all of which must fit."""

from __future__ import annotations

from polder.api.meta import Raw
from polder.apiserver.quota_pods import crosses_namespaces, is_best_effort, is_terminating
from polder.apiserver.quota_usage import CLAIMS, PODS


def in_scope(resource: str, obj: Raw, spec: Raw) -> bool:
    """Whether an object is in all scopes of a quota's spec; a kind that knows no scopes is in none."""
    wanted = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    wanted += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return all(_fits(resource, obj, selector) for selector in wanted)


def _fits(resource: str, obj: Raw, selector: Raw) -> bool:
    name = selector.get("scopeName")
    if resource == CLAIMS:
        return name == "VolumeAttributesClass" and _claim_fits(obj, selector)
    if resource != PODS:
        return False
    if name == "PriorityClass":
        of = (obj.get("spec") or {}).get("priorityClassName") or ""
        return _selects(selector, of)
    fixed = {
        "Terminating": is_terminating(obj),
        "NotTerminating": not is_terminating(obj),
        "BestEffort": is_best_effort(obj),
        "NotBestEffort": not is_best_effort(obj),
        "CrossNamespacePodAffinity": crosses_namespaces(obj),
    }
    return fixed.get(str(name), False)


def _selects(selector: Raw, of: str) -> bool:
    """A selector's one requirement against a name; empty where there is none."""
    values = selector.get("values") or ()
    match selector.get("operator"):
        case "In":
            return bool(of) and of in values
        case "NotIn":
            return of not in values
        case "Exists":
            return bool(of)
        case "DoesNotExist":
            return not of
    return False


def _claim_fits(claim: Raw, selector: Raw) -> bool:
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    names = {
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    } - {None, ""}
    return any(_selects(selector, str(name)) for name in names) if names else _selects(selector, "")
