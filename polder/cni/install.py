"""Puts the plugin and its configuration where the container runtime looks for them."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from polder.base.errors import PermanentError

log = logging.getLogger(__name__)

PLUGIN = "polder-cni"
LOOPBACK = "loopback"
"""containerd runs a plugin of this name for every sandbox; the stub is that one too."""
SOCKET = "polder-cni.sock"
_SOURCE = Path(__file__).parent
_CONFIG = "10-polder.conflist"


def build_stub(out: Path, compiler: str = "cc") -> bool:
    """Compile stub.c to ``out``, static if that is possible (it starts faster); the Python stub where there is no compiler.
    Whether it is the compiled one. Nothing is done where ``out`` is of this version already.
    """
    source = (_SOURCE / "stub.c").read_bytes()
    stamp = out.with_name(f".{out.name}.{hashlib.sha256(source).hexdigest()[:16]}")
    if out.exists() and stamp.exists():
        return True
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(out.name + ".new")
    for options in (["-static"], []):
        if shutil.which(compiler) is None:
            break
        done = subprocess.run(
            [compiler, "-O2", *options, "-o", str(fresh), str(_SOURCE / "stub.c")],
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.returncode:
            fresh.replace(out)
            stamp.touch()
            return True
        log.info("the CNI stub was not compiled with %s: %s", options, done.stderr[-300:])
    text = (_SOURCE / "stub.py").read_text()
    fresh.write_text(f"#!{sys.executable} -ISE\n{text}")
    fresh.chmod(0o755)
    fresh.replace(out)
    return False


def install(bin_dir: Path, conf_dir: Path, socket: Path) -> None:
    """Plugin, loopback plugin, the way to the agent's socket, and the configuration. Raises PermanentError."""
    try:
        build_stub(bin_dir / PLUGIN)
        _link(bin_dir / LOOPBACK, bin_dir / PLUGIN, hard=True)
        _link(bin_dir / SOCKET, socket, hard=False)
        write_conflist(conf_dir)
    except OSError as error:
        raise PermanentError(f"CNI plugin in {bin_dir}: {error}") from error


def write_conflist(conf_dir: Path) -> Path:
    """The network configuration list, in the version that containerd 1.6 speaks."""
    body = {"cniVersion": "1.0.0", "name": "polder", "plugins": [{"type": PLUGIN}]}
    conf_dir.mkdir(parents=True, exist_ok=True)
    path = conf_dir / _CONFIG
    fresh = conf_dir / f".{_CONFIG}.new"
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n")
    fresh.replace(path)
    return path


def _link(path: Path, target: Path, *, hard: bool) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    if hard:
        fresh.hardlink_to(target)
    else:
        fresh.symlink_to(target)
    fresh.replace(path)
    fresh.unlink(missing_ok=True)  # renaming onto the same file leaves both names
