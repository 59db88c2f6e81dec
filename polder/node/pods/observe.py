"""Reading what the runtime has of one pod, cheaply: what has ended never changes and is asked for once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from polder.node.pods.configs import MESSAGE_ANNOTATION, POLICY_ANNOTATION
from polder.node.pods.view import View, make_view
from polder.system.cri import CriClient
from polder.system.cri_types import ContainerInfo, ContainerState, RuntimeFailureError

MESSAGE_BYTES = 4096
FALLBACK_BYTES = 2048


class Observer:
    """One pod's view, with a memory for what cannot change any more."""

    def __init__(self, cri: CriClient, uid: str) -> None:
        self._cri = cri
        self._uid = uid
        self._ended: dict[str, ContainerInfo] = {}
        self._addresses: tuple[str, tuple[str, ...]] = ("", ())
        self._space: tuple[str, Path | None] = ("", None)
        self.messages: dict[str, str] = {}
        """The last words of containers that ended, by id."""

    async def observe(self) -> View:
        """Sandboxes, containers and addresses as they are now."""
        sandboxes = await self._cri.list_sandboxes(self._uid)
        listed = await self._cri.list_containers(self._uid)
        found = [info for info in await asyncio.gather(*(self._detail(c) for c in listed)) if info is not None]
        ids = {c.id for c in listed}
        self._ended = {key: info for key, info in self._ended.items() if key in ids}
        self.messages = {key: text for key, text in self.messages.items() if key in ids}
        view = make_view(sandboxes, found)
        if view.sandbox is None or not view.sandbox.ready:
            return view
        return View(view.sandboxes, view.containers, await self._network(view.sandbox.id))

    async def space(self, sandbox: str) -> Path | None:
        """The file of a sandbox's network namespace; None where it shares the node's."""
        if self._space[0] != sandbox:
            spec = json.loads(await self._cri.sandbox_details(sandbox)).get("runtimeSpec") or {}
            spaces = (spec.get("linux") or {}).get("namespaces") or []
            found = [one.get("path", "") for one in spaces if one.get("type") == "network"]
            self._space = (sandbox, Path(found[0]) if found and found[0] else None)
        return self._space[1]

    async def _network(self, sandbox: str) -> tuple[str, ...]:
        if self._addresses[0] != sandbox or not self._addresses[1]:
            self._addresses = (sandbox, (await self._cri.sandbox_network(sandbox)).addresses)
        return self._addresses[1]

    async def _detail(self, listed: ContainerInfo) -> ContainerInfo | None:
        if listed.id in self._ended:
            return self._ended[listed.id]
        try:
            info = await self._cri.container(listed)
        except RuntimeFailureError as error:
            if error.missing:
                return None
            raise
        if info.state == ContainerState.EXITED:
            self._ended[info.id] = info
            self.messages[info.id] = await asyncio.to_thread(_last_words, info)
        return info


def _last_words(info: ContainerInfo) -> str:
    """The termination message, or, where the policy says so and the container failed, the end of its log."""
    path = info.annotations.get(MESSAGE_ANNOTATION)
    text = _tail(Path(path), MESSAGE_BYTES) if path else b""
    fallback = info.annotations.get(POLICY_ANNOTATION) == "FallbackToLogsOnError"
    if not text and fallback and info.exit_code != 0 and info.log_path:
        end = _tail(Path(info.log_path), 2 * FALLBACK_BYTES)
        lines = end.splitlines(keepends=True)
        # Each line begins with a time stamp, the stream and a tag (CRI log format); the first may have been cut.
        whole = lines if len(end) < 2 * FALLBACK_BYTES else lines[1:] or lines
        text = b"".join(map(_said, whole))[-FALLBACK_BYTES:]
    return text.decode(errors="replace")


def _said(line: bytes) -> bytes:
    """What the container wrote of a line: one that is tagged as partial ended without a line feed."""
    *head, text = line.split(b" ", 3)
    return text.removesuffix(b"\n") if len(head) == 3 and head[2] == b"P" else text


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - size))
            return file.read(size)
    except OSError:
        return b""
