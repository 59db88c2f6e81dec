"""The client of a container runtime over CRI v1 (third_party/cri/api.proto), and of containerd's event stream.

Messages are built from and turned into the types of ``cri_types``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from polder._generated import api_pb2 as pb
from polder.system.cri_messages import container_message, resources_message, sandbox_message
from polder.system.cri_types import (
    ContainerConfig,
    ContainerInfo,
    ContainerState,
    DiskUse,
    ExecResult,
    ExecTimeoutError,
    ImageInfo,
    Resources,
    RuntimeFailureError,
    RuntimeStatus,
    SandboxConfig,
    SandboxInfo,
    SandboxMetadata,
    SandboxNetwork,
)
from polder.system.rpc import Channel, RpcError

RUNTIME = "RuntimeService"
IMAGE = "ImageService"
QUICK = 10.0
"""Seconds within which a call that only reads must answer."""
SLOW = 120.0
"""Seconds for calls that make or remove something."""
PULL = 900.0
"""Seconds for the pull of an image."""
EXEC_OUTPUT = 1 << 20
"""Bytes that a command run by ``exec_sync`` may print."""


RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 500),
)
"""A runtime that is started anew is on this machine: gRPC's own figures, made for networks, begin at a second."""


class CriClient:
    """One runtime, by its unix socket. Every failure is a RuntimeFailureError with the runtime's words."""

    def __init__(self, socket: Path) -> None:
        self._channel = Channel(f"unix://{socket}", [("grpc.max_receive_message_length", 16 << 20), *RECONNECT])
        # What commands in containers print is a tenant's: over a connection that takes little at a time.
        self._execs = Channel(f"unix://{socket}", [("grpc.max_receive_message_length", EXEC_OUTPUT), *RECONNECT])

    async def close(self) -> None:
        """Ends the connections."""
        await self._channel.close()
        await self._execs.close()

    async def _call(self, service: str, method: str, request: Any, timeout: float) -> Any:
        try:
            answer = getattr(pb, f"{method}Response")
            return await self._channel.call(f"/runtime.v1.{service}/{method}", request, answer, timeout)
        except RpcError as error:
            raise RuntimeFailureError(
                f"{method}: {error}",
                missing=error.code == "NOT_FOUND",
                away=error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"},
            ) from error

    async def ask(self, method: str, request: Any) -> Any:
        """A quick call of the RuntimeService that has no place here (see ``cri_streaming``)."""
        return await self._call(RUNTIME, method, request, QUICK)

    async def version(self) -> tuple[str, str]:
        """Name and version of the runtime."""
        found = await self._call(RUNTIME, "Version", pb.VersionRequest(), QUICK)
        return found.runtime_name, found.runtime_version

    async def status(self) -> RuntimeStatus:
        """The runtime's own conditions."""
        found = await self._call(RUNTIME, "Status", pb.StatusRequest(), QUICK)
        by_type = {c.type: c for c in found.status.conditions}
        bad = [f"{c.reason}: {c.message}".strip(": ") for c in found.status.conditions if not c.status]
        ready = [name in by_type and by_type[name].status for name in ("RuntimeReady", "NetworkReady")]
        return RuntimeStatus(ready[0], ready[1], bad[0] if bad else "")

    async def strict_groups(self) -> bool:
        """Whether the runtime can leave out the groups that an image adds to a user; older ones do not say so, and cannot."""
        found = await self._call(RUNTIME, "Status", pb.StatusRequest(), QUICK)
        return bool(found.features.supplemental_groups_policy)

    async def list_sandboxes(self, uid: str = "") -> list[SandboxInfo]:
        """All sandboxes, or those of one pod."""
        request = pb.ListPodSandboxRequest()
        if uid:
            request.filter.label_selector[UID_LABEL] = uid
        found = await self._call(RUNTIME, "ListPodSandbox", request, QUICK)
        return [
            SandboxInfo(
                item.id,
                SandboxMetadata(item.metadata.name, item.metadata.namespace, item.metadata.uid, item.metadata.attempt),
                item.state == pb.SANDBOX_READY,
                item.created_at,
                dict(item.labels),
                dict(item.annotations),
            )
            for item in found.items
        ]

    async def run_sandbox(self, config: SandboxConfig, handler: str = "") -> str:
        """Makes and starts a sandbox, network included, by a runtime handler, the default one when empty; answers its id."""
        request = pb.RunPodSandboxRequest(config=sandbox_message(config), runtime_handler=handler)
        return str((await self._call(RUNTIME, "RunPodSandbox", request, SLOW)).pod_sandbox_id)

    async def sandbox_network(self, sandbox: str) -> SandboxNetwork:
        """The addresses of a sandbox, the first one first."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox)
        status = (await self._call(RUNTIME, "PodSandboxStatus", request, QUICK)).status
        more = [item.ip for item in status.network.additional_ips]
        return SandboxNetwork(tuple(ip for ip in (status.network.ip, *more) if ip))

    async def sandbox_details(self, sandbox: str) -> str:
        """The runtime's verbose JSON about a sandbox (containerd: with the OCI spec)."""
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
        found = await self._call(RUNTIME, "PodSandboxStatus", request, QUICK)
        return str(found.info.get("info", "{}"))

    async def stop_sandbox(self, sandbox: str) -> None:
        """Stops what runs in a sandbox and takes its network away; idempotent."""
        await self._gone_is_fine("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=sandbox))

    async def remove_sandbox(self, sandbox: str) -> None:
        """Removes a sandbox and its containers; idempotent."""
        await self._gone_is_fine("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))

    async def _gone_is_fine(self, method: str, request: Any, timeout: float = SLOW) -> None:
        try:
            await self._call(RUNTIME, method, request, timeout)
        except RuntimeFailureError as error:
            if not error.missing:
                raise

    async def list_containers(self, uid: str = "") -> list[ContainerInfo]:
        """All containers, or those of one pod: without times of start and end, exit code and reason."""
        request = pb.ListContainersRequest()
        if uid:
            request.filter.label_selector[UID_LABEL] = uid
        found = await self._call(RUNTIME, "ListContainers", request, QUICK)
        return [
            ContainerInfo(
                id=item.id,
                sandbox=item.pod_sandbox_id,
                name=item.metadata.name,
                attempt=item.metadata.attempt,
                state=ContainerState(item.state),
                created=item.created_at,
                image_ref=item.image_ref,
                labels=dict(item.labels),
            )
            for item in found.containers
        ]

    async def container(self, listed: ContainerInfo) -> ContainerInfo:
        """All that is known of a container that was listed."""
        request = pb.ContainerStatusRequest(container_id=listed.id)
        status = (await self._call(RUNTIME, "ContainerStatus", request, QUICK)).status
        return ContainerInfo(
            id=status.id,
            sandbox=listed.sandbox,
            name=status.metadata.name,
            attempt=status.metadata.attempt,
            state=ContainerState(status.state),
            created=status.created_at,
            started=status.started_at,
            finished=status.finished_at,
            exit_code=status.exit_code,
            reason=status.reason,
            message=status.message,
            image=status.image.image,
            image_ref=status.image_ref,
            log_path=status.log_path,
            labels=dict(status.labels),
            annotations=dict(status.annotations),
        )

    async def create_container(self, sandbox: str, config: ContainerConfig, within: SandboxConfig) -> str:
        """Makes a container in a sandbox; answers its id."""
        request = pb.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=container_message(config), sandbox_config=sandbox_message(within)
        )
        return str((await self._call(RUNTIME, "CreateContainer", request, SLOW)).container_id)

    async def start_container(self, container: str) -> None:
        """Starts a container that was made."""
        await self._call(RUNTIME, "StartContainer", pb.StartContainerRequest(container_id=container), SLOW)

    async def update_container(self, container: str, limits: Resources) -> None:
        """Gives a running container other limits; what its processes were started with (oom_score_adj) stays."""
        request = pb.UpdateContainerResourcesRequest(container_id=container, linux=resources_message(limits))
        await self._call(RUNTIME, "UpdateContainerResources", request, QUICK)

    async def stop_container(self, container: str, grace: int) -> None:
        """SIGTERM (or the image's stop signal), then after ``grace`` seconds SIGKILL; idempotent."""
        request = pb.StopContainerRequest(container_id=container, timeout=grace)
        await self._gone_is_fine("StopContainer", request, grace + SLOW)

    async def remove_container(self, container: str) -> None:
        """Removes a container; idempotent."""
        await self._gone_is_fine("RemoveContainer", pb.RemoveContainerRequest(container_id=container))

    async def exec_sync(self, container: str, argv: list[str], timeout: int) -> ExecResult:
        """Runs a command in a container to its end. Raises ExecTimeoutError for one that takes over ``timeout`` seconds, and
        RuntimeFailureError, also for one that prints more than ``EXEC_OUTPUT`` bytes.
        """
        request = pb.ExecSyncRequest(container_id=container, cmd=argv, timeout=timeout)
        try:
            done = await self._execs.call(
                f"/runtime.v1.{RUNTIME}/ExecSync", request, pb.ExecSyncResponse, timeout + QUICK
            )
        except RpcError as error:
            if error.code == "DEADLINE_EXCEEDED":
                raise ExecTimeoutError(f"ExecSync: {error}") from error
            raise RuntimeFailureError(
                f"ExecSync: {error}", missing=error.code == "NOT_FOUND", away=error.code == "UNAVAILABLE"
            ) from error
        return ExecResult(done.exit_code, done.stdout, done.stderr)

    async def disk_use(self) -> dict[str, dict[str, DiskUse]]:
        """What containers wrote to their own layers, by the pod's UID and the container's name. The runtime measures it every
        few seconds; of several runs of one container it is the newest.
        """
        found = await self._call(RUNTIME, "ListContainerStats", pb.ListContainerStatsRequest(), SLOW)
        used: dict[str, dict[str, DiskUse]] = {}
        newest: dict[tuple[str, str], int] = {}
        for item in found.stats:
            uid, meta, layer = item.attributes.labels.get(UID_LABEL, ""), item.attributes.metadata, item.writable_layer
            if meta.attempt >= newest.get((uid, meta.name), 0):
                newest[uid, meta.name] = meta.attempt
                one = DiskUse(layer.used_bytes.value, layer.inodes_used.value)
                used.setdefault(uid, {})[meta.name] = one
        return used

    async def images_use(self) -> int:
        """Bytes that images and the layers of containers take."""
        found = await self._call(IMAGE, "ImageFsInfo", pb.ImageFsInfoRequest(), SLOW)
        return sum(int(one.used_bytes.value) for one in found.image_filesystems)

    async def list_images(self) -> list[ImageInfo]:
        """All images that are here."""
        found = await self._call(IMAGE, "ListImages", pb.ListImagesRequest(), QUICK)
        return [_image(item) for item in found.images]

    async def remove_image(self, image: str) -> None:
        """Removes an image with all its names; idempotent."""
        try:
            await self._call(IMAGE, "RemoveImage", pb.RemoveImageRequest(image=pb.ImageSpec(image=image)), SLOW)
        except RuntimeFailureError as error:
            if not error.missing:
                raise

    async def reopen_log(self, container: str) -> None:
        """Makes the runtime write a container's log to a new file of the same path."""
        await self._call(RUNTIME, "ReopenContainerLog", pb.ReopenContainerLogRequest(container_id=container), QUICK)

    async def image(self, reference: str) -> ImageInfo | None:
        """The image that a reference means here; None if it is not here."""
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=reference))
        found = await self._call(IMAGE, "ImageStatus", request, QUICK)
        return _image(found.image) if found.HasField("image") and found.image.id else None

    async def chain(self, reference: str) -> str:
        """The chain id of an image's layers (OCI image specification), which names the snapshot of all of them."""
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=reference), verbose=True)
        found = await self._call(IMAGE, "ImageStatus", request, QUICK)
        chain = json.loads(found.info.get("info", "{}")).get("chainID", "")
        if not chain:
            raise RuntimeFailureError(f"the runtime does not tell the layers of image {reference}", missing=True)
        return str(chain)

    async def pull(self, reference: str, login: tuple[str, str, str, str] | None = None) -> None:
        """Pulls an image from its registry. ``login``: user, password, identity token, registry token."""
        request = pb.PullImageRequest(image=pb.ImageSpec(image=reference))
        if login is not None:
            names = ("username", "password", "identity_token", "registry_token")
            request.auth.CopyFrom(pb.AuthConfig(**dict(zip(names, login, strict=True))))
        await self._call(IMAGE, "PullImage", request, PULL)

    async def events(self) -> AsyncIterator[str]:
        """Topics of containerd's events (``/tasks/exit`` …) until the connection ends.

        CRI's GetContainerEvents is missing in containerd 1.6, so this is containerd's own Events/Subscribe; the
        envelope's topic (field 3, api/services/events/v1/events.proto) is all that is read.
        """
        topics = self._channel.events(
            "/containerd.services.events.v1.Events/Subscribe", [b"topic~=^/tasks/"], _filters, _topic
        )
        try:
            async with aclosing(topics):
                async for topic in topics:
                    yield topic
        except RpcError as error:
            raise RuntimeFailureError(f"containerd's events ended: {error}", away=True) from error


UID_LABEL = "io.kubernetes.pod.uid"
"""On every sandbox and container: the UID of its pod."""


def _filters(filters: list[bytes]) -> bytes:
    return b"".join(bytes([0x0A, len(f)]) + f for f in filters)


def _topic(envelope: bytes) -> str:
    position = 0
    while position < len(envelope):
        tag = envelope[position]
        size, position = _varint(envelope, position + 1)
        if tag & 7 == 2:
            if tag >> 3 == 3:
                return envelope[position : position + size].decode()
            position += size
    return ""


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if not byte & 0x80:
            return value, position


def _image(item: Any) -> ImageInfo:
    user = item.uid.value if item.HasField("uid") else None
    return ImageInfo(item.id, tuple(item.repo_tags), tuple(item.repo_digests), item.size, user, item.username)
