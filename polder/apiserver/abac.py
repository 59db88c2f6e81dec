"""Attribute-based access control from a file of the platform: one JSON object per line, as upstream's ABAC mode has it.

Polder's addition is ``spec.tenant``: the tenant that the line is about, ``*`` for every one; without it, ``root``. A line
that names a tenant lets the platform's users whom it names into that tenant.
Source: the documentation of ABAC in Kubernetes, group ``abac.authorization.kubernetes.io``, version ``v1beta1``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from polder.api.meta import Struct
from polder.api.rbac import PolicyRule, url_covers
from polder.apiserver.asker import SYSTEM, Asker
from polder.apiserver.types import Decision, Identity, RequestInfo, Role
from polder.base.errors import PermanentError
from polder.base.ids import ROOT

log = logging.getLogger(__name__)

API_VERSION: Final = "abac.authorization.kubernetes.io/v1beta1"
ANY: Final = "*"
_READ: Final = ("get", "list", "watch")
_POLL: Final = 2.0
"""Seconds between two looks at the file."""


class AbacError(PermanentError):
    """A policy file that cannot be used, and which line."""


class AbacSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may what. Empty fields match nothing; ``*`` matches everything."""

    user: str = ""
    group: str = ""
    readonly: bool = False
    api_group: str = ""
    resource: str = ""
    namespace: str = ""
    non_resource_path: str = ""
    tenant: str = ROOT

    def is_for(self, name: str, groups: Sequence[str]) -> bool:
        """Whether somebody is meant: by user and, if both are said, by group too."""
        if not self.user and not self.group:
            return False
        by_name = not self.user or self.user in {ANY, name}
        return by_name and (not self.group or self.group == ANY or self.group in groups)

    def allows(self, what: RequestInfo) -> bool:
        """Whether the request, by somebody who is meant, is allowed."""
        if self.readonly and what.verb not in _READ:
            return False
        if not what.is_resource:
            return self.non_resource_path == ANY or bool(
                self.non_resource_path and url_covers(self.non_resource_path, what.path)
            )
        pairs = ((self.namespace, what.namespace), (self.resource, what.resource), (self.api_group, what.group))
        return bool(self.resource) and all(said in {ANY, asked} for said, asked in pairs)

    def is_about(self, tenant: str) -> bool:
        """Whether the line is about a tenant."""
        return self.tenant in {ANY, tenant}


class _Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    api_version: str = ""
    kind: str = ""
    spec: AbacSpec = AbacSpec()


def parse_abac(text: str) -> tuple[AbacSpec, ...]:
    """The lines of a policy file; empty ones and those that begin with # are skipped. Raises AbacError."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            read = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            raise AbacError(f"ABAC policy, line {number}: {error}") from error
        if (read.api_version, read.kind) != (API_VERSION, "Policy"):
            raise AbacError(f"ABAC policy, line {number}: it is {read.api_version or 'unversioned'} {read.kind}, "
                            f"expected {API_VERSION} Policy")  # fmt: skip
        found.append(read.spec)
    return tuple(found)


@dataclass(slots=True)
class Abac:
    """The authorizer and the door. The file is read again when it changes; a bad one is refused and the old one stays."""

    path: Path
    policies: tuple[AbacSpec, ...] = ()
    _read: tuple[int, int] = (0, 0)

    def load(self) -> None:
        """Reads the file. Raises AbacError, OSError."""
        state = self.path.stat()
        self.policies, self._read = parse_abac(self.path.read_text()), (state.st_mtime_ns, state.st_size)

    def reload(self) -> None:
        """Reads it again if it changed; whatever is wrong goes to the log."""
        try:
            state = self.path.stat()
            if (state.st_mtime_ns, state.st_size) != self._read:
                self._read = (state.st_mtime_ns, state.st_size)
                self.load()
                log.info("ABAC policy %s is read again: %d lines", self.path, len(self.policies))
        except (AbacError, OSError, UnicodeDecodeError) as error:
            log.error("ABAC policy %s stays as it was: %s", self.path, error)  # noqa: TRY400 - the file's fault

    async def run(self) -> None:
        """Follows the file until cancelled."""
        while True:
            await asyncio.sleep(_POLL)
            await asyncio.to_thread(self.reload)

    async def decide(self, asker: Asker, what: RequestInfo) -> Decision:
        """See ``authz.Mode``."""
        for policy in self.policies:
            if policy.is_about(what.tenant) and policy.is_for(asker.name, asker.groups) and policy.allows(what):
                return Decision(True, False, "ABAC: allowed by the platform's policy file")
        return Decision(False, False, "No policy matched.")

    async def rules(self, asker: Asker, namespace: str) -> tuple[list[PolicyRule], str]:
        """See ``authz.Mode``."""
        found = []
        for policy in self.policies:
            if not policy.is_about(asker.tenant) or not policy.is_for(asker.name, asker.groups):
                continue
            verbs = _READ if policy.readonly else (ANY,)
            if policy.resource and policy.namespace in {ANY, namespace}:
                resources = (policy.resource,)
                found.append(PolicyRule(verbs=verbs, api_groups=(policy.api_group,), resources=resources))
            if policy.non_resource_path:
                found.append(PolicyRule(verbs=verbs, non_resource_urls=(policy.non_resource_path,)))
        return found, ""

    def enters(self, who: Identity, tenant: str) -> bool:
        """See ``authz.Doors``: the platform's users whom a line names."""
        if who.role is not Role.USER or who.home != ROOT or who.name.startswith(SYSTEM) or tenant == ROOT:
            return False
        return any(policy.is_about(tenant) and policy.is_for(who.name, who.groups) for policy in self.policies)
