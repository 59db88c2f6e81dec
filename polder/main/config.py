"""The daemons' configuration files: one versioned YAML document each; unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from polder.apiserver.admission_names import DEFAULT as DEFAULT_PLUGINS
from polder.base.errors import PermanentError
from polder.main.config_authn import DEFAULT_METHODS, Method
from polder.main.config_authz import DEFAULT_MODES, AuditConfig, Mode
from polder.main.config_controllers import ControllersConfig
from polder.main.config_storage import EtcdConfig, SealingConfig

VERSION = "config.polder.dev/v1alpha1"


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`polder server`. Addresses are ``ADDRESS:PORT``."""

    api_version: str = VERSION
    kind: str = "ServerConfig"
    listen: list[str]
    names: list[str] = []
    """Host names and addresses that the serving certificate carries, besides the listening ones."""
    store: str = ""
    """The file of the store on this machine's disk. Several servers share ``etcd`` instead."""
    etcd: EtcdConfig | None = None
    sealing: SealingConfig | None = None
    """Secrets at rest; without it they are stored as they are."""
    lease_seconds: int = 15
    """After so long without a word from the server that runs the controllers, another one runs them (with ``etcd``)."""
    pki: str
    pod_cidr: str = "10.1.0.0/16"
    service_cidr: str = "10.97.0.0/16"
    """The platform's own ranges; a tenant's may be the same."""
    authentication: tuple[Method, ...] = DEFAULT_METHODS
    """How callers show who they are, in the order in which they are asked."""
    authorization: tuple[Mode, ...] = DEFAULT_MODES
    """Who decides what a caller may, in the order in which they are asked, within a frame that is fixed."""
    audit: AuditConfig | None = None
    """What is written down of requests; without it nothing is."""
    admission: tuple[str, ...] = DEFAULT_PLUGINS
    """The admission plug-ins that are on, by upstream's names; their order is fixed."""
    controllers: ControllersConfig = ControllersConfig()
    """How patient the controllers are."""
    connections_per_source: int = 512
    """Open connections of one address of the network (IPv6: of one /64). Behind a balancer all clients are one source."""
    log_format: str = "text"


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """`polder agent`."""

    api_version: str = VERSION
    kind: str = "AgentConfig"
    node: str
    server: str
    other_servers: list[str] = []
    """Further servers of the same cluster: asked when the first does not answer; each gets a stream of this node."""
    authority: str
    certificate: str
    key: str
    state: str
    images: str
    """The directory of the archives that `polder up` builds: the sandbox's image among them."""
    prefix: str = "polder"
    address: str
    egress_address: str = ""
    egress_address6: str = ""
    """The node's IPv6 address, from which pods' IPv6 leaves; empty: none leaves. Who shares its /64 no pod reaches. The node
    forwards then, so that its own default route must be static, or accept_ra of the uplink 2.
    """
    uplink: str = "uplink"
    protected: list[str] = []
    """Addresses and ranges that no pod may reach, besides the nodes' own."""
    dns_upstreams: list[str] = []
    """Whom the tenants' resolvers ask for names that are not theirs, each ``ADDRESS`` or ``ADDRESS#PORT``: what these know, every
    tenant may learn. Without any, the machine's name servers."""
    allowed_unsafe_sysctls: list[str] = []
    """Kernel parameters beyond the safe ones that pods may set, all tenants' alike: names, or beginnings with ``*``, of
    namespaces that a pod has for itself (``net.*``, ``kernel.msgmax``).
    """
    static_pods: str = ""
    """The folder of manifests that the node runs of itself, API or no API, as pods of the platform; empty: it runs none."""
    shared_dns: str = ""
    """An IPv4 address of this node at which all tenants ask for names, told apart by their routers' addresses: pods are given it
    instead of their own router's, which answers all the same.
    """
    cpu: str = ""
    memory: str = ""
    """Overrides of the node's capacity, as quantities; empty is what the machine has."""
    max_pods: int = 110
    reserved: dict[str, str] = {}
    """What of the node is no pod's: quantities of cpu, memory and ephemeral-storage."""
    eviction_hard: dict[str, str] = {}
    """How much must be free, as quantities or percentages, by upstream's signals (memory.available …); for those that are
    left out upstream's defaults hold.
    """
    log_format: str = "text"


T = TypeVar("T", ServerConfig, AgentConfig)


def load(path: Path, kind: type[T]) -> T:
    """Reads one file. Raises PermanentError naming the file and the key."""
    try:
        document = yaml.safe_load(path.read_text())
        config = msgspec.convert(document, kind)
    except OSError as error:
        raise PermanentError(f"configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise PermanentError(f"configuration {path}: {error}") from error
    if config.api_version != VERSION or config.kind != kind.__name__:
        raise PermanentError(
            f"configuration {path}: apiVersion {config.api_version!r} and kind {config.kind!r}, "
            f"expected {VERSION!r} and {kind.__name__!r}"
        )
    return config


def dump(config: ServerConfig | AgentConfig) -> str:
    """The document's text."""
    return yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False)
