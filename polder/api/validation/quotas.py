"""What a tenant may be limited to: the names of a ResourceQuota, and four more of the whole tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_WHOLE: Final = ("objects", "objects.bytes", "namespaces", "customresourcedefinitions")
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_COUNTED: Final = (
    "pods", "services", "services.loadbalancers", "services.nodeports", "persistentvolumeclaims", "requests.storage",
    "configmaps", "resourcequotas", "replicationcontrollers", "secrets",
)  # fmt: skip
_NAMES: Final = frozenset(
    {*_WHOLE, *_COUNTED, *_COMPUTE, *(f"requests.{n}" for n in _COMPUTE), *(f"limits.{n}" for n in _COMPUTE)}
)
_CLASS: Final = ".storageclass.storage.k8s.io/"


def _is_name(name: str) -> bool:
    if name in _NAMES or name.startswith(("count/", "hugepages-", "requests.hugepages-")):
        return True
    if name.startswith("requests.") and "/" in name:
        return True
    return name.partition(_CLASS)[2] in ("requests.storage", "persistentvolumeclaims")


def validate_tenant_quota(spec: Raw, at: Field) -> Iterator[FieldError]:
    """Known names, amounts that are not negative."""
    for name, amount in ((spec.get("quota") or {}).get("hard") or {}).items():
        field = (at / "quota" / "hard")[name]
        if not _is_name(name):
            yield field.invalid(name, "must be a name that a ResourceQuota knows, or one of " + ", ".join(_WHOLE))
        try:
            if quantity.parse(amount).value < 0:
                yield field.invalid(amount, "must be greater than or equal to 0")
        except quantity.QuantityError as mistake:
            yield field.invalid(amount, str(mistake))
