"""Variables that an init container wrote into a file of a volume: NAME='value', one after the other.

Source: KEP-3721. Values stand in single quotes, may hold line ends, and nothing in them is replaced; a ``#`` begins a
comment where a line begins or a value has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from polder.api.core import Pod
from polder.api.podspec import Container
from polder.base.errors import PermanentError
from polder.node.volumes.mounting import Mounted
from polder.system.beneath import MissingError, read_beneath

LARGEST = 64 << 10
"""Bytes of a file that are read."""
_ITEM = re.compile(r"[ \t]*(?:#[^\n]*|([^=\s'#]+)=(?:'([^']*)'[ \t]*(?:#[^\n]*)?|[ \t][^\n]*)?)?\r?(?:\n|\Z)")


def env_files(pod: Pod, container: Container, volumes: Mapping[str, Mounted]) -> dict[tuple[str, str], str | None]:
    """The files that the container's variables are in, by volume and path; None for one that is not there.

    Raises PermanentError for one that is no file of an emptyDir, or no text.
    """
    scratch = {volume.name for volume in pod.spec.volumes or [] if volume.empty_dir is not None}
    found: dict[tuple[str, str], str | None] = {}
    for item in container.env or []:
        ref = item.value_from.file_key_ref if item.value_from else None
        if ref is None:
            continue
        if ref.volume_name not in scratch or ref.volume_name not in volumes:
            raise PermanentError(f"env {item.name}: volume {ref.volume_name!r} is no emptyDir of the pod")
        try:
            text = read_beneath(volumes[ref.volume_name].path, ref.path, LARGEST)
            found[ref.volume_name, ref.path] = text.decode()
        except MissingError:
            found[ref.volume_name, ref.path] = None
        except UnicodeDecodeError as error:
            raise PermanentError(f"env {item.name}: file {ref.path!r} is no UTF-8 text") from error
    return found


def variable(text: str, key: str) -> str | None:
    """The first value of one name; None if the file has none. Raises PermanentError, with the line, for another form."""
    position = 0
    while position < len(text):
        found = _ITEM.match(text, position)
        if found is None:
            line = text.count("\n", 0, position) + 1
            raise PermanentError(f"line {line} is not of the form NAME='value'")
        if found[1] == key:
            return found[2] or None
        position = found.end()
    return None
