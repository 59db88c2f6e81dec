"""The core/v1 kinds that Polder's own components read: the fields that they use, under upstream's names.

Components write through patches or create whole objects, so a field missing here is never lost.
"""

from __future__ import annotations

import msgspec

from polder.api.meta import Condition, Object, Struct
from polder.api.podspec import PodSpec, Resources


class PodIP(Struct, frozen=True, kw_only=True):
    """One address of a pod."""

    ip: str


class ContainerStateRunning(Struct, frozen=True, kw_only=True):
    """Running since."""

    started_at: str | None = None


class ContainerStateWaiting(Struct, frozen=True, kw_only=True):
    """Not running yet, and why."""

    reason: str = ""
    message: str = ""


class ContainerStateTerminated(Struct, frozen=True, kw_only=True):
    """Ended, and how."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class ContainerState(Struct, frozen=True, kw_only=True):
    """One of three."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Struct, frozen=True, kw_only=True):
    """One container of a pod as it is."""

    name: str
    state: ContainerState | None = None
    last_state: ContainerState | None = None
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    allocated_resources: dict[str, str | int | float] | None = None
    resources: Resources | None = None


class PodCondition(Struct, frozen=True, kw_only=True):
    """core/v1 PodCondition."""

    type: str
    status: str
    observed_generation: int = 0
    reason: str = ""
    message: str = ""
    last_probe_time: str | None = None
    last_transition_time: str | None = None


class PodStatus(Struct, frozen=True, kw_only=True):
    """What is known of a pod."""

    observed_generation: int = 0
    phase: str = "Pending"
    conditions: list[PodCondition] | None = None
    message: str = ""
    reason: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    host_ips: list[PodIP] | None = msgspec.field(default=None, name="hostIPs")
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIP] | None = msgspec.field(default=None, name="podIPs")
    start_time: str | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None
    qos_class: str = ""
    allocated_resources: dict[str, str | int | float] | None = None
    resources: Resources | None = None


class Pod(Object, frozen=True, kw_only=True):
    """core/v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Taint(Struct, frozen=True, kw_only=True):
    """What keeps pods off a node."""

    key: str
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(Struct, frozen=True, kw_only=True):
    """What is wanted of a node."""

    unschedulable: bool = False
    taints: list[Taint] | None = None
    provider_id: str = msgspec.field(default="", name="providerID")


class NodeAddress(Struct, frozen=True, kw_only=True):
    """InternalIP, Hostname …"""

    type: str
    address: str


class NodeCondition(Struct, frozen=True, kw_only=True):
    """core/v1 NodeCondition."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None


class NodeImage(Struct, frozen=True, kw_only=True):
    """An image that a node has."""

    names: list[str] = []
    size_bytes: int = 0


class RuntimeHandler(Struct, frozen=True, kw_only=True):
    """What a RuntimeClass may name as its handler; empty is the default one."""

    name: str = ""


class NodeStatus(Struct, frozen=True, kw_only=True):
    """What is known of a node."""

    capacity: dict[str, str | int] | None = None
    allocatable: dict[str, str | int] | None = None
    conditions: list[NodeCondition] | None = None
    addresses: list[NodeAddress] | None = None
    node_info: dict[str, str] | None = None
    images: list[NodeImage] | None = None
    runtime_handlers: list[RuntimeHandler] | None = None


class Node(Object, frozen=True, kw_only=True):
    """core/v1 Node."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NamespaceSpec(Struct, frozen=True, kw_only=True):
    """What is wanted of a namespace."""

    finalizers: list[str] | None = None


class NamespaceStatus(Struct, frozen=True, kw_only=True):
    """What is known of a namespace."""

    phase: str = "Active"
    conditions: list[Condition] | None = None


class Namespace(Object, frozen=True, kw_only=True):
    """core/v1 Namespace."""

    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class ConfigMap(Object, frozen=True, kw_only=True):
    """core/v1 ConfigMap; binary data is base64 text."""

    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None


class Secret(Object, frozen=True, kw_only=True):
    """core/v1 Secret; data is base64 text."""

    data: dict[str, str] | None = None
    type: str = "Opaque"
    immutable: bool | None = None


class ServiceAccount(Object, frozen=True, kw_only=True):
    """core/v1 ServiceAccount."""

    automount_service_account_token: bool | None = None
    image_pull_secrets: list[dict[str, str]] | None = None


class ServicePort(Struct, frozen=True, kw_only=True):
    """One port of a service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0
    node_port: int = 0
    app_protocol: str | None = None


class ClientIpConfig(Struct, frozen=True, kw_only=True):
    """How long, in seconds, a client stays with the endpoint that it had."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Struct, frozen=True, kw_only=True):
    """Session affinity by the client's address."""

    client_ip: ClientIpConfig | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """What a service offers."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None
    publish_not_ready_addresses: bool = False
    ip_families: list[str] | None = None
    ip_family_policy: str | None = None
    external_name: str = ""
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    session_affinity: str = ""
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    load_balancer_class: str | None = None
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_source_ranges: list[str] | None = None
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int = 0


class LoadBalancerIngress(Struct, frozen=True, kw_only=True):
    """An address at which a load balancer answers. ``ip_mode`` is VIP or Proxy."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(Struct, frozen=True, kw_only=True):
    """Where a load balancer answers."""

    ingress: list[LoadBalancerIngress] | None = None


class ServiceStatus(Struct, frozen=True, kw_only=True):
    """What is known of a service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: list[Condition] | None = None


class Service(Object, frozen=True, kw_only=True):
    """core/v1 Service."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class ObjectReference(Struct, frozen=True, kw_only=True):
    """What an event is about, or what a binding points to."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class EventSource(Struct, frozen=True, kw_only=True):
    """Who reports."""

    component: str = ""
    host: str = ""


class Event(Object, frozen=True, kw_only=True):
    """core/v1 Event."""

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    """Normal or Warning. (No default: what equals a default is left out on the wire, and nobody fills this in.)"""
    source: EventSource = EventSource()
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    count: int = 0
    reporting_component: str = ""
    reporting_instance: str = ""
    action: str = ""


class Binding(Object, frozen=True, kw_only=True):
    """core/v1 Binding: the answer of the scheduler for one pod."""

    target: ObjectReference = ObjectReference()
