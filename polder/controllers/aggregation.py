"""ClusterRoles with an aggregation rule have the rules of the roles that it selects, in every tenant."""

from __future__ import annotations

import msgspec

from polder.api.clusterroles import ClusterRole
from polder.api.labelselector import matcher_of
from polder.api.rbac import PolicyRule
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.reading import find


class AggregationController:
    """Reconciles a ClusterRole; key: its reference."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. Raises ApiError."""
        role = await find(self._client, ClusterRole, ref)
        if role is None or role.aggregation_rule is None or role.metadata.deletion_timestamp is not None:
            return None
        selectors = role.aggregation_rule.cluster_role_selectors or ()
        matchers = [matcher_of(msgspec.to_builtins(selector)) for selector in selectors]
        rules: list[PolicyRule] = []
        for other in sorted((await self._client.list(ClusterRole, ref.tenant)).items, key=lambda r: r.metadata.name):
            labels = other.metadata.labels or {}
            if other.metadata.name != ref.name and any(matcher.matches_labels(labels) for matcher in matchers):
                rules += [rule for rule in other.rules or () if rule not in rules]
        if rules != (role.rules or []):
            meta = {"uid": role.metadata.uid, "resourceVersion": role.metadata.resource_version}
            await self._client.patch(ClusterRole, ref, {"metadata": meta, "rules": msgspec.to_builtins(rules)})
        return None
