"""What a node may not make of its own Node: the taints, labels and owners by which others decide what runs there.

A machine that is taken over could otherwise take off the taint that keeps pods away, or put on the label that draws them.
Follows upstream's admission plug-in NodeRestriction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from polder.api.core import Node
from polder.api.errors import forbidden
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.types import Role

NODES: Final = kind_of(Node)
OWN_LABELS: Final = frozenset(
    {
        "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch", "beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    }
)  # fmt: skip
"""Of Kubernetes' own labels, those that a node says of itself."""
_OWN: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KEPT: Final = "node-restriction.kubernetes.io"


@dataclass(frozen=True, slots=True)
class NodeRestriction:
    """The hook; nothing for anybody but nodes."""

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if context.who.role is not Role.NODE or context.obj is None or context.resource.kind.resource != NODES.resource:
            return
        for problem in problems(context.who.node, context.old, context.obj):
            raise forbidden(NODES, context.name, problem)


def problems(node: str, old: Raw | None, new: Raw) -> Iterator[str]:
    """Why a Node, written by the node itself, is refused. A node that joins brings no owners, and taints as it likes."""
    if old is not None and _part(old, "spec", "taints") != _part(new, "spec", "taints"):
        yield f'node "{node}" is not allowed to modify taints'
    if _part(old or {}, "metadata", "ownerReferences") != _part(new, "metadata", "ownerReferences"):
        yield f'node "{node}" is not allowed to modify ownerReferences'
    before, after = (_part(obj, "metadata", "labels") or {} for obj in (old or {}, new))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    if refused := sorted(key for key in changed if not is_own(key)):
        yield f'node "{node}" is not allowed to modify labels: {", ".join(refused)}'


def is_own(label: str) -> bool:
    """Whether a node may say the label of itself: those of nobody's, and of Kubernetes' some."""
    space, slash, _ = label.partition("/")
    if not slash or label in OWN_LABELS:
        return True
    if _within(space, _KEPT):
        return False
    return not (_within(space, "kubernetes.io") or _within(space, "k8s.io")) or any(_within(space, s) for s in _OWN)


def _within(space: str, suffix: str) -> bool:
    return space == suffix or space.endswith(f".{suffix}")


def _part(obj: Raw, part: str, field: str) -> Any:
    return (obj.get(part) or {}).get(field) or None
