"""Static pods' files: a folder of manifests, each of one pod of the tenant ``root``, and what becomes of one.

A file that is no pod, or one that needs the API, is refused in one sentence and does not hold up the others.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from polder.api.conform import conform, unknown_field
from polder.api.core import Pod
from polder.api.defaults import default, initial_status
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import Raw, ref_of
from polder.api.staticpods import FILE, HASH, MIRROR, SEEN, SOURCE, TOLERATION, static_problems
from polder.api.unsupported import unsupported
from polder.api.validation import validate_create
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client import wire

log = logging.getLogger(__name__)

PODS: Final = kind_of(Pod)
LONGEST: Final = 1 << 20
"""Bytes of a file."""
MOST: Final = 250
"""Files that are looked at."""


@dataclass(frozen=True, slots=True)
class StaticPod:
    """A pod of a file: as its worker sees it, and what its mirror in the API says."""

    pod: Pod
    mirror: Raw

    @property
    def uid(self) -> str:
        """Its own UID, a hash of what its file says: a changed file is another pod."""
        return self.pod.metadata.uid

    @property
    def ref(self) -> Ref:
        """Its place, which is its mirror's too."""
        return ref_of(self.pod)


def static_pod(text: str, file: str, node: str, seen: str) -> StaticPod:
    """The pod that a file describes; ``seen`` is when it was read. Raises PermanentError with one sentence."""
    try:
        found: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise PermanentError(f"static pod {file}: it is no YAML: {error}") from error
    if not isinstance(found, dict) or (found.get("apiVersion"), found.get("kind")) != ("v1", "Pod"):
        raise PermanentError(f"static pod {file}: apiVersion must be v1 and kind Pod, one in each file")
    try:
        pod, unknown = _as_pod(found, file, node)
        uid = hashlib.sha256(orjson.dumps(pod, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
        said = pod["metadata"].get("annotations") or {}
        own = {HASH: uid, MIRROR: uid, SOURCE: FILE, SEEN: seen}
        pod["metadata"]["annotations"] = {**said, **own}
        default(PODS, pod)
        wrong = [*static_problems(pod["spec"]), *validate_create(PODS, pod), *unsupported(pod, tenant_is_root=True)]
    except (ApiError, AttributeError, KeyError, TypeError) as error:
        raise PermanentError(f"static pod {file}: {error}") from error
    problems = [*map(unknown_field, unknown), *map(str, wrong)]
    if problems:
        raise PermanentError(f"static pod {file}: {'; '.join(problems)}")
    own_meta = {**pod["metadata"], "uid": uid}
    whole = {**pod, "metadata": own_meta, "status": initial_status(PODS, pod)}
    return StaticPod(wire.decode_object(Pod, orjson.dumps(whole), ROOT), pod)


def _as_pod(found: Raw, file: str, node: str) -> tuple[Raw, tuple[str, ...]]:
    """The pod in its type's form, bound to the node, and its unknown fields."""
    conformed = conform(PODS, orjson.loads(orjson.dumps(found, default=str)))
    pod, meta = conformed.obj, conformed.obj.get("metadata") or {}
    if not meta.get("name"):
        raise PermanentError(f"static pod {file}: metadata.name is missing")
    kept = {key: meta[key] for key in ("labels", "annotations") if meta.get(key)}
    spec = pod.get("spec") or {}
    bears = [*(spec.get("tolerations") or ()), TOLERATION]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**kept, "name": f"{meta['name']}-{node}", "namespace": meta.get("namespace") or "default"},
        "spec": {**spec, "nodeName": node, "tolerations": bears},
    }, conformed.unknown


class Folder:
    """A folder of manifests, looked at again and again; files that did not change are not read again."""

    def __init__(self, path: Path | None, node: str) -> None:
        self.path = path
        self._node = node
        self._known: dict[str, tuple[tuple[int, ...], StaticPod | None]] = {}
        self._said = ""

    def look(self, seen: str) -> Mapping[Ref, StaticPod]:
        """The pods of the folder, ``seen`` now; of two of one name the one whose file's name comes first. What a file that
        cannot be read said before counts on: it may be half written. Blocks.
        """
        known = {name: self._read(name, path, seen) for name, path in self._files()}
        self._known = known
        found: dict[Ref, StaticPod] = {}
        for name, (_, one) in sorted(known.items()):
            if one is None:
                continue
            if one.ref in found:
                log.warning("static pod %s: another file has a pod of the name %s", name, one.ref)
            found.setdefault(one.ref, one)
        return found

    def _files(self) -> list[tuple[str, Path]]:
        """Files by name; hidden ones are their editors'. A folder that is not there is empty."""
        if self.path is None:
            return []
        try:
            names = sorted(one.name for one in self.path.iterdir() if not one.name.startswith(".") and one.is_file())
        except FileNotFoundError:
            return self._say(f"the folder of static pods {self.path} does not exist")
        except OSError as error:
            self._say(f"the folder of static pods {self.path} cannot be read: {error}")
            names = list(self._known)
        if len(names) > MOST:
            self._say(f"the folder of static pods {self.path} has more than {MOST} files: the rest is left out")
        return [(name, self.path / name) for name in names[:MOST]]

    def _say(self, what: str) -> list[tuple[str, Path]]:
        """Once, until something else is to be said."""
        if what != self._said:
            log.warning("%s", what)
        self._said = what
        return []

    def _read(self, name: str, path: Path, seen: str) -> tuple[tuple[int, ...], StaticPod | None]:
        before = self._known.get(name, ((), None))
        try:
            stat = path.stat()
            state = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
            if state == before[0]:
                return before
            made = static_pod(_text(path, stat.st_size), str(path), self._node, seen)
        except FileNotFoundError:
            return (), None
        except (OSError, UnicodeDecodeError) as error:
            log.warning("static pod %s cannot be read: %s", path, error)
            return before
        except PermanentError as error:
            log.warning("%s", error)
            return state, before[1]
        kept = before[1] if before[1] is not None and before[1].uid == made.uid else made
        return state, kept


def _text(path: Path, size: int) -> str:
    """Raises OSError, UnicodeDecodeError, PermanentError."""
    if size > LONGEST:
        raise PermanentError(f"static pod {path}: it is longer than {LONGEST} bytes")
    return path.read_text()
