"""Defaults of a CustomResourceDefinition (apiextensions/v1)."""

from __future__ import annotations

from polder.api.meta import Raw


def default_crd(crd: Raw) -> None:
    """Fills in singular and list kind, conversion and its port, and the status's lists, in place."""
    spec = crd.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if not names.get("listKind"):
        names["listKind"] = f"{kind}List"
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)
    for version in spec.get("versions") or ():
        version.setdefault("served", False)
        version.setdefault("storage", False)
    status = crd.setdefault("status", {})
    status.setdefault("conditions", [])
    status.setdefault("acceptedNames", {"plural": "", "kind": ""})
    status.setdefault("storedVersions", [])
