"""Makes an image of Debian packages, for `polder image import`: no registry is needed.

    python3 tools/debian_image.py nginx:debian nginx.tar nginx-light
    python3 tools/debian_image.py db:debian db.tar postgresql-15 --path /usr/lib/postgresql/15/bin --without 'perl*'

The packages and all that they depend on are fetched by apt-get and unpacked; their scripts are not run. A shell (dash) and
the usual users (root, www-data, postgres, nobody) are there.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import platform
import subprocess
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ALWAYS = ("dash", "coreutils", "grep", "sed", "libc6")
NEVER = ("dpkg", "debconf", "cdebconf", "install-info", "init-system-helpers", "sysvinit-utils", "usrmerge", "tar")
"""What only installing needs."""
USERS = {"root": 0, "www-data": 33, "postgres": 101, "nobody": 65534}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def closure(packages: list[str], without: list[str]) -> list[str]:
    """The packages and what they depend on, less what is left out."""
    no = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    command = ["apt-cache", "depends", "--recurse", *no, *packages, *ALWAYS]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:  # a machine that never fetched the lists of packages
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        listed = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {line for line in listed.stdout.splitlines() if line and line[0].isalnum()}
    patterns = [*NEVER, *without]
    return sorted(name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns))


def unpack(names: list[str], root: Path) -> None:
    """Fetches the packages and lays their files into ``root``."""
    with tempfile.TemporaryDirectory(prefix="polder-debs-") as made:
        subprocess.run(
            ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names],
            cwd=made,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for package in sorted(Path(made).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)


def complete(root: Path) -> None:
    """What the packages' scripts would have made."""
    for folder in ("etc", "tmp", "var/tmp", "run", "root", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    (root / "etc/passwd").write_text("".join(f"{name}:x:{n}:{n}::/tmp:/bin/sh\n" for name, n in USERS.items()))
    (root / "etc/group").write_text("".join(f"{name}:x:{n}:\n" for name, n in USERS.items()))
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/info"):
        subprocess.run(["rm", "-rf", str(root / folder)], check=True)


def _clean(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uname, member.gname = 0, "", ""
    return member


def save(reference: str, root: Path, out: Path, path: str) -> None:
    """Writes the archive, as ``docker save`` does."""
    with tempfile.NamedTemporaryFile(prefix="polder-layer-") as layer:
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for entry in sorted(root.iterdir()):
                tar.add(entry, entry.name, filter=_clean)
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        settings = {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": [f"PATH={path}", "LANG=C.UTF-8"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": [f"{digest}/layer.tar"]}]
        with tarfile.open(out, "w") as tar:
            tar.add(layer.name, f"{digest}/layer.tar", filter=_clean)
            for name, content in (("config.json", settings), ("manifest.json", manifest)):
                data = json.dumps(content).encode()
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, BytesIO(data))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reference", help="the image's name, such as nginx:debian")
    parser.add_argument("out", type=Path, help="the archive to write")
    parser.add_argument("packages", nargs="+", help="Debian packages")
    parser.add_argument("--without", action="append", default=[], metavar="PATTERN", help="packages to leave out")
    parser.add_argument("--path", metavar="DIRECTORY", help="searched for programs before the usual ones")
    args = parser.parse_args()
    reference = args.reference if "/" in args.reference else f"docker.io/library/{args.reference}"
    with tempfile.TemporaryDirectory(prefix="polder-root-") as made:
        root = Path(made) / "root"
        root.mkdir(mode=0o755)
        unpack(closure(args.packages, args.without), root)
        complete(root)
        save(reference, root, args.out, ":".join(filter(None, (args.path, PATH))))


if __name__ == "__main__":
    main()
