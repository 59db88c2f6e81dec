"""Rules of ``Tenant.spec.members``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

LIMIT: Final = 1000
AT: Final = Field("spec") / "members"
_KINDS: Final = ("User", "Group", "ServiceAccount")
_ROLES: Final = ("admin", "edit", "view")
_RESERVED: Final = ("system:", "polder:")


def validate_members(members: list[Raw]) -> Iterator[FieldError]:
    """Kinds and roles of a closed list, names that are nobody's by rule, a namespace for service accounts only."""
    if len(members) > LIMIT:
        yield AT.too_many(len(members), LIMIT)
        return
    for number, member in enumerate(members):
        yield from _member(member, AT[number])


def _member(member: Raw, at: Field) -> Iterator[FieldError]:
    kind, name, namespace = member.get("kind", ""), member.get("name", ""), member.get("namespace", "")
    if kind not in _KINDS:
        yield (at / "kind").not_supported(kind, _KINDS)
    if member.get("role") not in _ROLES:
        yield (at / "role").not_supported(member.get("role", ""), _ROLES)
    if not name:
        yield (at / "name").required()
    if kind == "ServiceAccount":
        if not namespace:
            yield (at / "namespace").required()
        if member.get("tenantUid") and not member.get("tenant"):
            yield (at / "tenantUid").forbidden("is for a service account of another tenant, which `tenant` names")
        return
    if name.startswith(_RESERVED):
        yield (at / "name").forbidden("names that begin with system: or polder: mean somebody else in each tenant")
    for field in ("namespace", "tenant", "tenantUid"):
        if member.get(field):
            yield (at / field).forbidden(f"is for service accounts, not for a {kind or 'member of another kind'}")
