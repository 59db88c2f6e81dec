"""PodSpec and its parts: core/v1 as Polder's own components read it: the fields that they use, under upstream's names.

Components write through patches or create whole objects, so a field missing here is never lost.
"""

from __future__ import annotations

from typing import Any

import msgspec

from polder.api.lifecycle import Lifecycle, Probe, RestartRule
from polder.api.meta import Struct
from polder.api.podvolumes import FieldRef, ResourceFieldRef, Volume


class KeyRef(Struct, frozen=True, kw_only=True):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class FileKeyRef(Struct, frozen=True, kw_only=True):
    """A variable of a file in a volume of the pod."""

    volume_name: str = ""
    path: str = ""
    key: str = ""
    optional: bool = False


class EnvVarSource(Struct, frozen=True, kw_only=True):
    """Where an environment variable's value comes from."""

    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None
    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    file_key_ref: FileKeyRef | None = None


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
    host_ip: str = msgspec.field(default="", name="hostIP")


class Resources(Struct, frozen=True, kw_only=True):
    """Requests and limits as quantities (text or number)."""

    requests: dict[str, str | int | float] | None = None
    limits: dict[str, str | int | float] | None = None


class ResizePolicy(Struct, frozen=True, kw_only=True):
    """What a change of a resource does to a running container: NotRequired or RestartContainer."""

    resource_name: str
    restart_policy: str


class VolumeMount(Struct, frozen=True, kw_only=True):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str = ""
    recursive_read_only: str = ""


class Capabilities(Struct, frozen=True, kw_only=True):
    """Linux capabilities added and dropped."""

    add: list[str] | None = None
    drop: list[str] | None = None


class Profile(Struct, frozen=True, kw_only=True):
    """A seccomp or AppArmor profile: RuntimeDefault, Unconfined or Localhost with the profile's name."""

    type: str = ""
    localhost_profile: str = ""


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
    proc_mount: str = ""
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None


class PodSecurityContext(Struct, frozen=True, kw_only=True):
    """A pod's security settings."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: list[int] | None = None
    sysctls: list[dict[str, str]] | None = None
    se_linux_options: dict[str, str] | None = None
    supplemental_groups_policy: str = ""
    fs_group_change_policy: str = ""
    seccomp_profile: Profile | None = None
    app_armor_profile: Profile | None = None


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
    resize_policy: list[ResizePolicy] | None = None
    volume_mounts: list[VolumeMount] | None = None
    security_context: SecurityContext | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    restart_policy: str = ""
    restart_policy_rules: list[RestartRule] | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class EphemeralContainer(Container, frozen=True, kw_only=True):
    """A container added to a pod that runs, to look into it (KEP-277)."""

    target_container_name: str = ""


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


class ReadinessGate(Struct, frozen=True, kw_only=True):
    """A condition, written by somebody else, that a pod must have to be ready (KEP-580)."""

    condition_type: str


class SecretName(Struct, frozen=True, kw_only=True):
    """A Secret of the same namespace."""

    name: str = ""


class PodSpec(Struct, frozen=True, kw_only=True):
    """What a pod runs."""

    containers: list[Container] = []
    init_containers: list[Container] | None = None
    ephemeral_containers: list[EphemeralContainer] | None = None
    volumes: list[Volume] | None = None
    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[Toleration] | None = None
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    readiness_gates: list[ReadinessGate] | None = None
    image_pull_secrets: list[SecretName] | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool | None = msgspec.field(default=None, name="setHostnameAsFQDN")
    hostname_override: str | None = None
    host_users: bool | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: PodDnsConfig | None = None
    enable_service_links: bool | None = None
    scheduler_name: str = "default-scheduler"
    runtime_class_name: str = ""
    overhead: dict[str, str | int | float] | None = None
    resources: Resources | None = None
    security_context: PodSecurityContext | None = None
    share_process_namespace: bool | None = None
    priority: int | None = None
    host_aliases: list[dict[str, Any]] | None = None
