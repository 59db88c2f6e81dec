"""Which policies select which ports: an index over policies and groups, so that a change concerns only whom it is about."""

from __future__ import annotations

from collections.abc import Iterable

from polder.sdn.topology.policies import NETWORK, Group, Policy


class Selected:
    """Policies by tenant and subject, groups by member."""

    def __init__(self) -> None:
        self._policies: dict[tuple[str, str], dict[str, Policy]] = {}
        self._members: dict[tuple[str, str], frozenset[str]] = {}
        self._groups: dict[tuple[str, str], set[str]] = {}
        self._names: dict[str, set[tuple[str, str]]] = {}

    def put(self, part: Policy | Group, present: bool) -> None:
        """Take a part, or take it back."""
        names = self._names.setdefault(part.tenant, set())
        if present:
            names.add((type(part).__name__, part.name))
        else:
            names.discard((type(part).__name__, part.name))
            if not names:
                del self._names[part.tenant]
        if isinstance(part, Policy):
            self._put_policy(part, present)
        else:
            self._put_group(part, present)

    def names(self, tenant: str) -> Iterable[tuple[str, str]]:
        """Type and name of every policy and group of a tenant."""
        return self._names.get(tenant, set())

    def of(self, tenant: str, port: str) -> list[Policy]:
        """The policies that select a port, in order."""
        groups = self._groups.get((tenant, port), ())
        found = [policy for group in groups for policy in self._policies.get((tenant, group), {}).values()]
        return sorted(found, key=lambda one: one.order)

    def ports(self, old: Policy | Group | None, new: Policy | Group | None) -> Iterable[str]:
        """The ports whose way a change alters. A NetworkPolicy of which only rules are new has them in chains of its own."""
        one = new or old
        if one is None:
            return ()
        if isinstance(one, Group):
            if (one.tenant, one.id) not in self._policies:
                return ()
            before, after = (_ports(group) for group in (old, new))
            return before ^ after
        known = [policy for policy in (old, new) if isinstance(policy, Policy)]
        selections = {(policy.tier, policy.subject, policy.isolates) for policy in known}
        if len(known) == 2 and len(selections) == 1 and one.tier == NETWORK:
            return ()
        return set[str]().union(*(self._members.get((policy.tenant, policy.subject), ()) for policy in known))

    def _put_policy(self, policy: Policy, present: bool) -> None:
        at = (policy.tenant, policy.subject)
        if present:
            self._policies.setdefault(at, {})[policy.name] = policy
            return
        del self._policies[at][policy.name]
        if not self._policies[at]:
            del self._policies[at]

    def _put_group(self, group: Group, present: bool) -> None:
        ports = _ports(group)
        if present:
            self._members[group.tenant, group.id] = ports
        else:
            self._members.pop((group.tenant, group.id), None)
        for port in ports:
            at = (group.tenant, port)
            groups = self._groups.setdefault(at, set())
            if present:
                groups.add(group.id)
                continue
            groups.discard(group.id)
            if not groups:
                del self._groups[at]


def _ports(group: Policy | Group | None) -> frozenset[str]:
    return frozenset(one.port for one in group.members if one.port) if isinstance(group, Group) else frozenset()
