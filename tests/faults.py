"""A layer under SQLite's files that fails as disks do (``faults.c``), built with the C compiler that Polder needs anyway."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("faults.c")


@dataclass(frozen=True)
class Faults:
    """What goes wrong is set from outside, at any moment."""

    library: Path
    control: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "FAULTS": str(self.control)}

    def set(self, mode: str) -> None:
        with self.control.open("r+b") as file:
            file.write(mode.encode())


def build(folder: Path) -> Faults:
    library, control = folder / "faults.so", folder / "faults"
    argv = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(argv, check=True, capture_output=True)
    control.write_bytes(b"0")
    return Faults(library, control)
