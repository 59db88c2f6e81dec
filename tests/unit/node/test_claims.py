"""Volumes that claims are bound to: what a tenant's PersistentVolume can name, and what it cannot."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from polder.api.core import Pod
from polder.api.storagefacts import Claim, Volume
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.mux import Stream
from polder.node.pods.ports import Cluster
from polder.node.volumes.claims import Claims
from polder.node.volumes.mounting import Mounted
from polder.node.volumes.storage import DISCARDED, DRIVER, Storage
from polder.node.walks import Walks
from tests.unit.node.podkit import pod


class Known:
    """Claims and volumes by name; every look must be in the pod's own tenant."""

    def __init__(self, tenant: str, claims: dict[str, Any], volumes: dict[str, Any]) -> None:
        self.tenant, self.claims, self.volumes = tenant, claims, volumes

    async def claim(self, ref: Ref) -> Claim | None:
        assert (ref.tenant, ref.namespace) == (self.tenant, "ns")
        found = self.claims.get(ref.name)
        return (
            None if found is None else msgspec.convert({"metadata": {"name": ref.name, "uid": "c-1"}, **found}, Claim)
        )

    async def volume(self, tenant: TenantName, name: str) -> Volume | None:
        assert tenant == self.tenant
        spec = self.volumes.get(name)
        kept = {"claimRef": {"namespace": "ns", "name": "data", "uid": "c-1"}}
        return None if spec is None else msgspec.convert({"metadata": {"name": name}, "spec": {**kept, **spec}}, Volume)


BOUND: dict[str, Any] = {"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}
CLAIMED: dict[str, Any] = {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}


async def mounted(
    place: Path, spec: dict[str, Any], claim: dict[str, Any] | None = BOUND, *, tenant: str = "root", **around: Any
) -> Mounted:
    whole: Pod = pod({**CLAIMED, **around}, tenant=tenant)
    cluster = Known(tenant, {} if claim is None else {"data": claim, "p-d": claim}, {"v": spec})
    found = await Claims(cast(Cluster, cluster), Storage(place / "storage", lambda name: f"u-{name}")).mounted(
        whole, (whole.spec.volumes or [])[0]
    )
    assert found is not None
    return found


async def test_the_platforms_pods_have_paths_of_the_node(tmp_path: Path) -> None:
    assert (await mounted(tmp_path, {"local": {"path": str(tmp_path)}})).path == tmp_path
    made = tmp_path / "new"
    spec = {"hostPath": {"path": str(made), "type": "DirectoryOrCreate"}}
    assert (await mounted(tmp_path, spec)).path == made and made.is_dir()
    with pytest.raises(PermanentError, match="is not a directory"):
        await mounted(tmp_path, {"local": {"path": str(tmp_path / "missing")}})


async def test_a_tenants_volume_is_never_a_path_of_the_node(tmp_path: Path) -> None:
    for spec in ({"local": {"path": str(tmp_path)}}, {"hostPath": {"path": "/"}}):
        with pytest.raises(PermanentError, match="for pods of the platform"):
            await mounted(tmp_path, spec, tenant="acme")


async def test_a_directory_of_the_tenants_own(tmp_path: Path) -> None:
    spec = {"csi": {"driver": DRIVER, "volumeHandle": "pvc-1"}}
    found = await mounted(tmp_path, spec, tenant="acme")
    assert found.path == tmp_path / "storage" / "acme.u-acme" / "pvc-1"
    (found.path / "kept").write_text("x")
    again = await mounted(tmp_path, spec, tenant="acme", securityContext={"fsGroup": 42})
    assert (again.path / "kept").stat().st_gid == 42
    assert (await mounted(tmp_path, spec, tenant="globex")).path == tmp_path / "storage" / "globex.u-globex" / "pvc-1"
    for handle in ("../globex/pvc-1", "..", ".", "/etc", "a/b", ""):
        with pytest.raises(PermanentError, match="is no name of a volume"):
            await mounted(tmp_path, {"csi": {"driver": DRIVER, "volumeHandle": handle}}, tenant="acme")
    with pytest.raises(PermanentError, match="of a kind that is not supported"):
        await mounted(tmp_path, {"csi": {"driver": "other", "volumeHandle": "x"}}, tenant="acme")


async def test_who_may_only_read_does(tmp_path: Path) -> None:
    spec = {"csi": {"driver": DRIVER, "volumeHandle": "pvc-1"}}
    assert not (await mounted(tmp_path, spec)).read_only
    read = [{"name": "d", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}]
    assert (await mounted(tmp_path, spec, volumes=read)).read_only
    assert (await mounted(tmp_path, {"csi": {**spec["csi"], "readOnly": True}})).read_only


@pytest.mark.parametrize(
    ("claim", "volume", "why"),
    [
        (None, {}, "not found"),
        ({"spec": {}, "status": {"phase": "Pending"}}, {}, "is not bound"),
        ({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}}, {}, "is not bound"),
        ({"spec": {"volumeName": "w"}, "status": {"phase": "Bound"}}, {}, "not its own"),
        (BOUND, {"claimRef": {"namespace": "ns", "name": "data", "uid": "c-0"}}, "not its own"),
    ],
)
async def test_a_claim_without_its_volume_is_waited_for(
    tmp_path: Path, claim: dict[str, Any] | None, volume: dict[str, Any], why: str
) -> None:
    with pytest.raises(RetryableError, match=why):
        await mounted(tmp_path, {"local": {"path": str(tmp_path)}, **volume}, claim)


async def test_a_claim_of_the_pods_own_must_be_its_own(tmp_path: Path) -> None:
    spec, volumes = {"local": {"path": str(tmp_path)}}, [{"name": "d", "ephemeral": {}}]
    mine = {**BOUND, "metadata": {"name": "p-d", "uid": "c-1"}}
    with pytest.raises(PermanentError, match="was not created for pod"):
        await mounted(tmp_path, spec, BOUND, volumes=volumes)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u-1"}
    mine["metadata"]["ownerReferences"] = [owner]
    assert (await mounted(tmp_path, spec, mine, volumes=volumes)).path == tmp_path


async def test_block_devices_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="volumeMode Block"):
        await mounted(tmp_path, {"local": {"path": str(tmp_path)}, "volumeMode": "Block"})


class Asked:
    """The stream of one question: what was answered."""

    def __init__(self) -> None:
        self.said = b""
        self.refused = ""

    async def write(self, data: bytes) -> None:
        self.said += data

    async def reset(self, reason: str) -> None:
        self.refused = reason


def names(base: Path) -> list[str]:
    return sorted(str(place.relative_to(base)) for place in base.glob("*/*"))


async def test_what_is_given_up_is_removed_and_nothing_else(tmp_path: Path) -> None:
    storage = Storage(tmp_path, lambda name: f"u-{name}")
    acme, like, other = TenantName("acme"), TenantName("acme.x"), TenantName("globex")
    for tenant in (acme, like, other):
        (storage.directory(tenant, "pvc-1") / "f").touch()
    kept = storage.directory(acme, "pvc-2")
    running = asyncio.create_task(storage.run())
    for header in ({"tenant": "acme", "handle": "pvc-1"}, {"tenant": "acme", "handle": "pvc-1"}):
        asked = Asked()
        await storage.serve(header, cast(Stream, asked))
        assert asked.said == DISCARDED, "once more is no error"
    for header in ({"tenant": "acme", "handle": "../globex.u-globex/pvc-1"}, {"tenant": "*", "handle": "pvc-1"}, {}):
        asked = Asked()
        await storage.serve(header, cast(Stream, asked))
        assert asked.refused and not asked.said
    async with asyncio.timeout(5):
        while any("/.gone-" in name for name in names(tmp_path)):  # noqa: ASYNC110  a thread removes them
            await asyncio.sleep(0.01)
    running.cancel()
    left = names(tmp_path)
    assert left == ["acme.u-acme/pvc-2", "acme.x.u-acme.x/pvc-1", "globex.u-globex/pvc-1"]
    assert kept.is_dir()


async def test_a_later_tenant_of_the_same_name_finds_nothing(tmp_path: Path) -> None:
    uids = iter(["one", "two", ""])
    storage = Storage(tmp_path, lambda name: next(uids))
    (storage.directory(TenantName("acme"), "pvc-1") / "f").touch()
    assert list(storage.directory(TenantName("acme"), "pvc-1").iterdir()) == []
    with pytest.raises(RetryableError, match="is not known on this node yet"):
        storage.directory(TenantName("acme"), "pvc-1")
    root = Storage(tmp_path, lambda name: "").directory(TenantName("root"), "pvc-1")
    assert root == tmp_path / "root.root" / "pvc-1"


class KilledError(BaseException):
    """kill -9."""


@pytest.mark.parametrize("step", ["mkdir", "chmod", "rename"])
def test_an_agent_killed_while_it_makes_a_volume_leaves_none_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    handle, real = "h" * 253, getattr(Path, step)

    def killed(self: Path, *args: Any, **more: Any) -> Any:
        if self.name.endswith(handle):
            raise KilledError
        return real(self, *args, **more)

    monkeypatch.setattr(Path, step, killed)
    with pytest.raises(KilledError):
        Storage(tmp_path, lambda name: "u").directory(TenantName("acme"), handle)
    monkeypatch.undo()
    made = Storage(tmp_path, lambda name: "u").directory(TenantName("acme"), handle)
    assert made.stat().st_mode & 0o777 == 0o777
    assert names(tmp_path) == [f"acme.u/{handle}"]


async def test_a_tenants_large_volumes_keep_nobody_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, walked = threading.Event(), []

    def walk(path: Path, group: int, policy: str = "") -> None:
        walked.append(path)
        if "evil" in str(path):
            gate.wait(60)

    monkeypatch.setattr("polder.node.volumes.claims.give_to_group", walk)
    spec = {"csi": {"driver": DRIVER, "volumeHandle": "pvc-1"}}
    storage, walks = Storage(tmp_path / "storage", lambda name: f"u-{name}"), Walks()

    async def mount(tenant: str) -> Mounted | None:
        whole = pod({**CLAIMED, "securityContext": {"fsGroup": 42}}, tenant=tenant)
        cluster = cast(Cluster, Known(tenant, {"data": BOUND}, {"v": spec}))
        return await Claims(cluster, storage, walks).mounted(whole, (whole.spec.volumes or [])[0])

    many = [asyncio.create_task(mount("evil")) for _ in range(10)]
    try:
        async with asyncio.timeout(20):
            while not walked:  # noqa: ASYNC110  a thread tells nobody
                await asyncio.sleep(0.01)
            assert await mount("good") is not None
    finally:
        gate.set()
        await asyncio.gather(*many)


async def test_a_claims_directory_is_known_with_what_was_asked_for_and_who_has_it(tmp_path: Path) -> None:
    """What the volume, the tenant's own object, says of its size counts for nothing."""
    spec = {"csi": {"driver": DRIVER, "volumeHandle": "pvc-1"}, "capacity": {"storage": "1Ei"}}
    claim = {**BOUND, "spec": {"volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}}
    storage, whole = Storage(tmp_path, lambda name: f"u-{name}"), pod(CLAIMED, tenant="acme")
    claims = Claims(cast(Cluster, Known("acme", {"data": claim}, {"v": spec})), storage)
    for _ in range(2):
        await claims.mounted(whole, (whole.spec.volumes or [])[0])
    (held,) = storage.held()
    assert (held.tenant, held.asked, held.pods) == ("acme", 1 << 30, {whole.metadata.uid})
    assert held.place == tmp_path / "acme.u-acme" / "pvc-1"
    await claims.release(whole.metadata.uid)
    assert held.pods == set() and storage.held() == [held], "what it filled is there still"
