"""The steps that start things: a sandbox, a container."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from polder.api.core import ConfigMap, Pod, Secret, Service
from polder.api.lifecycle import Hook
from polder.api.meta import tenant_of
from polder.api.podspec import Container, EphemeralContainer
from polder.api.staticpods import is_static_uid
from polder.base.errors import PermanentError, PolderError
from polder.base.ref import Ref
from polder.loop.wait import to_its_end
from polder.node.images import ImageError, Puller, Say
from polder.node.keyring import is_pull_secret
from polder.node.pods import configs, environment, hostnames
from polder.node.pods.context import Context
from polder.node.pods.envfiles import env_files
from polder.node.pods.groups import ensure_groups, without_swap
from polder.node.pods.ports import NORMAL, WARNING, Cluster, Recorder, part_of
from polder.node.pods.refuse import check_ephemeral
from polder.node.pods.security import Profiles
from polder.node.pods.stopping import Grace, Stopping
from polder.node.probes.attempt import LONGEST_EXEC, Target
from polder.node.probes.reach import Place
from polder.node.volumes.mounting import Mounted, bind_mounts
from polder.system.cri_types import ContainerConfig, ContainerInfo, ContainerState, RuntimeFailureError

PATIENCE = 2.0
"""Seconds that a static pod gives the API to say where its service is."""
SECRETS = 16
"""Pull secrets that are read for one pod."""


class StartError(PolderError):
    """Why something did not start: upstream's reason for the container's state, one sentence, seconds until retry."""

    def __init__(self, reason: str, message: str, after: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.after = after


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox that containers start in."""

    id: str
    attempt: int
    addresses: tuple[str, ...]


async def start_sandbox(ctx: Context, pod: Pod, attempt: int) -> Sandbox:
    """Makes the pod's sandbox, with network. Raises StartError."""
    try:
        config = configs.sandbox_config(pod, attempt, ctx.places, ctx.resolver)
        handler = await _handler(ctx, pod)
    except PermanentError as error:
        ctx.recorder.event(pod, WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        raise
    async with ctx.starts:
        await asyncio.to_thread(_prepare_host, ctx, pod)
        try:
            found = await ctx.cri.run_sandbox(config, handler)
            addresses = (await ctx.cri.sandbox_network(found)).addresses
        except RuntimeFailureError as error:
            message = f"Failed to create pod sandbox: {error}"
            if not error.away:
                ctx.recorder.event(pod, WARNING, "FailedCreatePodSandBox", message)
            raise StartError("ContainerCreating", message, 1.0) from error
    return Sandbox(found, attempt, addresses)


async def _handler(ctx: Context, pod: Pod) -> str:
    """The runtime handler of the pod's RuntimeClass; empty for the default. Raises PermanentError."""
    name = pod.spec.runtime_class_name
    if not name:
        return ""
    handler = await ctx.cluster.runtime_handler(tenant_of(pod.metadata), name)
    if handler is None:
        raise PermanentError(f'runtimeclass.node.k8s.io "{name}" not found')
    return handler


def _prepare_host(ctx: Context, pod: Pod) -> None:
    ctx.places.pod(pod.metadata.uid).mkdir(parents=True, exist_ok=True, mode=0o711)
    ctx.places.log_directory(pod).mkdir(parents=True, exist_ok=True, mode=0o700)
    ensure_groups(ctx, pod)


async def _kubernetes(ctx: Context, pod: Pod) -> Service | None:
    """The tenant's service of the API. A static pod does not wait for the API."""
    tenant = tenant_of(pod.metadata)
    if not is_static_uid(pod.metadata.uid):
        return await ctx.cluster.kubernetes_service(tenant)
    try:
        async with asyncio.timeout(PATIENCE):
            return await ctx.cluster.kubernetes_service(tenant)
    except (PolderError, OSError):
        return None


async def _sources(ctx: Context, start: Start) -> environment.Sources:
    pod, container = start.pod, start.container
    maps, secrets = environment.needed(container)
    tenant, namespace = tenant_of(pod.metadata), pod.metadata.namespace
    found_maps: dict[str, ConfigMap | None] = {}
    found_secrets: dict[str, Secret | None] = {}
    for name in maps:
        found_maps[name] = await ctx.cluster.config_map(Ref(tenant, namespace, name))
    for name in secrets:
        found_secrets[name] = await ctx.cluster.secret(Ref(tenant, namespace, name))
    files = await asyncio.to_thread(env_files, pod, container, start.volumes)
    kubernetes = await _kubernetes(ctx, pod)
    return environment.Sources(found_maps, found_secrets, kubernetes, ctx.services(tenant, namespace), files)


@dataclass(frozen=True, slots=True)
class Start:
    """One container to start."""

    pod: Pod
    container: Container
    attempt: int
    sandbox: Sandbox
    volumes: Mapping[str, Mounted]
    place: Place
    target: str = ""
    """The container whose processes an ephemeral one sees, by id."""


def puller(cluster: Cluster, recorder: Recorder, pod: Pod) -> Puller:
    """Whom an image is for. Its service account's secrets are among its own: admission put them there."""
    tenant, meta = tenant_of(pod.metadata), pod.metadata

    async def secrets() -> list[Secret]:
        names = [one.name for one in pod.spec.image_pull_secrets or []][:SECRETS]
        found = [await cluster.secret(Ref(tenant, meta.namespace, name)) for name in names if name]
        if any(secret is None for secret in found):
            missing = ", ".join(name for name, secret in zip(names, found, strict=False) if secret is None)
            say = (
                f"Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not succeed."
            )
            recorder.event(pod, WARNING, "FailedToRetrieveImagePullSecret", say)
        return [secret for secret in found if secret is not None and is_pull_secret(secret)]

    return Puller(tenant, meta.uid, secrets)


async def _configured(ctx: Context, start: Start, say: Say) -> ContainerConfig:
    """What the runtime is told of the container; its files on the host are made."""
    pod, container = start.pod, start.container
    if isinstance(container, EphemeralContainer):
        check_ephemeral(pod, container)
    image = await ctx.images.ensure(container, puller(ctx.cluster, ctx.recorder, pod), say)
    sources = await _sources(ctx, start)
    around = ctx.machine.around(pod, start.sandbox.addresses)
    env = environment.environment(pod, container, sources, around)
    area = ctx.places.sub_paths(pod.metadata.uid)
    mounts = await asyncio.to_thread(bind_mounts, pod, container, start.volumes, area, env)
    profiles = Profiles(ctx.places.seccomp, ctx.features.app_armor)
    inputs = configs.Inputs(start.attempt, image, env, mounts, ctx.machine.memory, profiles)
    config = configs.container_config(pod, container, inputs, ctx.places)
    config = replace(config, resources=without_swap(ctx, config.resources))
    if start.target and not config.security.host_pid and not config.security.shared_pid:
        config = replace(config, security=replace(config.security, target=start.target))
    await asyncio.to_thread(_prepare_files, ctx, start, sources.kubernetes)
    return config


async def start_container(ctx: Context, start: Start) -> None:
    """Makes and starts one container. Raises StartError for what keeps it from being made; one that was made and does not
    start has ended, and the runtime says why.
    """
    pod, container = start.pod, start.container
    part = part_of(pod, container.name)

    def say(kind: str, reason: str, message: str) -> None:
        ctx.recorder.event(pod, kind, reason, message, part)

    try:
        config = await _configured(ctx, start, say)
    except ImageError as error:
        raise StartError(error.reason, str(error), error.after) from error
    except PermanentError as error:
        say(WARNING, "Failed", f"Error: {error}")
        raise StartError("CreateContainerConfigError", str(error), 10.0) from error
    within = configs.sandbox_config(pod, start.sandbox.attempt, ctx.places, ctx.resolver)
    try:
        made = await to_its_end(ctx.cri.create_container(start.sandbox.id, config, within))
    except RuntimeFailureError as error:
        if not error.away:
            say(WARNING, "Failed", f"Error: {error}")
        raise StartError("CreateContainerError", str(error), 2.0) from error
    say(NORMAL, "Created", f"Created container {container.name}")
    try:
        await to_its_end(ctx.cri.start_container(made))
    except RuntimeFailureError as error:
        if error.away:
            raise
        say(WARNING, "Failed", f"Error: {error}")
        return
    say(NORMAL, "Started", f"Started container {container.name}")
    if container.lifecycle is not None and container.lifecycle.post_start is not None:
        await _post_start(ctx, start, made, container.lifecycle.post_start)


async def _post_start(ctx: Context, start: Start, made: str, hook: Hook) -> None:
    """Runs the hook; a container whose hook fails is stopped, and its policy decides whether it starts again."""
    address = start.sandbox.addresses[0] if start.sandbox.addresses else ctx.machine.host_ip
    target = Target(made, start.container, address, start.place, tenant_of(start.pod.metadata))
    try:
        good = (await ctx.means.hook(target, hook, LONGEST_EXEC)).good
    except PolderError:
        good = False
    if not good:
        # Not what it said: a hook's output may hold secrets.
        part = part_of(start.pod, start.container.name)
        ctx.recorder.event(start.pod, WARNING, "FailedPostStartHook", "PostStartHook failed", part)
        grace = Grace(ctx.clock, start.pod.spec.termination_grace_period_seconds)
        stopping = Stopping(ctx, start.pod, {made: target}, grace)
        info = ContainerInfo(made, start.sandbox.id, start.container.name, start.attempt, ContainerState.RUNNING, 0)
        await stopping.one(info, "FailedPostStartHook")


def _hosts(ctx: Context, start: Start, kubernetes: Service | None) -> str:
    if start.pod.spec.host_network:
        return hostnames.hosts_file_of_node(start.pod, Path(configs.HOSTS).read_text(errors="replace"))
    told = ctx.resolver.address_of(tenant_of(start.pod.metadata))
    api = kubernetes.spec.cluster_ip if kubernetes is not None and not told else ""
    addresses = start.sandbox.addresses or (ctx.machine.host_ip,)
    return hostnames.hosts_file(start.pod, addresses, ctx.resolver.domain, api)


def _prepare_files(ctx: Context, start: Start, kubernetes: Service | None) -> None:
    """/etc/hosts, and the file for the container's last words, which its own user, whoever that is, writes."""
    uid = start.pod.metadata.uid
    ctx.places.hosts(uid).write_text(_hosts(ctx, start, kubernetes))
    path = ctx.places.message(uid, start.container.name, start.attempt)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    path.chmod(0o666)
