"""Subresources that are a part of their object: what of the body counts, and what is checked of it.

A write through one takes only its part from what was sent; all else stays as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from polder.api.csr import check_approval, check_csr_status, with_approval, with_csr_status
from polder.api.errors import FieldError
from polder.api.meta import Raw
from polder.api.validation.podparts import validate_ephemeral_change, validate_resize

Merge = Callable[[Raw, Raw, str], Raw]
"""From what was sent and what stands, and the time (RFC 3339), to what is wanted."""
Check = Callable[[Raw, Raw], Iterable[FieldError]]
_READ_WRITE: Final = frozenset({"get", "update", "patch"})


@dataclass(frozen=True, slots=True)
class Part:
    """One such subresource. ``metadata``: a write through it changes the metadata too."""

    merge: Merge
    check: Check
    verbs: frozenset[str] = _READ_WRITE
    metadata: bool = False


def _fine(_new: Raw, _old: Raw) -> Iterable[FieldError]:
    return ()


def _set(obj: Raw, above: str, key: str, value: Any) -> Raw:
    """The object with one field below ``above``; None takes it away."""
    inner = {k: v for k, v in (obj.get(above) or {}).items() if k != key}
    return {**obj, above: inner if value is None else {**inner, key: value}}


def _below(obj: Raw, above: str, key: str) -> Any:
    return (obj.get(above) or {}).get(key)


def _finalize(sent: Raw, old: Raw, _: str) -> Raw:
    return _set(old, "spec", "finalizers", _below(sent, "spec", "finalizers") or [])


def _ephemeral(sent: Raw, old: Raw, _: str) -> Raw:
    return _set(old, "spec", "ephemeralContainers", _below(sent, "spec", "ephemeralContainers"))


def _resize(sent: Raw, old: Raw, _: str) -> Raw:
    """Resources and resize policies; containers that are others stay as sent, for the check to refuse."""
    found = _set(old, "spec", "resources", _below(sent, "spec", "resources"))
    for group in ("containers", "initContainers"):
        before, after = _below(old, "spec", group) or [], _below(sent, "spec", group) or []
        if [c.get("name") for c in before] != [c.get("name") for c in after]:
            found = _set(found, "spec", group, after)
            continue
        merged = []
        for standing, wanted in zip(before, after, strict=True):
            kept = {k: v for k, v in standing.items() if k not in ("resources", "resizePolicy")}
            merged.append({**kept, **{k: wanted[k] for k in ("resources", "resizePolicy") if k in wanted}})
        if merged:
            found = _set(found, "spec", group, merged)
    return found


_CSR: Final = "certificatesigningrequests.certificates.k8s.io"
PARTS: Final[Mapping[tuple[str, str], Part]] = {
    ("namespaces", "finalize"): Part(_finalize, _fine, frozenset({"update"})),
    ("pods", "ephemeralcontainers"): Part(_ephemeral, validate_ephemeral_change),
    ("pods", "resize"): Part(_resize, validate_resize),
    (_CSR, "approval"): Part(with_approval, check_approval, metadata=True),
    (_CSR, "status"): Part(with_csr_status, check_csr_status, metadata=True),
}
"""By the store's name of the kind and the subresource."""
