"""Paths below ``/polder/v1/`` that only Polder's own components see: questions that the store's indexes answer.

- ``dependents?uid=UID&namespace=NAME[&after=…]`` of one tenant: what the object of that UID owns (its namespace is empty
  for one in none), in pages: ``{"items": […], "after": "…"}``.
- ``contents[?namespace=NAME]`` of one tenant: ``{"resources": […], "aggregated": ["group/version", …]}``; every resource
  that has rows there, with their number, and what other servers of the tenant's serve.
- ``POST recount[?namespace=…&name=…]`` of one tenant: counts anew what a ResourceQuota's objects use, or all of the tenant.
- ``usage`` of one tenant: its quota as it stands, ``{"hard": {…}, "used": {…}}``, both empty without one.
- ``garbage[?since=REVISION]``: see ``internal_garbage``.

To everybody else they do not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from polder.api.errors import bad_request, no_such_path
from polder.api.kinds import PLATFORM_ONLY, built_in
from polder.api.meta import Raw
from polder.apiserver.answers import raw_answer
from polder.apiserver.hooks import Call
from polder.apiserver.internal_garbage import GarbageFeed
from polder.apiserver.internal_owners import Owners
from polder.apiserver.objects import decode_entry
from polder.apiserver.quota_recount import QUOTAS, Recount, usage_key
from polder.apiserver.types import Role
from polder.base.ids import EVERY_TENANT, ROOT
from polder.store.protocol import Key, Prefix

PAGE: Final = 500
"""Dependents of one answer."""
API_SERVICES: Final = built_in("apiregistration.k8s.io/v1", "apiservices").resource


@dataclass(frozen=True, slots=True)
class InternalPaths:
    """Serves them."""

    owners: Owners
    garbage: GarbageFeed
    recount: Recount

    async def serve(self, call: Call) -> web.StreamResponse:
        """One request. Raises ApiError 400, 404."""
        if call.who.role is not Role.COMPONENT:
            raise no_such_path()
        match call.info.path, call.info.verb:
            case "/polder/v1/dependents", "get":
                return await self._dependents(call)
            case "/polder/v1/contents", "get":
                return await self._contents(call)
            case "/polder/v1/usage", "get":
                return await self._usage(call)
            case "/polder/v1/recount", "post":
                return await self._recount(call)
            case "/polder/v1/garbage", "get":
                return await self.garbage.serve(call)
        raise no_such_path()

    async def _dependents(self, call: Call) -> web.StreamResponse:
        tenant, namespace, uid = call.info.tenant, call.query.get("namespace", ""), call.query.get("uid", "")
        keys: Sequence[Key] = await self.owners.dependents(tenant, namespace, uid)
        if after := call.query.get("after", ""):
            start = _key(after)
            keys = [key for key in keys if key > start]
        found = [await self.owners.item(key) for key in keys[:PAGE]]
        rest = keys[PAGE - 1] if len(keys) > PAGE else None
        answer: Raw = {"items": [item for item in found if item is not None]}
        if rest is not None:
            answer["after"] = orjson.dumps([rest.resource, rest.tenant, rest.namespace, rest.name]).decode()
        return raw_answer(answer)

    async def _contents(self, call: Call) -> web.StreamResponse:
        tenant, namespace = call.info.tenant, call.query.get("namespace")
        if tenant == EVERY_TENANT:
            raise bad_request("contents: name a tenant")
        found = []
        for resource, count in (await self.owners.store.resources(tenant, namespace)).items():
            kind = await self.owners.kind_at(Key(resource, tenant, "", ""))
            if kind is not None and (tenant == ROOT or resource not in PLATFORM_ONLY):
                place = {"group": kind.group, "version": kind.version, "plural": kind.plural}
                found.append({**place, "kind": kind.kind, "namespaced": kind.namespaced, "count": count})
        return raw_answer({"resources": found, "aggregated": await self._aggregated(tenant)})

    async def _recount(self, call: Call) -> web.StreamResponse:
        tenant, namespace, name = call.info.tenant, call.query.get("namespace", ""), call.query.get("name", "")
        if namespace:
            await self.recount.quota(Key(QUOTAS, tenant, namespace, name))
        else:
            await self.recount.tenant(tenant)
        return raw_answer({})

    async def _usage(self, call: Call) -> web.StreamResponse:
        entry = await self.owners.store.get(usage_key(call.info.tenant))
        return raw_answer(orjson.loads(entry.value) if entry is not None else {"hard": {}, "used": {}})

    async def _aggregated(self, tenant: str) -> list[str]:
        """The group versions that services of the tenant's serve."""
        page = await self.owners.store.list(Prefix(API_SERVICES, tenant))
        specs = [decode_entry(entry).get("spec") or {} for entry in page.entries]
        return sorted(f"{s.get('group')}/{s.get('version')}" for s in specs if s.get("service"))


def _key(text: str) -> Key:
    try:
        return Key(*map(str, orjson.loads(text)))
    except (orjson.JSONDecodeError, TypeError):
        raise bad_request("after: not of an answer before") from None
