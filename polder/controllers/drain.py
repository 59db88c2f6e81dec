"""Emptying a namespace: what is deleted when, and the words for what remains (upstream's namespace controller).

Pods go first and alone: what they use must outlive them. Addresses are never deleted here: an address is free when the
link that holds it is gone, and that only the node's agent or the sweeper knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import Condition, Object
from polder.api.polder import Address
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.conditions import a_few
from polder.controllers.elsewhere import ask
from polder.controllers.internal import contents
from polder.controllers.resources import Resource, delete_collection, delete_object, list_objects, serves

PODS = kind_of(Pod).resource
NAMED: Final = 10
"""Troubles that one condition names; of the others it says how many there are."""
FREED_ELSEWHERE = frozenset({kind_of(Address).resource})


@dataclass(slots=True)
class Remains:
    """What is left: objects per resource, objects per finalizer, and errors in words."""

    objects: Counter[str] = field(default_factory=Counter)
    finalizers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything remains or could not be looked at."""
        return bool(self.objects or self.errors)

    def add(self, resource: Resource, objects: Iterable[Object]) -> None:
        """Counts what is left of one resource."""
        for obj in objects:
            self.objects[resource.name] += 1
            self.finalizers.update(obj.metadata.finalizers or ())


@dataclass(frozen=True, slots=True)
class Found:
    """What a namespace in deletion may hold: resources with rows, resources that servers of the tenant's own serve, and the
    group versions of which such a server did not say what it serves.
    """

    rows: tuple[Resource, ...]
    elsewhere: tuple[Resource, ...] = ()
    failed: tuple[str, ...] = ()


async def look(client: Client, tenant: TenantName, namespace: str, seconds: float) -> Found:
    """What may be in the namespace; servers of the tenant's own have so many seconds to say. Raises ApiError."""
    found = await contents(client, tenant, namespace)
    said = await ask({g: partial(serves, client, tenant, g) for g in found.aggregated}, seconds)
    elsewhere = (resource for group in sorted(said.given) for resource in said.given[group])
    return Found(tuple(found.counts), tuple(elsewhere), tuple(sorted(said.failed)))


async def drain(client: Client, tenant: TenantName, namespace: str, found: Found, seconds: float) -> Remains:
    """Asks for the deletion of everything in the namespace that may go now; what remains after that. Servers of the tenant's
    own have so many seconds.
    """
    inside = sorted((r for r in found.rows if r.namespaced), key=lambda r: r.name != PODS)
    remains = Remains()
    for resource in inside:
        if resource.name != PODS and remains.objects[PODS]:
            return remains
        try:
            remains.add(resource, await _empty(client, tenant, namespace, resource))
        except ApiError as error:
            remains.errors.append(f"{resource.name}: {error.message}")
    resources = {f"{r.name}/{r.version}": r for r in found.elsewhere if r.namespaced}
    left = await ask({n: partial(_empty, client, tenant, namespace, r) for n, r in resources.items()}, seconds)
    for name, objects in left.given.items():
        remains.add(resources[name], objects)
    remains.errors += [f"{resources[name].name}: {error}" for name, error in sorted(left.failed.items())]
    return remains


async def _empty(client: Client, tenant: TenantName, namespace: str, resource: Resource) -> list[Object]:
    found = await list_objects(client, tenant, resource, namespace)
    if resource.name in FREED_ELSEWHERE or all(o.metadata.deletion_timestamp for o in found):
        return found
    await delete_collection(client, tenant, resource, namespace)
    left = await list_objects(client, tenant, resource, namespace)
    spared = [o for o in left if o.metadata.deletion_timestamp is None]
    for obj in spared:  # a collection's deletion leaves out what lasts as long as its tenant
        await delete_object(client, resource, Ref(tenant, namespace, obj.metadata.name), obj)
    return await list_objects(client, tenant, resource, namespace) if spared else left


_WORDS = (
    (
        "NamespaceDeletionDiscoveryFailure",
        ("DiscoveryFailed", "ResourcesDiscovered", "All resources successfully discovered"),
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        ("GroupVersionParsingFailed", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    ),
    (
        "NamespaceDeletionContentFailure",
        ("ContentDeletionFailed", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    ),
    (
        "NamespaceContentRemaining",
        ("SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
    ),
    (
        "NamespaceFinalizersRemaining",
        ("SomeFinalizersRemain", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    ),
)
"""Type, and the reason with trouble, the reason without, the message without."""
FAILURES: Final = frozenset({"NamespaceDeletionDiscoveryFailure", "NamespaceDeletionContentFailure"})
"""The types that say that something could not be asked."""


def conditions(found: Found, remains: Remains) -> list[Condition]:
    """The five conditions of a namespace in deletion, worded as upstream."""
    failed = found.failed
    troubles = (
        f"Discovery failed for some groups, {len(failed)} failing: {a_few(failed, NAMED)}" if failed else "",
        "",  # every group version that discovery names can be parsed
        a_few(remains.errors, NAMED, "; "),
        _remaining("Some resources are remaining: ", "{name} has {count} resource instances", remains.objects),
        _remaining(
            "Some content in the namespace has finalizers remaining: ",
            "{name} in {count} resource instances",
            remains.finalizers,
        ),
    )
    return [_condition(name, trouble, words) for (name, words), trouble in zip(_WORDS, troubles, strict=True)]


def _remaining(before: str, form: str, counts: Mapping[str, int]) -> str:
    parts = [form.format(name=name, count=count) for name, count in sorted(counts.items())]
    return before + a_few(parts, NAMED) if parts else ""


def _condition(name: str, trouble: str, words: tuple[str, str, str]) -> Condition:
    bad, good, message = words
    if trouble:
        return Condition(type=name, status="True", reason=bad, message=trouble)
    return Condition(type=name, status="False", reason=good, message=message)
