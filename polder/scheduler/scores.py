"""Which of the nodes that will do is the best: upstream's default plug-ins and their weights, each 0 to 100."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

from polder.base.ids import ROOT
from polder.scheduler import around, spread
from polder.scheduler.cluster import Cluster, Usage
from polder.scheduler.demand import Demand, Shape
from polder.scheduler.filters import Question
from polder.scheduler.nodes import NodeFacts

TAINTS, AFFINITY, SPREAD, AROUND, FIT, BALANCE, IMAGES = 3, 2, 2, 2, 1, 1, 1
"""Weights: TaintToleration, NodeAffinity, PodTopologySpread, InterPodAffinity, NodeResourcesFit,
NodeResourcesBalancedAllocation, ImageLocality.
"""
MB: Final = 1024 * 1024
_SMALL, _LARGE = 23 * MB, 1000 * MB
"""Bytes of images, per container, below which they count for nothing and above which for no more."""


def best(question: Question, fitting: list[NodeFacts]) -> str:
    """The node with the highest score; equal scores are broken by a hash, so that nothing piles up on one."""
    if len(fitting) == 1:
        return fitting[0].name
    demand, cluster = question.demand, question.cluster
    total = totals(question, fitting)

    def key(node: NodeFacts) -> tuple[int, int, int]:
        tie = zlib.crc32(f"{demand.uid}/{node.name}".encode())
        return total[node.name], -cluster.usage(node.name).pods, tie

    return max(fitting, key=key).name


def totals(question: Question, fitting: list[NodeFacts]) -> dict[str, int]:
    """The weighted sums."""
    demand, cluster, answer = question.demand, question.cluster, question.answer
    shape = demand.shape
    total = {n.name: _room(shape, n, cluster.usage(n.name)) for n in fitting}
    if answer.shunned:
        most = max(answer.shunned.get(name, 0) for name in total)
        for name in total:
            total[name] += TAINTS * (100 - 100 * answer.shunned.get(name, 0) // most if most else 100)
    if answer.preferred:
        most = max(answer.preferred.get(name, 0) for name in total)
        for name in total if most else ():
            total[name] += AFFINITY * (100 * answer.preferred.get(name, 0) // most)
    for name, score in spread.scores(shape, cluster, question.view, answer, fitting).items():
        total[name] += SPREAD * score
    for name, score in _near(question, fitting).items():
        total[name] += AROUND * score
    for name, score in _images(demand, cluster, fitting).items():
        total[name] += IMAGES * score
    return total


def _room(shape: Shape, node: NodeFacts, usage: Usage) -> int:
    """Least allocated, and balanced: of CPU and memory."""
    cpu, memory = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
    least = _least((usage.scored_cpu + shape.scored[0], cpu), (usage.scored_memory + shape.scored[1], memory))
    wanted_cpu, wanted_memory = shape.requests.get("cpu", 0), shape.requests.get("memory", 0)
    if not wanted_cpu and not wanted_memory:
        return FIT * least  # of pods that ask for nothing many would go to one node
    used_cpu, used_memory = usage.requests["cpu"], usage.requests["memory"]
    before = _balance(used_cpu, cpu, used_memory, memory)
    after = _balance(used_cpu + wanted_cpu, cpu, used_memory + wanted_memory, memory)
    return FIT * least + BALANCE * (50 + (50 + after - before) // 2)


def _least(*parts: tuple[int, int]) -> int:
    found = [0 if used > have else (have - used) * 100 // have for used, have in parts if have]
    return sum(found) // len(found) if found else 0


def _balance(used_cpu: int, cpu: int, used_memory: int, memory: int) -> int:
    if not cpu or not memory:
        return 100
    return int((1 - abs(min(1.0, used_cpu / cpu) - min(1.0, used_memory / memory)) / 2) * 100)


def _near(question: Question, fitting: list[NodeFacts]) -> dict[str, int]:
    """Affinity between pods, spread over 0 to 100."""
    leanings = around.leanings(question.demand.shape, question.cluster, question.view)
    if not any(leanings.values()):
        return {}
    sums = {n.name: sum(_at(values, n.labels.get(key)) for key, values in leanings.items()) for n in fitting}
    least, most = min(sums.values()), max(sums.values())
    return {name: 100 * (value - least) // (most - least) for name, value in sums.items()} if most > least else {}


def _at(values: Mapping[str, int], value: str | None) -> int:
    return 0 if value is None else values.get(value, 0)


def _images(demand: Demand, cluster: Cluster, fitting: list[NodeFacts]) -> dict[str, int]:
    """Image locality. A tenant's pods are drawn only to images that the tenant's own pods use there: where others' are is not
    to be found out.
    """
    images = [_named(image) for image in demand.shape.images]
    if not images:
        return {}
    least, most = _SMALL, _LARGE * len(images)
    found = {}
    spreads = {image: _share(image, fitting) for image in images}
    for node in fitting:
        size = 0
        for given, image in zip(demand.shape.images, images, strict=True):
            if image in node.images and _is_known(demand, cluster, given, node.name):
                size += int(node.images[image] * spreads[image])
        if size:
            found[node.name] = 100 * (min(max(size, least), most) - least) // (most - least)
    return found


def _share(image: str, fitting: list[NodeFacts]) -> float:
    """Of the nodes that will do, how many have the image: one that a single node has does not draw all pods there."""
    return sum(image in n.images for n in fitting) / len(fitting)


def _is_known(demand: Demand, cluster: Cluster, image: str, node: str) -> bool:
    return demand.tenant == ROOT or node in cluster.images.get((demand.tenant, image), ())


def _named(image: str) -> str:
    """With its tag, as nodes report it."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
