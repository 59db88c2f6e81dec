"""A tenant out of a backup, as a tenant of this cluster: its objects, and nothing of its running or its credentials.

Every object gets a new UID, and every mention of an old one follows; so a copy may stand beside its original. The Tenant has
a new UID and a new signing key, so that certificates and tokens of the one that was saved are worthless to the copy.

Left out: what runs (pods and endpoints that a controller makes again, ports, addresses), events, what was being deleted with
all that is in it or belongs to it, bootstrap tokens, requests for certificates (an approved one would be signed once more), and
the platform's own keys. Pods of their own come back unbound, quotas are counted anew, networks claim a new
VXLAN identifier, tokens in Secrets are made anew by who makes them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from polder.api.certificates import CertificateSigningRequest
from polder.api.core import Namespace, Pod, Secret
from polder.api.discovery import EndpointSlice
from polder.api.kinds import built_in, kind_of
from polder.api.meta import Raw
from polder.api.polder import Address, Network, Port, Router, Tenant
from polder.apiserver.authn_bootstrap import SECRET_TYPE as BOOTSTRAP_TYPE
from polder.apiserver.objects import encode, terms_of_row
from polder.apiserver.quota_recount import QUOTAS, USAGES
from polder.apiserver.service_claims import PORT_CLAIMS, SERVICES, claimant
from polder.apiserver.service_ranges import ADDRESSES
from polder.apiserver.signing_keys import signing_key_put
from polder.apiserver.tenancy import record_of, tenant_key
from polder.apiserver.tokens import SECRET_TYPE
from polder.base.ids import TenantName
from polder.store.protocol import Key, Put

TENANTS: Final = kind_of(Tenant).resource
PODS: Final = kind_of(Pod).resource
SECRETS: Final = kind_of(Secret).resource
NAMESPACES: Final = kind_of(Namespace).resource
DEFINITIONS: Final = built_in("apiextensions.k8s.io/v1", "customresourcedefinitions").resource
SLICES: Final = kind_of(EndpointSlice).resource
_RUNNING: Final = frozenset({"events", *(kind_of(t).resource for t in (Port, Address, CertificateSigningRequest))})
_CLAIMS: Final = frozenset({ADDRESSES.resource, PORT_CLAIMS})
_LEAVING: Final = frozenset({SERVICES.resource, NAMESPACES, DEFINITIONS})
"""Kinds whose objects take others along when they go."""
_COUNTED: Final = frozenset({QUOTAS, *(kind_of(t).resource for t in (Network, Router))})
"""Kinds whose status is found anew."""
_FIRST: Final = (TENANTS, USAGES, NAMESPACES, DEFINITIONS)

Stored = tuple[Key, bytes]


@dataclass(frozen=True, slots=True)
class Copy:
    """What is made of a saved tenant. ``uids`` are all UIDs in it, ``leaving`` what was being deleted and takes others along:
    (resource, namespace, name).
    """

    name: TenantName
    uid: str
    uids: frozenset[str]
    leaving: frozenset[tuple[str, str, str]]

    @classmethod
    def of(cls, name: TenantName, rows: Iterable[Stored]) -> Copy:
        """With a fresh UID."""
        uids, leaving = set(), set()
        for key, value in rows:
            if key.resource.startswith("internal:"):
                continue
            meta = _meta(value)
            if isinstance(meta.get("uid"), str):
                uids.add(meta["uid"])
            if key.resource in _LEAVING and meta.get("deletionTimestamp"):
                leaving.add((key.resource, key.namespace, key.name))
        return cls(name, str(uuid.uuid4()), frozenset(uids), frozenset(leaving))

    def puts(self, rows: Iterable[Stored]) -> list[Put]:
        """What to write, owners before what they own, so that nobody takes an owner for gone."""
        made: list[tuple[tuple[int, int], Put]] = []
        values = [(key, value) for row in rows for key, value in self._made(row)]
        depth = _depths({_meta(value).get("uid") or "": _owners(value) for _, value in values})
        for key, value in values:
            rank = _FIRST.index(key.resource) if key.resource in _FIRST else len(_FIRST)
            place = (rank, depth[_meta(value).get("uid") or ""])
            made.append((place, Put(key, value, 0, terms_of_row(key, value))))
        made.sort(key=lambda one: one[0])
        tenant = next(put for _, put in made if put.key.resource == TENANTS)
        return [tenant, signing_key_put(record_of(tenant.value)), *(put for _, put in made if put is not tenant)]

    def _made(self, row: Stored) -> Iterator[Stored]:
        """The row as it is to be, or nothing."""
        key, value = row
        if key.resource.startswith("internal:") or key.resource in _RUNNING or self._goes_along(key, value):
            return
        raw = self._mapped(orjson.loads(value))
        if key.resource == TENANTS:
            meta = {**raw["metadata"], "name": self.name, "uid": self.uid}
            meta.pop("deletionTimestamp", None)
            meta.pop("deletionGracePeriodSeconds", None)
            spec = _spec(raw.get("spec") or {}, key.name, self.name)
            yield tenant_key(self.name), encode({**raw, "metadata": meta, "spec": spec, "status": {"phase": "Active"}})
            return
        place = Key(key.resource, self.name, key.namespace, key.name)
        if key.resource == USAGES:
            yield place, orjson.dumps({"hard": raw["hard"], "used": {}})
        elif "metadata" not in raw or "kind" not in raw:
            yield place, value
        elif (kept := _kept(key.resource, raw)) is not None:
            yield place, encode(kept)

    def _goes_along(self, key: Key, value: bytes) -> bool:
        """Whether a row is in, or belongs to, something that was being deleted."""
        within = (NAMESPACES, "", key.namespace), (DEFINITIONS, "", key.resource)
        if not self.leaving.isdisjoint(within):
            return True
        if key.resource not in _CLAIMS:
            return False
        return (SERVICES.resource, *claimant(key, value).partition("/")[::2]) in self.leaving

    def _mapped(self, value: Any) -> Any:
        """With every UID of the saved tenant replaced by the copy's."""
        if isinstance(value, str):
            return str(uuid.uuid5(uuid.UUID(self.uid), value)) if value in self.uids else value
        if isinstance(value, dict):
            return {name: self._mapped(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._mapped(inner) for inner in value]
        return value


def _spec(spec: Raw, old: str, new: str) -> Raw:
    """A Tenant's spec in which members that are its own accounts by name are the copy's own."""
    members = spec.get("members")
    if not members:
        return spec
    return {**spec, "members": [{**m, "tenant": new} if m.get("tenant") == old else m for m in members]}


def _kept(resource: str, raw: Raw) -> Raw | None:
    """An object without what belongs to its former life; None where nothing is left."""
    meta = raw["metadata"]
    if meta.get("deletionTimestamp"):
        return None
    if resource in (PODS, SLICES) and any(owner.get("controller") for owner in meta.get("ownerReferences") or ()):
        return None
    if resource == PODS:
        spec = {name: value for name, value in raw["spec"].items() if name != "nodeName"}
        return {**raw, "spec": spec, "status": {"phase": "Pending"}}
    if resource == SECRETS and raw.get("type") == BOOTSTRAP_TYPE:
        return None
    if resource == SECRETS and raw.get("type") == SECRET_TYPE:
        return {name: value for name, value in raw.items() if name != "data"}
    if resource in _COUNTED:
        return {name: value for name, value in raw.items() if name != "status"}
    return raw


def _meta(value: bytes) -> Raw:
    raw = orjson.loads(value)
    meta = raw.get("metadata") if isinstance(raw, dict) else None
    return meta if isinstance(meta, dict) else {}


def _owners(value: bytes) -> Sequence[str]:
    return [owner.get("uid") or "" for owner in _meta(value).get("ownerReferences") or ()]


def _depths(owners: dict[str, Sequence[str]]) -> dict[str, int]:
    """How many owners stand above each UID; those of a circle stand above each other as they come."""
    known: dict[str, int] = {}
    for start in owners:
        ahead = [(start, False)]
        while ahead:
            uid, is_counted = ahead.pop()
            above = [owner for owner in owners[uid] if owner in owners]
            if is_counted:
                known[uid] = max((known[owner] + 1 for owner in above), default=0)
            elif uid not in known:
                known[uid] = 0
                ahead.append((uid, True))
                ahead += [(owner, False) for owner in above if owner not in known]
    return known
