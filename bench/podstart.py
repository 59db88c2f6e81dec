"""From `kubectl apply` to Running, against the same CRI calls made directly against the same containerd."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format

from bench.report import Result, median, ratio_interval
from bench.whole import Raw, Whole, encoded, pod, running
from polder._generated import api_pb2 as pb
from polder.api.meta import ObjectMeta
from polder.api.polder import Tenant
from polder.base.ids import ROOT
from polder.client.client import Client
from polder.system.rpc import Channel

TITLE = "Start of a pod against the bare runtime"
NOTES = """\
One node, one pod at a time, its image there. *Applied* is from the request of a server-side apply to the moment when a watch
shows the pod Running; *kubectl* from the start of the program `kubectl apply`, which reads the API's schema first. *Bare* are
RunPodSandbox, CreateContainer and StartContainer, with the very configurations that Polder gave the runtime for such a pod,
made directly against the node's containerd: it calls the same CNI plugin, for a pod that has its port. The three take turns."""

ROUNDS, WARM = 30, 3
GOAL = 1.2
TENANT = "acme"
PODS = f"/tenants/{TENANT}/api/v1/namespaces/default/pods"
REST = 0.5
"""Seconds before each measurement: what the one before left to be done is over by then."""
WITHIN = 60.0


@dataclass
class Seen:
    """When a watch first showed a pod, and when it first showed it Running."""

    client: Client
    accepted: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    async def follow(self) -> None:
        async for line in self.client.lines(f"{PODS}?watch=true&resourceVersion=0&timeoutSeconds=3600"):
            event, now = json.loads(line), time.monotonic()
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                self.gone.add(name)
                continue
            self.accepted.setdefault(name, now)
            if event["object"].get("status", {}).get("phase") == "Running":
                self.running.setdefault(name, now)


async def until(check: Callable[[], object], what: str) -> None:
    """Raises TimeoutError, naming what was waited for."""
    end = time.monotonic() + WITHIN
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(what)
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Runtime:
    """CRI calls."""

    channel: Channel

    async def call(self, method: str, request: Any) -> Any:
        return await self.channel.call(
            f"/runtime.v1.RuntimeService/{method}", request, getattr(pb, f"{method}Response"), WITHIN
        )

    async def configs(self, uid: str) -> tuple[Any, Any]:
        """Those with which the sandbox and the container of a running pod were made."""
        label = {"label_selector": {"io.kubernetes.pod.uid": uid}}
        boxes = await self.call("ListPodSandbox", pb.ListPodSandboxRequest(filter=label))
        runs = await self.call("ListContainers", pb.ListContainersRequest(filter=label))
        box = await self.call(
            "PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=boxes.items[0].id, verbose=True)
        )
        run = await self.call(
            "ContainerStatus", pb.ContainerStatusRequest(container_id=runs.containers[0].id, verbose=True)
        )
        found = [json.loads(one.info["info"])["config"] for one in (box, run)]
        variables = found[1].pop("envs", [])
        config = json_format.ParseDict(found[1], pb.ContainerConfig())
        for one in variables:  # the runtime shows their values as text, the message has bytes
            config.envs.add(key=one["key"], value=one.get("value", "").encode())
        return json_format.ParseDict(found[0], pb.PodSandboxConfig()), config

    async def start(self, box: Any, run: Any) -> tuple[str, list[float]]:
        """The sandbox's id, and how long each of the three calls took, in seconds."""
        at = [time.monotonic()]
        made = await self.call("RunPodSandbox", pb.RunPodSandboxRequest(config=box))
        at.append(time.monotonic())
        request = pb.CreateContainerRequest(pod_sandbox_id=made.pod_sandbox_id, config=run, sandbox_config=box)
        container = await self.call("CreateContainer", request)
        at.append(time.monotonic())
        await self.call("StartContainer", pb.StartContainerRequest(container_id=container.container_id))
        at.append(time.monotonic())
        return str(made.pod_sandbox_id), [b - a for a, b in itertools.pairwise(at)]

    async def end(self, sandbox: str) -> None:
        await self.call("StopPodSandbox", pb.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        await self.call("RemovePodSandbox", pb.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


@dataclass(frozen=True)
class Bench:
    """Both ways of one start."""

    whole: Whole
    client: Client
    runtime: Runtime
    seen: Seen

    async def kubectl(self, raw: Raw) -> float:
        """When kubectl was started."""
        program = shutil.which("kubectl")
        assert program is not None
        config = str(self.whole.cluster.admin_kubeconfig)
        server = f"{self.whole.cluster.local_server}/tenants/{TENANT}"
        begun = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            program, "--kubeconfig", config, "--server", server, "apply", "-f", "-",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.communicate(encoded(raw))
        if process.returncode:
            raise RuntimeError("kubectl apply failed")
        return begun

    async def applied(self, raw: Raw) -> float:
        """When the request was sent."""
        begun = time.monotonic()
        path = f"{PODS}/{raw['metadata']['name']}?fieldManager=bench"
        await self.client.raw("PATCH", path, encoded(raw), content_type="application/apply-patch+yaml")
        return begun

    async def polder(self, name: str, apply: Callable[[Raw], Awaitable[float]]) -> float:
        """Seconds to Running."""
        await asyncio.sleep(REST)
        begun = await apply(pod(name))
        await until(lambda: name in self.seen.running, f"{name} runs")
        await self.client.raw("DELETE", f"{PODS}/{name}")
        await until(lambda: name in self.seen.gone, f"{name} is gone")
        return self.seen.running[name] - begun

    async def template(self) -> Callable[[int], tuple[Any, Any]]:
        """What makes the configurations of a bare start: those of a pod that Polder runs, for one that it does not run, since
        it waits for a volume that never comes.
        """
        await self.client.raw("POST", PODS, encoded(pod("like")))
        missing = [{"name": "v", "configMap": {"name": "missing"}}]
        await self.client.raw("POST", PODS, encoded(pod("bare", volumes=missing)))
        await until(lambda: "like" in self.seen.running, "the pod like runs")
        uids = [
            json.loads(await self.client.raw("GET", f"{PODS}/{name}"))["metadata"]["uid"] for name in ("like", "bare")
        ]
        box, run = await self.runtime.configs(uids[0])

        def configs(number: int) -> tuple[Any, Any]:
            ours, own = type(box)(), type(run)()
            ours.CopyFrom(box)
            own.CopyFrom(run)
            ours.metadata.uid, ours.metadata.name, ours.metadata.attempt = uids[1], "bare", number
            ours.labels["io.kubernetes.pod.uid"] = uids[1]
            ours.log_directory = box.log_directory.replace(uids[0], uids[1])
            ours.linux.cgroup_parent = box.linux.cgroup_parent.replace(uids[0], uids[1])
            own.labels.clear()
            return ours, own

        return configs


async def _measure(whole: Whole) -> tuple[list[tuple[float, float]], list[list[float]]]:
    client = whole.client()
    tenant = Tenant(api_version="polder.dev/v1alpha1", kind="Tenant", metadata=ObjectMeta(name=TENANT))
    await client.create(ROOT, tenant)
    seen, runtime = Seen(client), Runtime(Channel(f"unix://{whole.runtime(1)}"))
    follows = asyncio.create_task(seen.follow())
    try:
        bench = Bench(whole, client, runtime, seen)
        configs = await bench.template()
        ours, bare = [], []
        for number in range(WARM + ROUNDS):
            applied = await bench.polder(f"applied-{number}", bench.applied)
            await asyncio.sleep(REST)
            sandbox, took = await runtime.start(*configs(number))
            await runtime.end(sandbox)
            kubectl = await bench.polder(f"kubectl-{number}", bench.kubectl)
            ours.append((applied, kubectl))
            bare.append(took)
        return ours[WARM:], bare[WARM:]
    finally:
        follows.cancel()
        await runtime.channel.close()
        await client.close()


def results() -> list[Result]:
    with running(1) as whole:
        ours, bare = asyncio.run(_measure(whole))
    sums = [sum(one) for one in bare]
    calls = ", ".join(f"{median([one[i] for one in bare]) * 1000:.0f}" for i in range(3))
    rows = []
    for index, what in enumerate(("applied → Running", "kubectl → Running")):
        times = [one[index] for one in ours]
        ratio, low, high = ratio_interval(times, sums)
        figure = f"{median(times) * 1000:.0f} / {median(sums) * 1000:.0f} ms: ratio {ratio:.2f}"
        of = f" ({low:.2f} to {high:.2f}, n={len(times)})"
        rows.append(Result(f"{what}, Polder / bare", figure + of, f"≤ {GOAL}", ratio <= GOAL))
    return [*rows, Result("the bare: RunPodSandbox, CreateContainer, StartContainer", f"{calls} ms")]
