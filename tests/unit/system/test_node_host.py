"""Processes by identity, containerd's configuration, CRI messages."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder._generated import api_pb2 as pb
from polder.base.errors import PermanentError
from polder.system import cri, cri_messages, process
from polder.system.cgroups import weight
from polder.system.containerd import (
    ContainerdPaths,
    HostFacts,
    Registry,
    check_paths,
    render_config,
    render_hosts,
    snapshotter_of,
)
from polder.system.cri_types import DnsConfig, SandboxConfig, SandboxMetadata, Security
from polder.system.lsm import has_app_armor
from polder.system.process import Command, ProcessId

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


async def test_a_detached_process_is_found_again_and_stopped(tmp_path: Path) -> None:
    started = process.start_detached(Command([*SLEEPER, str(tmp_path / "x")], tmp_path / "log"))
    try:
        process.write_pidfile(tmp_path / "pid", started)
        assert process.read_pidfile(tmp_path / "pid") == started
        assert process.alive(started)
        assert os.getsid(started.pid) == started.pid
        assert process.find_by_argument("python", str(tmp_path)) == [started]
        assert process.find_by_argument("python", str(tmp_path)[:-1]) == [], "another directory with a longer name"
    finally:
        await process.stop(started, 5)
    assert not process.alive(started)
    assert process.identify(started.pid) is None


async def test_a_process_that_will_not_end_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    started = process.start_detached(Command([sys.executable, "-c", code], tmp_path / "log"))
    async with asyncio.timeout(10):
        while b"on" not in (tmp_path / "log").read_bytes():  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.02)
    await process.stop(started, 0.1)
    assert not process.alive(started)


def test_a_pid_that_is_used_again_is_somebody_else() -> None:
    mine = process.identify(os.getpid())
    assert mine is not None
    other = ProcessId(mine.pid, mine.start - 1, mine.boot)
    assert not process.alive(other)
    assert not process.send(other, signal.SIGKILL)
    assert not process.alive(ProcessId(mine.pid, mine.start, "another boot"))


def test_a_broken_pidfile_is_none(tmp_path: Path) -> None:
    assert process.read_pidfile(tmp_path / "none") is None
    (tmp_path / "pid").write_text("12")
    assert process.read_pidfile(tmp_path / "pid") is None


def paths(base: str = "/state/containerd") -> ContainerdPaths:
    return ContainerdPaths(Path(base), Path("/state/cni/bin"), Path("/state/cni/conf"))


def test_containerd_keeps_to_its_directory() -> None:
    config = tomllib.loads(render_config(paths(), HostFacts("native", True, "/usr/sbin/runc")))
    plugin = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["state"].startswith("/state/containerd/")
    assert plugin["restrict_oom_score_adj"] is True
    assert plugin["netns_mounts_under_state_dir"] is True
    assert plugin["disable_apparmor"] is True
    assert plugin["containerd"]["snapshotter"] == "native"
    runc = plugin["containerd"]["runtimes"]["runc"]["options"]
    assert (runc["BinaryName"], runc["SystemdCgroup"]) == ("/usr/sbin/runc", False)
    assert config["plugins"]["io.containerd.internal.v1.opt"]["path"].startswith("/state/containerd/")


def test_app_armor_is_used_where_the_kernel_has_it(tmp_path: Path) -> None:
    config = tomllib.loads(render_config(paths(), HostFacts("native", True, "/usr/sbin/runc", app_armor=True)))
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["disable_apparmor"] is False
    enabled, parser = tmp_path / "enabled", tmp_path / "parser"
    assert not has_app_armor(enabled, parser)
    enabled.write_text("Y\n")
    assert not has_app_armor(enabled, parser), "profiles cannot be loaded"
    parser.touch()
    assert has_app_armor(enabled, parser)
    enabled.write_text("N\n")
    assert not has_app_armor(enabled, parser)


def test_what_keeps_layers_is_read_from_the_configuration(tmp_path: Path) -> None:
    found = paths(str(tmp_path))
    found.config.write_text(render_config(found, HostFacts("native", True, "/usr/sbin/runc")))
    assert snapshotter_of(found) == "native"


def test_registries() -> None:
    assert render_hosts(Registry("r.example")) == 'server = "https://r.example"\n'
    mirrored = tomllib.loads(render_hosts(Registry("docker.io", ["http://mirror.example:5000"], insecure=True)))
    assert mirrored["host"]["http://mirror.example:5000"]["skip_verify"] is True


def test_a_state_directory_that_is_too_long_is_refused_with_its_length() -> None:
    check_paths(paths("/s" + "x" * 90))
    with pytest.raises(PermanentError, match="kernel takes 107"):
        check_paths(paths("/s" + "x" * 100))


def test_cgroup_weights() -> None:
    assert (weight(2), weight(1024), weight(262144)) == (1, 39, 10000)


def test_the_topic_of_an_event() -> None:
    # timestamp (1), namespace (2), topic (3), as protobuf writes them.
    envelope = b"\x0a\x02\x08\x01\x12\x06k8s.io\x1a\x0b/tasks/exit\x22\x00"
    assert cri._topic(envelope) == "/tasks/exit"
    assert cri._topic(b"") == ""


@given(st.integers(0, 2**63))
def test_varints(value: int) -> None:
    encoded, rest = bytearray(), value
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    assert cri._varint(bytes(encoded), 0) == (value, len(encoded))


def test_a_sandbox_message() -> None:
    config = SandboxConfig(
        SandboxMetadata("p", "acme/ns", "u-1", 2),
        "p",
        "/logs",
        DnsConfig(options=("ndots:5",)),
        "/polder/podu-1",
        Security(host_network=True),
        sysctls={"net.ipv4.tcp_syncookies": "0"},
        labels={"a": "b"},
    )
    message = cri_messages.sandbox_message(config)
    assert (message.metadata.uid, message.metadata.namespace, message.metadata.attempt) == ("u-1", "acme/ns", 2)
    context = message.linux.security_context
    assert context.namespace_options.network == pb.NODE
    assert context.namespace_options.pid == pb.CONTAINER
    assert context.seccomp.profile_type == pb.SecurityProfile.RuntimeDefault
    assert not context.HasField("run_as_user"), "not given is not root"
    assert dict(message.linux.sysctls) == {"net.ipv4.tcp_syncookies": "0"}
