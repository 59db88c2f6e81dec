"""Of a node, what the scheduler looks at: names and meanings are those of core/v1."""

from __future__ import annotations

from polder.api.core import NodeSpec
from polder.api.meta import Object, Struct
from polder.api.podspec import Toleration


class NodeImage(Struct, frozen=True, kw_only=True):
    """An image that a node has."""

    names: list[str] | None = None
    size_bytes: int = 0


class ClassScheduling(Struct, frozen=True, kw_only=True):
    """On which nodes a RuntimeClass's pods run, and what they bear."""

    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None


class RuntimeClassFacts(Object, frozen=True, kw_only=True):
    """Of a RuntimeClass, what the scheduler looks at."""

    scheduling: ClassScheduling | None = None


class ConditionStatus(Struct, frozen=True, kw_only=True):
    """A condition without reason, message and times, so that a heartbeat changes nothing."""

    type: str
    status: str


class ScheduledNodeStatus(Struct, frozen=True, kw_only=True):
    """What a node has to give."""

    capacity: dict[str, str | int] | None = None
    allocatable: dict[str, str | int] | None = None
    conditions: list[ConditionStatus] | None = None
    images: list[NodeImage] | None = None


class ScheduledNode(Object, frozen=True, kw_only=True):
    """A node as the scheduler's cache has it."""

    spec: NodeSpec = NodeSpec()
    status: ScheduledNodeStatus = ScheduledNodeStatus()
