"""Asking in another's name: ``Impersonate-User``, ``-Group``, ``-Uid`` and ``-Extra-KEY``.

Two ways lead there, tried in this order, as upstream's 1.36 does: constrained impersonation (KEP-5284; verbs
``impersonate:MODE`` and ``impersonate-on:MODE:VERB``) and the older verb ``impersonate``. Either way the identity is one of
the tenant that is asked, whoever asks, and has the fixed rights of no role: nobody becomes the platform from a tenant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import unquote

from polder.api.errors import ApiError, bad_request
from polder.api.names import dns_label, dns_subdomain
from polder.apiserver.authn_method import AUTHENTICATED, UNAUTHENTICATED, prefixed, values_of
from polder.apiserver.authz import denied
from polder.apiserver.tokens import NODE_NAME
from polder.apiserver.types import Decision, Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT, ROOT
from polder.system.pki import NODE_PREFIX, NODES, RESERVED

USER, GROUP, UID, EXTRA = "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-"
ACCOUNT_PREFIX = "system:serviceaccount:"
MASTERS = "system:masters"
MANY = 4
"""From so many groups or extra values on, one check for all is tried first."""
LIMIT = 256
"""Groups and extra values that are looked at in one request."""


class Decider(Protocol):
    """Whether one may."""

    async def decide(self, who: Identity, what: RequestInfo) -> Decision:
        """As ``hooks.Authorizer``."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """In whose name a request is asked, as its headers say."""

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]]

    @property
    def only_name(self) -> bool:
        """Whether nothing but the name is asked for."""
        return not (self.uid or self.groups or self.extra)

    @property
    def account(self) -> tuple[str, str]:
        """Namespace and name if it is a service account's name, else empty texts."""
        namespace, _, name = self.name.removeprefix(ACCOUNT_PREFIX).partition(":")
        good = self.name.startswith(ACCOUNT_PREFIX) and not dns_label(namespace) and not dns_subdomain(name)
        return (namespace, name) if good else ("", "")

    @property
    def node(self) -> str:
        """The node if it is a node's name, else empty."""
        name = self.name.removeprefix(NODE_PREFIX)
        return name if name != self.name and not dns_subdomain(name) else ""


def wanted_of(headers: Mapping[str, str]) -> Wanted | None:
    """What the headers ask for, None if nothing. Raises ApiError 400."""
    name = next(iter(values_of(headers, USER)), "")
    uid = next(iter(values_of(headers, UID)), "")
    groups = tuple(values_of(headers, GROUP))
    extra: dict[str, tuple[str, ...]] = {}
    count = len(groups)
    for coded, value in prefixed(headers, EXTRA):
        key, count = unquote(coded), count + 1
        extra[key] = (*extra.get(key, ()), value)
    if count > LIMIT:
        raise bad_request(f"at most {LIMIT} groups and extra values can be impersonated in one request")
    if name:
        return Wanted(name, uid, groups, extra)
    if uid or groups or extra:
        raise bad_request(f"{USER} is missing: groups, extra and UID cannot be impersonated without a user")
    return None


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Looks at the headers of a request whose sender is known."""

    authorizer: Decider

    async def apply(self, who: Identity, what: RequestInfo, headers: Mapping[str, str]) -> Identity:
        """In whose name the request is served. Raises ApiError 400, 403."""
        wanted = wanted_of(headers)
        if wanted is None:
            return who
        if what.tenant == EVERY_TENANT:
            raise ApiError(403, "Forbidden", "impersonation is for one tenant at a time: name it in the path")
        reserved = next((g for g in wanted.groups if g.casefold().startswith(RESERVED)), "")
        if reserved:
            raise denied(who, _check(what, "impersonate", "groups", reserved), "the group is the platform's own")
        refused: ApiError | None = None
        for mode in _modes(who, wanted):
            try:
                return await self._become(mode, who, what, wanted)
            except ApiError as error:
                refused = refused or error
        assert refused is not None, "there is always a mode"
        raise refused

    async def _become(self, mode: str, who: Identity, what: RequestInfo, wanted: Wanted) -> Identity:
        """Raises ApiError 403."""
        if mode:
            await self._ask(who, replace(what, verb=f"impersonate-on:{mode}:{what.verb}"))
            _check_constrained(who, what, mode, wanted)
        found = await self._ask_name(mode, who, what, wanted)
        verb = _verb(mode)
        if wanted.uid:
            await self._ask(who, _check(what, verb, "uids", wanted.uid, constrained=True))
        await self._ask_groups(mode, who, what, wanted)
        await self._ask_extra(mode, who, what, wanted)
        return found

    async def _ask(self, who: Identity, check: RequestInfo) -> None:
        decision = await self.authorizer.decide(who, check)
        if not decision.allowed:
            raise denied(who, check, decision.reason)

    async def _ask_name(self, mode: str, who: Identity, what: RequestInfo, wanted: Wanted) -> Identity:
        namespace, account = wanted.account
        node = wanted.node if mode in {"associated-node", "arbitrary-node"} else ""
        groups = wanted.groups
        check = _check(what, _verb(mode), "users", wanted.name, constrained=bool(mode))
        if node:
            groups = (NODES,)
            check = replace(check, resource="nodes", name="*" if mode == "associated-node" else node)
        elif account:
            groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
            check = replace(check, resource="serviceaccounts", namespace=namespace, name=account)
        await self._ask(who, check)
        return _identity(who, what, wanted, groups)

    async def _ask_groups(self, mode: str, who: Identity, what: RequestInfo, wanted: Wanted) -> None:
        check = _check(what, _verb(mode), "groups", "", constrained=bool(mode))
        everyone = mode and len(wanted.groups) >= MANY
        if everyone and (await self.authorizer.decide(who, replace(check, name="*"))).allowed:
            return
        for group in wanted.groups:
            await self._ask(who, replace(check, name=group))

    async def _ask_extra(self, mode: str, who: Identity, what: RequestInfo, wanted: Wanted) -> None:
        check = _check(what, _verb(mode), "userextras", "", constrained=True)
        pairs = [(key, value) for key, values in wanted.extra.items() for value in values]
        everything = replace(check, subresource="*", name="*")
        if mode and len(pairs) >= MANY and (await self.authorizer.decide(who, everything)).allowed:
            return
        for key, value in pairs:
            await self._ask(who, replace(check, subresource=key, name=value))


def _modes(who: Identity, wanted: Wanted) -> list[str]:
    """The modes that may apply, the older one (empty) last."""
    modes = []
    if wanted.only_name and wanted.node:
        if who.role is Role.SERVICE_ACCOUNT and who.extra.get(NODE_NAME) == (wanted.node,):
            modes.append("associated-node")
        modes.append("arbitrary-node")
    elif wanted.only_name and wanted.account[1]:
        modes.append("serviceaccount")
    elif not wanted.node and not wanted.account[1]:
        modes.append("user-info")
    return [*modes, ""]


def _verb(mode: str) -> str:
    return f"impersonate:{mode}" if mode else "impersonate"


def _check(what: RequestInfo, verb: str, resource: str, name: str, *, constrained: bool = False) -> RequestInfo:
    """What is asked of the authorizer. Users and groups are in the core group for the older verb only."""
    group = "authentication.k8s.io" if constrained else ""
    return RequestInfo(what.tenant, verb, "", group, "v1", resource, name=name)


def _check_constrained(who: Identity, what: RequestInfo, mode: str, wanted: Wanted) -> None:
    """What only the older verb may. Raises ApiError 403."""
    problem = ""
    if "" in wanted.groups:
        problem = "impersonating the empty string group is not allowed"
    elif MASTERS in wanted.groups:
        problem = "impersonating the system:masters group is not allowed"
    if problem:
        check = _check(what, _verb(mode), "groups", MASTERS if MASTERS in wanted.groups else "", constrained=True)
        raise denied(who, check, problem)
    for key, values in wanted.extra.items():
        domain, slash, rest = key.partition("/")
        if not (slash and rest and not dns_subdomain(domain)) or "" in values:
            check = _check(what, _verb(mode), "userextras", "", constrained=True)
            raise denied(who, check, f"impersonating the extra key {key!r} or its values is not allowed")


def _identity(who: Identity, what: RequestInfo, wanted: Wanted, groups: tuple[str, ...]) -> Identity:
    """Who it is then: of the tenant that is asked. Only in ``root`` a node's name with the nodes' group is a node."""
    if wanted.name == "system:anonymous":
        groups = groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED)
        role = Role.NONE
    else:
        role = Role.SERVICE_ACCOUNT if wanted.account[1] else Role.USER
        if UNAUTHENTICATED not in groups and AUTHENTICATED not in groups:
            groups = (*groups, AUTHENTICATED)
    node = wanted.node if what.tenant == ROOT and NODES in groups else ""
    if node:
        role = Role.NODE
    return Identity(wanted.name, role, what.tenant, groups, wanted.uid, node, dict(wanted.extra), who)
