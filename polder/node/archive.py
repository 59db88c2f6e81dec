"""The images that the project builds itself: ``toolbox`` from Debian's static busybox, ``pause`` from a few lines of C.

The toolbox also holds Debian's ``openssl`` with its libraries, since busybox's own TLS client offers no signature
algorithm that a server of today takes; busybox's ``wget`` runs ``openssl s_client`` for https where it finds it:
``SSL_CERT_FILE=…/ca.crt wget --header "Authorization: Bearer $(cat …/token)" https://$KUBERNETES_SERVICE_HOST/…``
(with a port after the host it compares the certificate with both and fails; ``--no-check-certificate`` instead of the
file trusts anybody; its option ``-T`` crashes, so write ``timeout 5 wget``).

Pure Python and deterministic: the same inputs give the same bytes. The archives are in the format of ``docker save``
(manifest.json, a configuration, layers), which containerd imports.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polder.base.errors import PermanentError
from polder.system.containerd import PAUSE_IMAGE, SEARCH_PATH

TOOLBOX_IMAGE = "docker.io/library/toolbox:latest"
"""What a pod's ``image: toolbox`` means."""
EPOCH = "1970-01-01T00:00:00Z"
PAUSE_SOURCE = Path(__file__).with_name("pause.c")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}
SHELL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory (no content, no link) or symbolic link of a layer."""

    path: str
    content: bytes | None = None
    link: str = ""
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Image:
    """An image of one layer."""

    reference: str
    entries: Sequence[Entry]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()


def _member(path: str, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mode = mode
    return member


def _layer(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            member = _member(entry.path, entry.mode)
            if entry.link:
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
                tar.addfile(member)
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(entry.content)
                tar.addfile(member, io.BytesIO(entry.content))
    return out.getvalue()


def archive(image: Image) -> bytes:
    """The image as the bytes of a ``docker save`` archive."""
    layer = _layer(image.entries)
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Entrypoint": list(image.entrypoint) or None,
                "Cmd": list(image.command) or None,
                "Env": [f"PATH={SHELL_PATH}"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": EPOCH, "created_by": "polder"}],
        },
        sort_keys=True,
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [image.reference], "Layers": [f"{name}/layer.tar"]}]
    files = {f"{name}.json": config, f"{name}/layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    return _layer([Entry(path, content, mode=0o644) for path, content in files.items()])


def _busybox() -> tuple[bytes, list[str]]:
    """The static busybox of this machine and the paths of its applets."""
    program = shutil.which("busybox", path=SEARCH_PATH)
    if program is None:
        raise PermanentError("the toolbox image is built from busybox and none is here; install busybox-static")
    content = Path(program).read_bytes()
    if b"/ld-linux" in content[:4096] or b"/ld-musl" in content[:4096]:
        raise PermanentError(f"{program} is linked dynamically; install Debian's busybox-static")
    listed = subprocess.run([program, "--list-full"], capture_output=True, text=True, check=True)
    return content, sorted(path for path in listed.stdout.split() if Path(path).name != "busybox")


_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def _dynamic(program: str) -> list[Entry]:
    """A program of this machine and the libraries that it loads; nothing where it is not installed."""
    found = shutil.which(program, path=SEARCH_PATH)
    if found is None:
        return []
    listed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True, env={"PATH": SEARCH_PATH})
    paths = [found, *sorted(set(_LIBRARY.findall(listed.stdout)))]
    folders = sorted({str(parent)[1:] for path in paths for parent in Path(path).parents if parent != Path("/")})
    return [*[Entry(path) for path in folders], *[Entry(path[1:], Path(path).read_bytes()) for path in paths]]


USERS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUPS = b"root:x:0:\nnobody:x:65534:\n"


def toolbox() -> Image:
    """sh, ping, nc, wget, httpd, arp, arping, ip and the rest of Debian's static busybox, and openssl for wget's https."""
    program, applets = _busybox()
    folders = [
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "sbin",
        "sys",
        "tmp",
        "usr",
        "usr/bin",
        "usr/sbin",
        "var",
        "var/run",
    ]
    entries = [Entry(path, mode=0o1777 if path == "tmp" else 0o755) for path in folders]
    entries.append(Entry("bin/busybox", program))
    for path in applets:
        folder = str(Path(path).parent)
        entries.append(Entry(path if folder in folders else f"bin/{Path(path).name}", link="/bin/busybox"))
    entries += [entry for entry in _dynamic("openssl") if entry.path not in folders]
    entries += [
        Entry("etc/passwd", USERS, mode=0o644),
        Entry("etc/group", GROUPS, mode=0o644),
        Entry("etc/nsswitch.conf", b"hosts: files dns\n", mode=0o644),
    ]
    return Image(TOOLBOX_IMAGE, entries, command=("sh",))


def _compile_pause() -> bytes | None:
    """The static pause program; None where there is no compiler or no static C library."""
    compiler = shutil.which("gcc", path=SEARCH_PATH) or shutil.which("cc", path=SEARCH_PATH)
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="polder-pause-") as made:
        target = Path(made) / "pause"
        command = [compiler, "-Os", "-static", "-s", "-Wl,--build-id=none", "-o", str(target), str(PAUSE_SOURCE)]
        done = subprocess.run(command, capture_output=True, check=False, env={"PATH": SEARCH_PATH})
        return target.read_bytes() if done.returncode == 0 else None


def pause() -> Image:
    """The image of every sandbox. Without a compiler it is busybox's ``sleep``, which reaps no orphans."""
    program = _compile_pause()
    if program is not None:
        return Image(PAUSE_IMAGE, [Entry("pause", program)], entrypoint=("/pause",))
    busybox, _ = _busybox()
    return Image(PAUSE_IMAGE, [Entry("busybox", busybox)], entrypoint=("/busybox", "sleep", "infinity"))


def build_images(out_dir: Path) -> list[Path]:
    """Writes ``toolbox.tar`` and ``pause.tar``; answers their paths. Files that would not change are left alone."""
    out_dir.mkdir(parents=True, exist_ok=True)
    made = []
    for name, image in (("toolbox", toolbox()), ("pause", pause())):
        path = out_dir / f"{name}.tar"
        content = archive(image)
        if not path.exists() or path.read_bytes() != content:
            draft = path.with_suffix(".new")
            draft.write_bytes(content)
            draft.rename(path)
        made.append(path)
    return made


def read_references(path: Path) -> list[str]:
    """The names of the images in an archive (``docker save`` or OCI layout), to tell what an import brought."""
    try:
        with tarfile.open(path) as tar:
            return _references(tar)
    except (tarfile.TarError, gzip.BadGzipFile, KeyError, ValueError, OSError) as error:
        raise PermanentError(f"{path} is no image archive: {str(error).partition(':')[0]}") from error


def _references(tar: tarfile.TarFile) -> list[str]:
    names = tar.getnames()
    if "manifest.json" in names:
        found = tar.extractfile("manifest.json")
        assert found is not None
        return [tag for item in json.load(found) for tag in item.get("RepoTags") or []]
    found = tar.extractfile("index.json")
    assert found is not None
    key = "io.containerd.image.name"
    return [m["annotations"][key] for m in json.load(found)["manifests"] if key in m.get("annotations", {})]
