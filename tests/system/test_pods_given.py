"""What pods are given on a real containerd: volumes, rights, names and variables, as a process in them sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from polder.api.core import ConfigMap, Pod
from polder.api.storagefacts import Claim, Volume
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.node.archive import Entry, Image, archive
from polder.node.images import import_archive
from polder.system.commands import run
from polder.system.containerd import snapshotter_of
from polder.system.mounts import observe_mounts
from tests.system.pods_kit import NodeKit, make_pod, meta_only, node_kit

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        yield kit


async def said(node: NodeKit, script: str, name: str = "given", **spec: Any) -> list[str]:
    """The lines that a pod of this script prints until it ends well."""
    pod = make_pod(name, script, restartPolicy="Never", **spec)
    node.cluster.apply(pod)
    done = await node.cluster.until(pod, lambda p: p is not None and p.status.phase in {"Succeeded", "Failed"}, 30)
    lines = log_of(node, pod)
    assert done is not None and done.status.phase == "Succeeded", (lines, node.cluster.events)
    await gone(node, pod)
    return lines


def log_of(node: NodeKit, pod: Pod) -> list[str]:
    file = node.ctx.places.log_directory(pod) / "main" / "0.log"
    return [line.split(" ", 3)[3] for line in file.read_text().splitlines()]


async def gone(node: NodeKit, pod: Pod) -> None:
    node.cluster.delete(pod)
    await node.cluster.until(pod, lambda p: p is None)
    place = node.ctx.places.pod(pod.metadata.uid)
    assert not place.exists()
    assert not [m for m in observe_mounts() if place in m.target.parents]


async def test_groups_users_and_modes(node: NodeKit) -> None:
    lines = await said(
        node,
        "id -u; id -g; id -G; stat -c %A:%g /d; touch /d/x; stat -c %u:%g /d/x",
        securityContext={"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000]},
        volumes=[{"name": "d", "emptyDir": {"medium": "Memory"}}],
        container={"volumeMounts": [{"name": "d", "mountPath": "/d"}]},
    )
    assert lines[:2] == ["1000", "2000"]
    assert {"3000", "4000"} <= set(lines[2].split())
    assert lines[3:] == ["drwxrwsrwt:3000", "1000:3000"]


async def test_rights(node: NodeKit) -> None:
    script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'; touch /x 2>&1 || true"
    context = {
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
    }
    lines = await said(node, script, container={"securityContext": context})
    assert lines[:3] == ["CapEff:0000000000000400", "NoNewPrivs:1", "Seccomp:2"]
    assert "Read-only" in lines[3]


async def test_seccomp_profiles_of_the_node_and_none(node: NodeKit) -> None:
    directory = node.ctx.places.seccomp / "tenants"
    directory.mkdir(parents=True, exist_ok=True)
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    (directory / "no-mkdir.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    script = "grep Seccomp: /proc/self/status | tr -d '\\t'; mkdir /tmp/made 2>&1 || true"
    local = {"type": "Localhost", "localhostProfile": "tenants/no-mkdir.json"}
    lines = await said(node, script, securityContext={"seccompProfile": local})
    assert lines[0] == "Seccomp:2" and "not permitted" in lines[1]
    loose = {"seccompProfile": {"type": "Unconfined"}}
    assert await said(node, script, "loose", tenant="root", securityContext=loose) == ["Seccomp:0"]


async def test_names(node: NodeKit) -> None:
    lines = await said(
        node,
        "hostname; cat /etc/hosts",
        hostname="h",
        subdomain="s",
        setHostnameAsFQDN=True,
        hostAliases=[{"ip": "192.0.2.9", "hostnames": ["other"]}],
    )
    assert lines[0] == "h.s.default.svc.cluster.local"
    assert lines[1] == "# Kubernetes-managed hosts file."
    assert "192.0.2.9\tother" in lines


async def test_a_file_of_an_init_container_becomes_a_variable(node: NodeKit) -> None:
    mounts = [{"name": "e", "mountPath": "/e"}]
    first = {"name": "first", "image": "toolbox", "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts}
    ref = {"volumeName": "e", "path": "vars", "key": "TOLD"}
    lines = await said(
        node,
        "echo $TOLD; echo $BOTH",
        initContainers=[{**first, "command": ["sh", "-c", "echo \"TOLD='by the first'\" > /e/vars"]}],
        volumes=[{"name": "e", "emptyDir": {}}],
        container={
            "env": [{"name": "TOLD", "valueFrom": {"fileKeyRef": ref}}, {"name": "BOTH", "value": "$(TOLD)!"}],
        },
    )
    assert lines == ["by the first", "by the first!"]


async def test_an_image_is_a_volume(node: NodeKit) -> None:
    lines = await said(
        node,
        "ls -d /i/bin /bin2/busybox; touch /i/x 2>&1 || true",
        volumes=[{"name": "i", "image": {"reference": "toolbox", "pullPolicy": "IfNotPresent"}}],
        container={
            "volumeMounts": [
                {"name": "i", "mountPath": "/i"},
                {"name": "i", "mountPath": "/bin2", "subPath": "bin"},
            ]
        },
    )
    assert lines[:2] == ["/bin2/busybox", "/i/bin"] and "Read-only" in lines[2]
    views = await asyncio.to_thread(
        run,
        "ctr",
        "-a",
        str(node.paths.socket),
        "-n",
        "k8s.io",
        "snapshots",
        "--snapshotter",
        snapshotter_of(node.paths),
        "ls",
    )
    assert "sha256:" in views and "polder-volume-" not in views, "a pod that is gone holds no view"


async def test_an_image_that_no_container_has_used_is_a_volume(node: NodeKit) -> None:
    """An import brings the layers packed, as they came."""
    file = node.base / "data.tar"
    file.write_bytes(archive(Image("docker.io/library/data:1", [Entry("told", b"packed\n", mode=0o644)])))
    await import_archive(node.paths.socket, file)
    volumes = [{"name": "i", "image": {"reference": "data:1", "pullPolicy": "Never"}}]
    mounts = {"volumeMounts": [{"name": "i", "mountPath": "/i"}]}
    assert await said(node, "cat /i/told", volumes=volumes, container=mounts) == ["packed"]


async def test_a_claims_volume_outlives_its_pods(node: NodeKit) -> None:
    tenant = TenantName("acme")
    claim: dict[str, Any] = {"metadata": {"name": "data", "namespace": "default", "uid": "c-1"}}
    claim |= {"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}
    node.cluster.claims[Ref(tenant, "default", "data")] = msgspec.convert(claim, Claim)
    spec = {"claimRef": {"uid": "c-1"}, "csi": {"driver": "local.polder.dev", "volumeHandle": "v"}}
    node.cluster.volumes[Ref(tenant, "", "v")] = msgspec.convert({"metadata": {"name": "v"}, "spec": spec}, Volume)
    given = {
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        "container": {"volumeMounts": [{"name": "d", "mountPath": "/d"}]},
    }
    assert await said(node, "echo kept > /d/x", "one", **given) == []
    assert await said(node, "cat /d/x", "two", **given) == ["kept"]


async def test_what_runs_sees_a_changed_object(node: NodeKit) -> None:
    ref = Ref(TenantName("acme"), "default", "c")
    node.cluster.maps[ref] = ConfigMap(metadata=meta_only("c"), data={"k": "old"})
    script = "while grep -q old /c/k; do sleep 0.05; done; cat /c/k; echo"
    pod = make_pod(
        "watcher",
        script,
        restartPolicy="Never",
        volumes=[{"name": "c", "configMap": {"name": "c"}}],
        container={"volumeMounts": [{"name": "c", "mountPath": "/c"}]},
    )
    node.cluster.apply(pod)
    await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Running")
    node.cluster.maps[ref] = ConfigMap(metadata=meta_only("c"), data={"k": "new"})
    assert node.ctx.volumes.changed([("configmaps", ref)]) == [pod.metadata.uid]
    held = node.cluster.get(Ref(TenantName("acme"), "default", "watcher"))
    assert held is not None
    node.cluster.apply(msgspec.structs.replace(held))  # wakes its worker, as the agent does
    await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Succeeded", 10)
    assert log_of(node, pod) == ["new"]
    await gone(node, pod)


async def test_a_hostile_pod_gets_no_file_of_the_node(node: NodeKit) -> None:
    """Its first container turns the subPath of the second into links, over and over, while that one starts again and again."""
    (node.base / "secret").mkdir()
    (node.base / "secret" / "key").write_text("of the node")
    root = f"/{'../' * 12}{node.base.relative_to('/')}/secret"
    mounts = [{"name": "e", "mountPath": "/e"}]
    swap = (
        f"mkdir -p /e/a; ln -s {root} /e/l; while true; do mv /e/a /e/b; mv /e/l /e/a; mv /e/a /e/l; mv /e/b /e/a; done"
    )
    other = {"name": "hostile", "image": "toolbox", "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts}
    pod = make_pod(
        "target",
        "cat /m/key 2>/dev/null && echo; exit 1",
        volumes=[{"name": "e", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "e", "mountPath": "/m", "subPath": "a"}]},
    )
    spec = msgspec.to_builtins(pod.spec)
    spec["containers"].insert(0, {**other, "command": ["sh", "-c", swap]})
    pod = msgspec.structs.replace(pod, spec=msgspec.convert(spec, type(pod.spec)))
    node.cluster.apply(pod)

    def tried(found: Pod | None) -> bool:
        statuses = {s.name: s for s in (found.status.container_statuses or [])} if found else {}
        return "main" in statuses and (
            statuses["main"].restart_count >= 1
            or bool(
                statuses["main"].state and statuses["main"].state.waiting and statuses["main"].state.waiting.message
            )
        )

    await node.cluster.until(pod, tried, 40)
    logs = list((node.ctx.places.log_directory(pod) / "main").glob("*.log"))
    assert all("of the node" not in log.read_text() for log in logs)
    await gone(node, pod)


async def test_a_container_that_cannot_be_made_is_tried_in_its_time(node: NodeKit) -> None:
    """The runtime's words name another id each time, so that each try is news to the API, and comes back from there."""
    directory = node.ctx.places.seccomp / "tenants"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "broken.json").write_text("{")
    context = {"seccompProfile": {"type": "Localhost", "localhostProfile": "tenants/broken.json"}}
    pod = make_pod("never", "true", securityContext=context)
    node.cluster.apply(pod)

    def failed(found: Pod | None) -> bool:
        first = (found.status.container_statuses or [None])[0] if found else None
        return bool(
            first and first.state and first.state.waiting and first.state.waiting.reason == "CreateContainerError"
        )

    await node.cluster.until(pod, failed)
    await asyncio.sleep(3)
    assert 1 <= node.cluster.reasons(pod).count("Failed") <= 3
    await gone(node, pod)


async def test_mounts_reach_from_container_to_container(node: NodeKit) -> None:
    """A privileged one mounts within the volume; one that receives sees it, one that said nothing does not."""

    def container(name: str, script: str, mode: str | None, **more: Any) -> dict[str, Any]:
        mount = {"name": "e", "mountPath": "/e", **({"mountPropagation": mode} if mode else {})}
        command = ["sh", "-c", script]
        base = {"name": name, "image": "toolbox", "imagePullPolicy": "IfNotPresent", "volumeMounts": [mount]}
        return {**base, "command": command, **more}

    wait = "until [ -e /e/in/x ] || [ -e /e/done ]; do sleep 0.1; done; ls -A /e/in; touch /e/seen-$NAME; sleep 1"
    pod = make_pod("spread", "true", tenant="root", restartPolicy="Never", volumes=[{"name": "e", "emptyDir": {}}])
    spec = msgspec.to_builtins(pod.spec)
    mounts = "mkdir -p /e/in; sleep 2; mount -t tmpfs x /e/in && touch /e/in/x; sleep 3; touch /e/done; sleep 2; umount /e/in"
    spec["containers"] = [
        container("main", mounts, "Bidirectional", securityContext={"privileged": True}),
        container("receives", wait, "HostToContainer"),
        container("apart", wait, None),
    ]
    pod = msgspec.structs.replace(pod, spec=msgspec.convert(spec, type(pod.spec)))
    node.cluster.apply(pod)
    await node.cluster.until(pod, lambda p: p is not None and p.status.phase in {"Succeeded", "Failed"}, 30)
    logs = {n: (node.ctx.places.log_directory(pod) / n / "0.log").read_text() for n in ("receives", "apart", "main")}
    assert logs["receives"].rstrip().endswith(" x"), (logs, node.cluster.events[-8:])
    assert " x" not in logs["apart"]
    await gone(node, pod)
