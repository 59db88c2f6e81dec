"""Static pods: pods that a node runs from files of its own, and the pods that show them in the API (mirror pods).

Source: Kubernetes documentation, "Create static Pods"; upstream's NodeRestriction for what a node may make.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

MIRROR: Final = "kubernetes.io/config.mirror"
"""On a mirror pod: the UID that the static pod has on its node."""
HASH: Final = "kubernetes.io/config.hash"
SOURCE: Final = "kubernetes.io/config.source"
SEEN: Final = "kubernetes.io/config.seen"
FILE: Final = "file"
TOLERATION: Final[Raw] = {"operator": "Exists", "effect": "NoExecute"}
"""What a static pod bears: nobody but its file ends it."""
_NEEDS_API: Final = "names an object of the API, without which a static pod has to run"
_SPEC: Final = Field("spec")
_VOLUMES: Final = frozenset({"name", "emptyDir", "hostPath", "downwardAPI", "image", "projected"})
_UID: Final = re.compile(r"[0-9a-f]{32}")


def is_mirror(pod: Raw) -> bool:
    """Whether a pod says that it only shows a static one. It means something in ``root`` alone."""
    return MIRROR in ((pod.get("metadata") or {}).get("annotations") or {})


def is_static_uid(uid: str) -> bool:
    """Whether it is a static pod's own UID: a hash, where the API's UIDs have dashes (RFC 9562)."""
    return _UID.fullmatch(uid) is not None


def static_problems(spec: Raw) -> Iterator[FieldError]:
    """What a static pod cannot have: objects of the API, and a network of which the API gives the addresses."""
    if not spec.get("hostNetwork"):
        why = "must be true: a static pod has its node's network, since addresses of other networks come from the API"
        yield (_SPEC / "hostNetwork").invalid(False, why)
    for name in ("serviceAccountName", "serviceAccount", "imagePullSecrets", "resourceClaims", "runtimeClassName"):
        if spec.get(name):
            yield (_SPEC / name).forbidden(_NEEDS_API)
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for number, container in enumerate(spec.get(group) or ()):
            yield from _of_container(container, (_SPEC / group)[number])
    for number, volume in enumerate(spec.get("volumes") or ()):
        yield from _of_volume(volume, (_SPEC / "volumes")[number])


def _of_container(container: Raw, at: Field) -> Iterator[FieldError]:
    for number, source in enumerate(container.get("envFrom") or ()):
        for name in ("configMapRef", "secretRef"):
            if source.get(name) is not None:
                yield ((at / "envFrom")[number] / name).forbidden(_NEEDS_API)
    for number, variable in enumerate(container.get("env") or ()):
        for name in ("configMapKeyRef", "secretKeyRef"):
            if (variable.get("valueFrom") or {}).get(name) is not None:
                yield ((at / "env")[number] / "valueFrom" / name).forbidden(_NEEDS_API)


def _of_volume(volume: Raw, at: Field) -> Iterator[FieldError]:
    for name in sorted(volume.keys() - _VOLUMES):
        yield (at / name).forbidden(_NEEDS_API)
    for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        for name in sorted(source.keys() - {"downwardAPI"}):
            yield ((at / "projected" / "sources")[number] / name).forbidden(_NEEDS_API)


def mirror_problems(pod: Raw, node: str, node_uid: str) -> Iterator[FieldError]:
    """Why a node may not make this pod: it makes mirrors of its own static pods alone. A name ends with the node's, so that no
    node takes a name from somebody else's pod.
    """
    meta, spec, at = pod.get("metadata") or {}, pod.get("spec") or {}, Field("metadata")
    if not is_mirror(pod):
        yield (at / "annotations")[MIRROR].required("a node makes mirror pods alone")
        return
    if not str(meta.get("name", "")).endswith(f"-{node}"):
        yield (at / "name").invalid(meta.get("name", ""), f"must end with -{node}")
    if spec.get("nodeName") != node:
        yield (_SPEC / "nodeName").invalid(spec.get("nodeName", ""), f"must be {node}")
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": True}
    said = [{k: v for k, v in one.items() if v is not False} for one in meta.get("ownerReferences") or ()]
    if said != [owner]:
        why = f"must be the Node {node} alone, as controller, by its UID and without blockOwnerDeletion"
        yield (at / "ownerReferences").invalid(said, why)
    yield from static_problems(spec)
