"""Variables that an init container wrote into a file of a volume: NAME='value', one after the other.

Source: KEP-3721. Values stand in single quotes, may hold line ends, and nothing in them is replaced; a ``#`` begins a
comment where a line begins or a value has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from polder.api.core import Pod
from polder.api.podspec import Container
from polder.base.errors import PermanentError
from polder.node.volumes.mounting import Mounted
from polder.system.beneath import MissingError, read_beneath

LARGEST = 64 << 10
"""Bytes of a file that are read."""
FILES = 64
"""Files that one container's variables are read from."""
_ITEM = re.compile(r"[ \t]*(?:#[^\n]*|([^=\s'#]+)=(?:'([^']*)'[ \t]*(?:#[^\n]*)?|[ \t][^\n]*)?)?\r?(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What stands in a file: the first value of each name, up to a line of another form. ``broken`` says which that is."""

    values: Mapping[str, str]
    broken: str = ""

    def value(self, key: str) -> str | None:
        """The value of one name; None if the file has none. Raises PermanentError where a line before it has another form."""
        if key not in self.values and self.broken:
            raise PermanentError(self.broken)
        return self.values.get(key) or None


def env_files(pod: Pod, container: Container, volumes: Mapping[str, Mounted]) -> dict[tuple[str, str], EnvFile | None]:
    """The files that the container's variables are in, by volume and path; None for one that is not there.

    Raises PermanentError for one that is no file of an emptyDir, or no text, and for too many.
    """
    scratch = {volume.name for volume in pod.spec.volumes or [] if volume.empty_dir is not None}
    found: dict[tuple[str, str], EnvFile | None] = {}
    for item in container.env or []:
        ref = item.value_from.file_key_ref if item.value_from else None
        if ref is None or (ref.volume_name, ref.path) in found:
            continue
        if ref.volume_name not in scratch or ref.volume_name not in volumes:
            raise PermanentError(f"env {item.name}: volume {ref.volume_name!r} is no emptyDir of the pod")
        if len(found) == FILES:
            raise PermanentError(f"container {container.name}: variables are read from {FILES} files at most")
        try:
            text = read_beneath(volumes[ref.volume_name].path, ref.path, LARGEST)
            found[ref.volume_name, ref.path] = parse(text.decode())
        except MissingError:
            found[ref.volume_name, ref.path] = None
        except UnicodeDecodeError as error:
            raise PermanentError(f"env {item.name}: file {ref.path!r} is no UTF-8 text") from error
    return found


def parse(text: str) -> EnvFile:
    """Reads a file's text once, however many variables are in it."""
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _ITEM.match(text, position)
        if found is None:
            line = text.count("\n", 0, position) + 1
            return EnvFile(values, f"line {line} is not of the form NAME='value'")
        if found[1] is not None:
            values.setdefault(found[1], found[2] or "")
        position = found.end()
    return EnvFile(values)
