"""What claims' volumes hold beyond what was asked for, and whose it is. Pure.

The end of a pod frees nothing of them, it only stops their growth. So what nobody's pod holds any more must not make the
node end those of others one after the other, none of which can mend that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from polder.api.meta import tenant_of
from polder.node.eviction.ranking import Candidate
from polder.node.stats.disk import Filesystem, Kept


@dataclass(frozen=True, slots=True)
class Surplus:
    """By the UID of the pods that have it, and by the tenant of which no pod has it."""

    of_pods: Mapping[str, int]
    of_tenants: Mapping[str, int]


def beyond(kept: Sequence[Kept], node: Filesystem, by_number: bool, tenants: int, living: Collection[str]) -> Surplus:
    """In bytes, or by number of files, for which bytes stand in the file system's proportion of the two. What a tenant asks for
    counts up to its part of the file system, of as many as there are tenants: claims may ask for any size.
    """
    asked: Counter[str] = Counter()
    for one in kept:
        asked[one.tenant] += one.asked
    part = node.capacity // max(1, tenants)
    of_pods, of_tenants = Counter[str](), Counter[str]()
    for one in kept:
        granted = one.asked * min(part, asked[one.tenant]) // max(1, asked[one.tenant])
        if by_number:
            granted = granted * node.inodes // max(1, node.capacity)
        more = max(0, (one.files if by_number else one.used) - granted)
        for uid in one.pods.intersection(living):
            of_pods[uid] += more
        if more and one.pods.isdisjoint(living):
            of_tenants[one.tenant] += more
    return Surplus(of_pods, of_tenants)


def may_mend(candidates: Sequence[Candidate], left: Mapping[str, int], missing: int) -> Sequence[Candidate]:
    """Of the candidates those whose end is to the point. Where what tenants ``left`` behind is the whole shortage, these are such
    tenants' own pods, and whichever frees enough by itself.
    """
    if sum(left.values()) < missing:
        return candidates
    return [one for one in candidates if tenant_of(one.pod.metadata) in left or one.used - one.kept >= missing]
