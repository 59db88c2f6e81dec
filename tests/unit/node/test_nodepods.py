"""Pods of the API and of files as one source: whom the workers see, and when one may take another's place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from polder.api.core import Pod, PodStatus
from polder.api.meta import TENANT_ANNOTATION, ref_of
from polder.api.staticpods import MIRROR
from polder.base.clock import SystemClock
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.node.pods.manager import Change
from polder.node.pods.manifests import Folder
from polder.node.pods.nodepods import NodePods
from polder.system.cri_types import SandboxInfo, SandboxMetadata
from tests.unit.node.podkit import pod
from tests.unit.node.test_manifests import TEXT, WEB


class Api:
    """An informer's cache, filled by hand."""

    def __init__(self) -> None:
        self.synced = True
        self.pods: dict[Ref, Pod] = {}
        self._tell: list[Change] = []

    def on_change(self, fn: Change) -> None:
        self._tell.append(fn)

    def get(self, ref: Ref) -> Pod | None:
        return self.pods.get(ref)

    def values(self) -> Iterable[Pod]:
        return list(self.pods.values())

    async def wait_synced(self) -> None:
        return

    def put(self, ref: Ref, new: Pod | None) -> None:
        old = self.pods.pop(ref, None)
        if new is not None:
            self.pods[ref] = new
        for fn in self._tell:
            fn(ref, old, new)


class Node:
    """Who runs pods, and the runtime; nothing ends by itself."""

    def __init__(self) -> None:
        self.workers: set[str] = set()
        self.ended: list[str] = []
        self.sandboxes: list[SandboxInfo] = []

    def end(self, uid: str) -> None:
        self.ended.append(uid)
        self.workers.add(uid)

    def runs(self, uid: str) -> bool:
        return uid in self.workers

    async def list_sandboxes(self, uid: str = "") -> list[SandboxInfo]:
        return self.sandboxes

    def left(self, uid: str) -> None:
        self.workers.discard(uid)
        self.sandboxes = [one for one in self.sandboxes if one.metadata.uid != uid]

    def has(self, uid: str) -> None:
        self.workers.add(uid)
        self.sandboxes.append(SandboxInfo(uid, SandboxMetadata("web-n1", "root/default", uid, 0), True, 0, {}, {}))


class Kit:
    def __init__(self, folder: Path) -> None:
        self.file, self.api, self.node = folder / "web.yaml", Api(), Node()
        self.pods = NodePods(self.api, Folder(folder, "n1"), SystemClock())
        self.told: list[tuple[str | None, str | None]] = []
        self.pods.on_change(lambda ref, old, new: self.told.append((_uid(old), _uid(new))))

    async def look(self) -> str:
        """The UID of the static pod that runs now; empty for none."""
        await self.pods.look(self.node, self.node)
        one = self.pods.statics.get(WEB)
        return one.uid if one is not None else ""


def _uid(one: Pod | None) -> str | None:
    return None if one is None else one.metadata.uid


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


def mirror(uid: str, own: str = "m-1", **meta: object) -> Pod:
    return pod(tenant=ROOT, name="web-n1", namespace="default", uid=own, annotations={MIRROR: uid}, **meta)


async def test_the_api_is_not_waited_for(kit: Kit) -> None:
    kit.api.synced = False
    kit.file.write_text(TEXT)
    uid = await kit.look()
    assert kit.told == [(None, uid)]
    assert not kit.pods.synced
    kit.api.synced = True
    assert kit.pods.synced


async def test_a_changed_file_waits_until_the_pod_before_has_left(kit: Kit) -> None:
    kit.file.write_text(TEXT)
    first = await kit.look()
    assert first
    kit.node.has(first)
    kit.file.write_text(TEXT.replace("toolbox", "another"))
    assert await kit.look() == ""
    assert kit.told[-1] == (first, None)
    kit.node.sandboxes.clear()
    assert await kit.look() == "", "its worker has still to clean up"
    kit.node.left(first)
    second = await kit.look()
    assert second not in {"", first}
    kit.node.has(second)
    kit.file.unlink()
    assert await kit.look() == ""
    assert kit.told[-1] == (second, None)


async def test_a_file_that_is_as_it_was_before_waits_too(kit: Kit) -> None:
    kit.file.write_text(TEXT)
    first = await kit.look()
    assert first
    kit.node.has(first)
    kit.file.unlink()
    await kit.look()
    kit.file.write_text(TEXT)
    assert await kit.look() == "", "that worker ends, and would take the new pod with it"
    kit.node.left(first)
    assert await kit.look() == first


async def test_what_an_earlier_agent_ran_ends_or_is_taken_up(kit: Kit) -> None:
    kit.file.write_text(TEXT)
    old = "0" * 32
    kit.node.has(old)
    kit.node.workers.clear()
    kit.node.sandboxes.append(SandboxInfo("s", SandboxMetadata("db-0", "acme/default", "u-1", 0), True, 0, {}, {}))
    assert await kit.look() == ""
    assert kit.node.ended == [old], "pods of the API are not asked for here"
    kit.node.left(old)
    uid = await kit.look()
    assert uid
    again = Kit(kit.file.parent)
    again.node.has(uid)
    again.node.workers.clear()
    assert await again.look() == uid
    assert again.node.ended == []


async def test_a_mirror_is_no_pod_to_run_and_lends_its_status(kit: Kit) -> None:
    kit.file.write_text(TEXT)
    uid = await kit.look()
    kit.told.clear()
    status = PodStatus(phase="Running", start_time="2026-01-01T00:00:00Z")
    shown = mirror(uid)
    kit.api.put(WEB, pod_with(shown, status))
    assert kit.told == [(uid, uid)], "its worker looks again"
    assert [one.metadata.uid for one in kit.pods.values()] == [uid]
    found = kit.pods.get(WEB)
    assert found is not None
    assert found.status == status
    assert (kit.pods.own_uid("m-1"), kit.pods.shown_uid(uid)) == (uid, "m-1")
    kit.api.put(WEB, mirror(uid, "m-2", deletionTimestamp="2026-01-01T00:00:00Z"))
    assert kit.pods.mirror_of(uid) is None
    kit.api.put(WEB, None)
    assert _uid(kit.pods.get(WEB)) == uid, "the pod goes on"
    assert (kit.pods.own_uid("m-1"), kit.pods.shown_uid(uid)) == ("m-1", uid)


async def test_nobody_elses_pod_is_taken_for_a_mirror(kit: Kit) -> None:
    kit.file.write_text(TEXT)
    uid = await kit.look()
    theirs = pod(tenant="acme", name="web-n1", namespace="default", uid="t-1", annotations={MIRROR: uid})
    named = msg_tenant(theirs)
    kit.api.put(ref_of(named), named)
    assert kit.pods.own_uid("t-1") == "t-1"
    assert kit.pods.get(ref_of(named)) is named
    other = mirror(uid, "m-9")
    kit.api.put(Ref(ROOT, "default", "else-n1"), other)
    assert kit.pods.own_uid("m-9") == "m-9", "another name's"
    assert kit.pods.mirror_of(uid) is None


def pod_with(one: Pod, status: PodStatus) -> Pod:
    return msgspec.structs.replace(one, status=status)


def msg_tenant(one: Pod) -> Pod:
    said = {**(one.metadata.annotations or {}), TENANT_ANNOTATION: "acme"}
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, annotations=said))
