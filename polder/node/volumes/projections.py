"""Which files Polder writes into a pod's volume: objects are read and turned into contents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podvolumes import ProjectedSource, Volume
from polder.base.errors import PermanentError
from polder.base.ref import Ref
from polder.node.pods.fields import Surroundings
from polder.node.pods.ports import Cluster
from polder.node.volumes import contents
from polder.node.volumes.atomic import FileSpec
from polder.node.volumes.contents import DEFAULT_MODE, Files
from polder.node.volumes.tokens import Tokens

OWN_TOKEN = 0o600
"""The mode of a token whose reader is known: the pod's user, or its fsGroup."""


@dataclass(frozen=True, slots=True)
class Projections:
    """Reads what volumes show. ``around`` tells a pod's downward fields."""

    cluster: Cluster
    tokens: Tokens
    around: Callable[[Pod], Surroundings]

    async def files(self, pod: Pod, volume: Volume) -> tuple[str, Files] | None:
        """The volume's kind and files; None for a volume that Polder does not write.

        Raises RetryableError for objects not there yet, PermanentError for what can never be.
        """
        if volume.config_map is not None:
            source = volume.config_map
            held = await self.cluster.config_map(_ref(pod, source.name))
            rules = (_mode(source.default_mode), source.optional)
            return "config-map", contents.config_map_files(source.name, held, source.items, rules)
        if volume.secret is not None:
            name, rules = volume.secret.secret_name, (_mode(volume.secret.default_mode), volume.secret.optional)
            secret = await self.cluster.secret(_ref(pod, name))
            return "secret", contents.secret_files(name, secret, volume.secret.items, rules)
        if volume.downward_api is not None:
            mode = _mode(volume.downward_api.default_mode)
            return "downward-api", contents.downward_files(pod, volume.downward_api, mode, self.around(pod))
        if volume.projected is not None:
            mode = _mode(volume.projected.default_mode)
            parts = [await self._projected(pod, source, mode) for source in volume.projected.sources or []]
            return "projected", contents.merged(parts)
        return None

    async def _projected(self, pod: Pod, source: ProjectedSource, mode: int) -> Files:
        if source.config_map is not None:
            held = await self.cluster.config_map(_ref(pod, source.config_map.name))
            rules = (mode, source.config_map.optional)
            return contents.config_map_files(source.config_map.name, held, source.config_map.items, rules)
        if source.secret is not None:
            secret = await self.cluster.secret(_ref(pod, source.secret.name))
            rules = (mode, source.secret.optional)
            return contents.secret_files(source.secret.name, secret, source.secret.items, rules)
        if source.downward_api is not None:
            return contents.downward_files(pod, source.downward_api, mode, self.around(pod))
        if source.service_account_token is not None:
            token = await self.tokens.token(pod, source.service_account_token)
            return {source.service_account_token.path: _token_file(pod, FileSpec(token.encode(), mode))}
        raise PermanentError(f"a projected volume of pod {pod.metadata.name} has a source that is not supported")


def _token_file(pod: Pod, file: FileSpec) -> FileSpec:
    """Where it is known who reads the token, nobody else does."""
    around = pod.spec.security_context
    user = sole_user(pod)
    if user is None and (around is None or around.fs_group is None):
        return file
    return replace(file, mode=OWN_TOKEN, owner=user)


def sole_user(pod: Pod) -> int | None:
    """The user that all containers run as; None where they differ or nothing is said."""
    around = pod.spec.security_context.run_as_user if pod.spec.security_context else None
    users = set()
    for container in [*(pod.spec.init_containers or []), *pod.spec.containers]:
        own = container.security_context.run_as_user if container.security_context else None
        users.add(around if own is None else own)
    return users.pop() if len(users) == 1 else None


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _ref(pod: Pod, name: str) -> Ref:
    return Ref(tenant_of(pod.metadata), pod.metadata.namespace, name)


def mentioned(pod: Pod) -> frozenset[tuple[str, str]]:
    """The (resource, name) of the ConfigMaps and Secrets that the pod's volumes show."""
    found = set()
    for volume in pod.spec.volumes or []:
        found.update([("configmaps", volume.config_map.name)] if volume.config_map else [])
        found.update([("secrets", volume.secret.secret_name)] if volume.secret else [])
        for source in (volume.projected.sources or []) if volume.projected else []:
            found.update([("configmaps", source.config_map.name)] if source.config_map else [])
            found.update([("secrets", source.secret.name)] if source.secret else [])
    return frozenset(found)
