"""The nouns of the container runtime interface (CRI v1, third_party/cri/api.proto), as frozen types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from polder.base.errors import PolderError


class RuntimeFailureError(PolderError):
    """The runtime refused or failed; ``missing`` if what was named is not there, ``away`` if nobody answered."""

    def __init__(self, message: str, *, missing: bool = False, away: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        self.away = away


class ExecTimeoutError(RuntimeFailureError):
    """A command in a container took longer than it was given, and was killed."""


class ContainerState(Enum):
    """CRI ContainerState."""

    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    """A seccomp or AppArmor profile: RuntimeDefault, Unconfined, or Localhost with a path or the profile's name."""

    type: str = "RuntimeDefault"
    localhost: str = ""


@dataclass(frozen=True, slots=True)
class Security:
    """Linux security settings of a sandbox or container. ``capabilities`` are (added, dropped). ``app_armor``: None where the
    host has none. ``strict_groups``: those that the image adds to the user are left out.
    """

    privileged: bool = False
    user: int | None = None
    group: int | None = None
    supplemental_groups: Sequence[int] = ()
    read_only_root: bool = False
    no_new_privileges: bool = False
    capabilities: tuple[Sequence[str], Sequence[str]] = ((), ())
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    shared_pid: bool = False
    masked_paths: Sequence[str] = ()
    read_only_paths: Sequence[str] = ()
    seccomp: SecurityProfile = SecurityProfile()
    app_armor: SecurityProfile | None = None
    strict_groups: bool = False
    target: str = ""
    """The container, by id, whose processes this one sees as its own."""


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """The contents of resolv.conf."""

    servers: Sequence[str] = ()
    searches: Sequence[str] = ()
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class SandboxMetadata:
    """CRI PodSandboxMetadata; the runtime holds these four together unique."""

    name: str
    namespace: str
    uid: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """CRI PodSandboxConfig."""

    metadata: SandboxMetadata
    hostname: str
    log_directory: str
    dns: DnsConfig
    cgroup_parent: str
    security: Security = Security()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resources:
    """CRI LinuxContainerResources: shares as in cgroup v1, times in microseconds, memory in bytes; 0: none."""

    cpu_shares: int = 2
    cpu_quota: int = 0
    cpu_period: int = 100_000
    memory: int = 0
    oom_score_adj: int = 0
    huge_pages: tuple[tuple[str, int], ...] = ()
    """Bytes by the kernel's name of the page's size."""
    memory_swap: int = 0
    """Bytes of memory and swap together, where that is accounted."""


@dataclass(frozen=True, slots=True)
class BindMount:
    """A path of the host shown in a container. ``propagation``: HostToContainer, Bidirectional or none."""

    container_path: str
    host_path: str
    read_only: bool = False
    propagation: str = ""


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """CRI ContainerConfig. ``image`` is what the runtime is given, ``user_image`` what the user wrote."""

    name: str
    attempt: int
    image: str
    user_image: str
    command: Sequence[str]
    args: Sequence[str]
    working_dir: str
    env: Sequence[tuple[str, str]]
    mounts: Sequence[BindMount]
    log_path: str
    resources: Resources
    security: Security
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One sandbox as listed. ``created`` is in nanoseconds since the epoch."""

    id: str
    metadata: SandboxMetadata
    ready: bool
    created: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SandboxNetwork:
    """What the network plugin gave a sandbox."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container as it is. Times are nanoseconds since the epoch, 0 where it has not happened."""

    id: str
    sandbox: str
    name: str
    attempt: int
    state: ContainerState
    created: int
    started: int = 0
    finished: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_ref: str = ""
    log_path: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What a container wrote to its own layer: bytes and files."""

    used: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image that the runtime has. ``user`` and ``user_name`` are what the image asks to run as."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    user: int | None
    user_name: str


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """Whether the runtime and its network are ready, with the first reason why not."""

    ready: bool
    network_ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a container ended and what it printed."""

    exit_code: int
    stdout: bytes
    stderr: bytes
