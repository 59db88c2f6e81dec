"""Builds polder/_generated: the published types of the built-in kinds and the messages of CRI and etcd."""

from __future__ import annotations

import gzip
import shutil
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "polder" / "_generated"
RELEASE = "1.36.0"


def definitions() -> None:
    """Copies the one schema file of RELEASE out of the package kubernetes-validate."""
    package = files("kubernetes_validate")
    source = package / "kubernetes-json-schema" / f"v{RELEASE}-local" / "_definitions.json"
    found = source.read_bytes()
    (OUT / "definitions.json.gz").write_bytes(gzip.compress(found, mtime=0))


def messages(proto: Path) -> None:
    """Generates the message classes of a published interface definition."""
    from grpc_tools import protoc

    code = protoc.main(["protoc", f"-I{proto.parent}", f"--python_out={OUT}", f"--pyi_out={OUT}", str(proto)])
    if code != 0:
        raise SystemExit(f"protoc failed with exit code {code}")


def main() -> None:
    """Empties the output folder and fills it anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    (OUT / "__init__.py").write_text('"""Built by tools/generate.py; never edited."""\n')
    definitions()
    messages(ROOT / "third_party" / "cri" / "api.proto")
    messages(ROOT / "third_party" / "etcd" / "etcd.proto")


if __name__ == "__main__":
    main()
