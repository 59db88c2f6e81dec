"""PodSpec and its parts: core/v1 as Polder's own components read it: the fields that they use, under upstream's names.

Components write through patches or create whole objects, so a field missing here is never lost.
"""

from __future__ import annotations

from typing import Any

import msgspec

from polder.api.meta import Struct


class KeyRef(Struct, frozen=True, kw_only=True):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class FieldRef(Struct, frozen=True, kw_only=True):
    """A field of the pod, by JSON path."""

    field_path: str
    api_version: str = "v1"


class ResourceFieldRef(Struct, frozen=True, kw_only=True):
    """A resource of a container."""

    resource: str
    container_name: str = ""
    divisor: str = "0"


class EnvVarSource(Struct, frozen=True, kw_only=True):
    """Where an environment variable's value comes from."""

    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None


class EnvVar(Struct, frozen=True, kw_only=True):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvFromRef(Struct, frozen=True, kw_only=True):
    """A ConfigMap or Secret named as a whole."""

    name: str = ""
    optional: bool = False


class EnvFrom(Struct, frozen=True, kw_only=True):
    """All keys of a ConfigMap or Secret as variables."""

    prefix: str = ""
    config_map_ref: EnvFromRef | None = None
    secret_ref: EnvFromRef | None = None


class ContainerPort(Struct, frozen=True, kw_only=True):
    """A port that a container declares."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0


class Resources(Struct, frozen=True, kw_only=True):
    """Requests and limits as quantities (text or number)."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class VolumeMount(Struct, frozen=True, kw_only=True):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""


class Capabilities(Struct, frozen=True, kw_only=True):
    """Linux capabilities added and dropped."""

    add: list[str] | None = None
    drop: list[str] | None = None


class SecurityContext(Struct, frozen=True, kw_only=True):
    """A container's security settings."""

    privileged: bool | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    se_linux_options: dict[str, str] | None = None


class PodSecurityContext(Struct, frozen=True, kw_only=True):
    """A pod's security settings."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: list[int] | None = None
    sysctls: list[dict[str, str]] | None = None
    se_linux_options: dict[str, str] | None = None


class Container(Struct, frozen=True, kw_only=True):
    """One container of a pod."""

    name: str
    image: str = ""
    image_pull_policy: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str = ""
    env: list[EnvVar] | None = None
    env_from: list[EnvFrom] | None = None
    ports: list[ContainerPort] | None = None
    resources: Resources | None = None
    volume_mounts: list[VolumeMount] | None = None
    security_context: SecurityContext | None = None
    liveness_probe: dict[str, Any] | None = None
    readiness_probe: dict[str, Any] | None = None
    startup_probe: dict[str, Any] | None = None
    lifecycle: dict[str, Any] | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    restart_policy: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class KeyToPath(Struct, frozen=True, kw_only=True):
    """A key shown at a path."""

    key: str
    path: str
    mode: int | None = None


class EmptyDir(Struct, frozen=True, kw_only=True):
    """A scratch directory of the pod."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPath(Struct, frozen=True, kw_only=True):
    """A path of the node (platform only)."""

    path: str
    type: str = ""


class ConfigMapVolume(Struct, frozen=True, kw_only=True):
    """A ConfigMap as files."""

    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class SecretVolume(Struct, frozen=True, kw_only=True):
    """A Secret as files."""

    secret_name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool = False


class SecretProjection(Struct, frozen=True, kw_only=True):
    """A Secret inside a projected volume."""

    name: str = ""
    items: list[KeyToPath] | None = None
    optional: bool = False


class TokenProjection(Struct, frozen=True, kw_only=True):
    """A service-account token inside a projected volume."""

    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class DownwardItem(Struct, frozen=True, kw_only=True):
    """A field of the pod as a file."""

    path: str
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    mode: int | None = None


class DownwardVolume(Struct, frozen=True, kw_only=True):
    """Fields of the pod as files."""

    items: list[DownwardItem] | None = None
    default_mode: int | None = None


class ProjectedSource(Struct, frozen=True, kw_only=True):
    """One source of a projected volume."""

    secret: SecretProjection | None = None
    config_map: ConfigMapVolume | None = None
    service_account_token: TokenProjection | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolume(Struct, frozen=True, kw_only=True):
    """Several sources in one directory."""

    sources: list[ProjectedSource] | None = None
    default_mode: int | None = None


class Volume(Struct, frozen=True, kw_only=True):
    """One volume of a pod; the kinds that Polder mounts. Others are refused on admission."""

    name: str
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    projected: ProjectedVolume | None = None
    downward_api: DownwardVolume | None = msgspec.field(default=None, name="downwardAPI")


class Toleration(Struct, frozen=True, kw_only=True):
    """A taint that a pod bears."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodDnsOption(Struct, frozen=True, kw_only=True):
    """One option of resolv.conf."""

    name: str = ""
    value: str | None = None


class PodDnsConfig(Struct, frozen=True, kw_only=True):
    """What a pod adds to its resolv.conf."""

    nameservers: list[str] | None = None
    searches: list[str] | None = None
    options: list[PodDnsOption] | None = None


class PodSpec(Struct, frozen=True, kw_only=True):
    """What a pod runs."""

    containers: list[Container] = []
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[Toleration] | None = None
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    hostname: str = ""
    subdomain: str = ""
    dns_policy: str = "ClusterFirst"
    dns_config: PodDnsConfig | None = None
    enable_service_links: bool | None = None
    scheduler_name: str = "default-scheduler"
    runtime_class_name: str = ""
    security_context: PodSecurityContext | None = None
    share_process_namespace: bool | None = None
    priority: int | None = None
    host_aliases: list[dict[str, Any]] | None = None
