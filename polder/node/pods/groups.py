"""The control groups of a node's pods: one of the node, in it one of each class of quality below Guaranteed, and one of each
pod. What runs in none of the upper ones is limited by them all the same, so that no class starves the others.
"""

from __future__ import annotations

from dataclasses import replace

from polder.api.core import Pod
from polder.node.pods.context import Context
from polder.node.pods.resources import MIN_SHARES, pod_limits, shares
from polder.system.cri_types import Resources


def ensure_groups(ctx: Context, pod: Pod) -> None:
    """Makes the pod's group, with its limits, and those around it."""
    share_classes(ctx)
    ctx.cgroups.ensure(ctx.places.pod_cgroup(pod), pod_limits(pod))
    ctx.cgroups.limit_processes(ctx.places.cgroup)


def share_classes(ctx: Context) -> None:
    """Burstable pods together have what they requested of the CPU, BestEffort ones what is left."""
    _, burstable, best_effort = ctx.places.classes
    ctx.cgroups.share(burstable, shares(ctx.room.burstable_cpu))
    ctx.cgroups.share(best_effort, MIN_SHARES)


def without_swap(ctx: Context, limits: Resources) -> Resources:
    """The limits of a container with none to swap beyond: memory and swap together are what memory is."""
    return replace(limits, memory_swap=limits.memory if ctx.cgroups.swap_accounted else 0)
