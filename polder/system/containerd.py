"""A containerd of our own: where its files are, its configuration, and what of the host it depends on.

Everything that it makes stays below one directory, so that several run on one machine beside the distribution's.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polder.base.errors import PermanentError
from polder.system.lsm import has_app_armor
from polder.system.mounts import overlay_works

SOCKET_LIMIT = 107
"""Bytes of a unix socket's path (unix(7): 108 with the final zero)."""
PAUSE_IMAGE = "polder.dev/pause:1"
"""The image that holds a sandbox's namespaces; under a name that no registry serves."""
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the programs are looked for."""
CONTAINERS = "k8s.io"
"""The containerd namespace that its CRI plugin uses."""


@dataclass(frozen=True, slots=True)
class Registry:
    """Where images of one registry host come from: mirrors tried first, and whether plain HTTP or unknown
    certificates are borne.
    """

    host: str
    mirrors: Sequence[str] = ()
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class ContainerdPaths:
    """The files of one containerd, all below ``base``."""

    base: Path
    cni_bin: Path
    cni_conf: Path

    @property
    def socket(self) -> Path:
        """Its gRPC address."""
        return self.base / "sock"

    @property
    def root(self) -> Path:
        """What outlives a reboot: images, layers, metadata."""
        return self.base / "root"

    @property
    def state(self) -> Path:
        """What does not: mounts, bundles, network namespaces."""
        return self.base / "state"

    @property
    def config(self) -> Path:
        """The generated configuration."""
        return self.base / "config.toml"

    @property
    def pidfile(self) -> Path:
        """The identity of the running process."""
        return self.base / "pid"

    @property
    def log(self) -> Path:
        """Its output."""
        return self.base / "log"

    @property
    def certs(self) -> Path:
        """Per-registry configuration (hosts.toml)."""
        return self.base / "certs.d"

    @property
    def netns(self) -> Path:
        """Network namespaces of sandboxes, bind-mounted by the CRI plugin."""
        return self.state / "io.containerd.grpc.v1.cri" / "netns"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the configuration depends on; see ``observe_host``."""

    snapshotter: str
    restrict_oom_score: bool
    runc: str
    app_armor: bool = False
    registries: Mapping[str, Registry] = field(default_factory=dict)
    crun: str = ""
    """The program crun, if the machine has it."""


def check_paths(paths: ContainerdPaths) -> None:
    """Raises PermanentError if a socket's path would be longer than the kernel takes."""
    longest = f"{paths.socket}.ttrpc"
    if len(os.fsencode(longest)) > SOCKET_LIMIT:
        raise PermanentError(
            f"the state directory is too long: the socket {longest} has {len(os.fsencode(longest))} bytes and the "
            f"kernel takes {SOCKET_LIMIT}; choose a shorter one"
        )


def observe_host(paths: ContainerdPaths) -> HostFacts:
    """Finds the programs and tries what works here."""
    runc = shutil.which("runc", path=SEARCH_PATH)
    if runc is None or find_containerd() is None:
        raise PermanentError("containerd and runc are needed and not found; install Debian's packages of these names")
    snapshotter = "overlayfs" if overlay_works(paths.root) else "native"
    return HostFacts(snapshotter, not _may_lower_oom_score(), runc, has_app_armor(), crun=find_crun() or "")


def find_containerd() -> str | None:
    """The containerd program."""
    return shutil.which("containerd", path=SEARCH_PATH)


def find_crun() -> str | None:
    """Another runtime, which RuntimeClasses may name; not every machine has it."""
    return shutil.which("crun", path=SEARCH_PATH)


def find_ctr() -> str | None:
    """containerd's own client program."""
    return shutil.which("ctr", path=SEARCH_PATH)


def program_environment() -> dict[str, str]:
    """What containerd, its shims and runc are started with: nothing of the caller's environment."""
    return {"PATH": SEARCH_PATH}


def _may_lower_oom_score() -> bool:
    """Whether this process may lower its own oom_score_adj (needs CAP_SYS_RESOURCE and a willing kernel)."""
    path = Path("/proc/self/oom_score_adj")
    before = int(path.read_text())
    try:
        path.write_text(str(max(before - 1, -1000)))
        path.write_text(str(before))
    except PermissionError:
        return False
    return True


def _text(value: object) -> str:
    """A TOML basic string."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _flag(value: bool) -> str:
    return "true" if value else "false"


DISABLED = (
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
)
"""Plugins that Polder never uses; some of them write outside the state directory."""


def render_config(paths: ContainerdPaths, facts: HostFacts) -> str:
    """The configuration, version 2 as containerd 1.6 reads it."""
    return f"""version = 2
root = {_text(paths.root)}
state = {_text(paths.state)}
disabled_plugins = [{", ".join(_text(name) for name in DISABLED)}]

[grpc]
address = {_text(paths.socket)}

[ttrpc]
address = {_text(f"{paths.socket}.ttrpc")}

[debug]
level = "info"

[plugins."io.containerd.internal.v1.opt"]
path = {_text(paths.base / "opt")}

{_render_cri(paths, facts)}"""


def _render_cri(paths: ContainerdPaths, facts: HostFacts) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""[{cri}]
sandbox_image = {_text(PAUSE_IMAGE)}
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
restrict_oom_score_adj = {_flag(facts.restrict_oom_score)}
netns_mounts_under_state_dir = true
max_container_log_line_size = 16384
tolerate_missing_hugetlb_controller = true
disable_apparmor = {_flag(not facts.app_armor)}

[{cri}.containerd]
snapshotter = {_text(facts.snapshotter)}
default_runtime_name = "runc"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
BinaryName = {_text(facts.runc)}
Root = {_text(paths.state / "runc")}
SystemdCgroup = false

{_render_crun(paths, facts)}[{cri}.cni]
bin_dir = {_text(paths.cni_bin)}
conf_dir = {_text(paths.cni_conf)}
max_conf_num = 1
ip_pref = "cni"

[{cri}.registry]
config_path = {_text(paths.certs)}
"""


def snapshotter_of(paths: ContainerdPaths) -> str:
    """What keeps images' layers, as the written configuration says. Raises OSError while there is none."""
    plugins = tomllib.loads(paths.config.read_text())["plugins"]
    return str(plugins["io.containerd.grpc.v1.cri"]["containerd"]["snapshotter"])


def _render_crun(paths: ContainerdPaths, facts: HostFacts) -> str:
    """The handler ``crun`` for RuntimeClasses, where the machine has that program."""
    if not facts.crun:
        return ""
    runtime = 'plugins."io.containerd.grpc.v1.cri".containerd.runtimes.crun'
    return f"""[{runtime}]
runtime_type = "io.containerd.runc.v2"

[{runtime}.options]
BinaryName = {_text(facts.crun)}
Root = {_text(paths.state / "crun")}
SystemdCgroup = false

"""


def render_hosts(registry: Registry) -> str:
    """The hosts.toml of one registry host."""
    upstream = "registry-1.docker.io" if registry.host == "docker.io" else registry.host
    scheme = "http" if registry.insecure else "https"
    lines = [f"server = {_text(f'{scheme}://{upstream}')}"]
    for mirror in registry.mirrors:
        lines += ["", f"[host.{_text(mirror)}]", 'capabilities = ["pull", "resolve"]']
        lines += ["skip_verify = true"] if registry.insecure else []
    if registry.insecure and not registry.mirrors:
        lines += ["", f"[host.{_text(f'{scheme}://{upstream}')}]", "skip_verify = true"]
    return "\n".join(lines) + "\n"


def write_config(paths: ContainerdPaths, facts: HostFacts) -> None:
    """Writes the configuration and the registries' files."""
    for directory in (paths.base, paths.root, paths.state, paths.cni_bin, paths.cni_conf, paths.certs):
        directory.mkdir(parents=True, exist_ok=True)
    for directory in (paths.root, paths.state):
        directory.chmod(0o711)
    paths.config.write_text(render_config(paths, facts))
    for name, registry in facts.registries.items():
        place = paths.certs / name
        place.mkdir(exist_ok=True)
        (place / "hosts.toml").write_text(render_hosts(registry))
