"""ClusterRole (rbac.authorization.k8s.io/v1) as controllers write it."""

from __future__ import annotations

from polder.api.meta import Object
from polder.api.rbac import AggregationRule, PolicyRule


class ClusterRole(Object, frozen=True, kw_only=True):
    """Rights; one with an aggregation rule has those of the roles that the rule selects."""

    rules: list[PolicyRule] | None = None
    aggregation_rule: AggregationRule | None = None
