"""Two `polder server` processes over one etcd: either serves, one leads, and killing it loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from polder.api.core import ConfigMap, Namespace
from polder.api.discovery import Lease
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.client.errors import UnreachableError
from polder.client.informer import Informer
from polder.main.config import ServerConfig, dump
from polder.main.config_storage import EtcdConfig, SealingConfig
from polder.node.stream import ServerStreams
from polder.system.pki import NODES, PLATFORM_ADMINS, ROOT_URN, ensure_pki
from polder.system.pki.sealing import ensure_keyring
from tests.etcd import Etcd, free_port

ACME = TenantName("acme")
TENANT = {
    "apiVersion": "polder.dev/v1alpha1",
    "kind": "Tenant",
    "metadata": {"name": "acme"},
    "spec": {},
}


@dataclass
class Process:
    port: int
    folder: Path
    config: Path
    running: subprocess.Popen | None = None

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    def start(self):
        with (self.folder / "log").open("ab") as log:
            argv = [sys.executable, "-m", "polder.main", "server", "--config", str(self.config)]
            self.running = subprocess.Popen(argv, stdout=log, stderr=log)

    def end(self, number=signal.SIGKILL):
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(number)
            self.running.wait(30)


@dataclass
class Cluster:
    folder: Path
    pki: object
    servers: list[Process]
    etcd: Etcd | None = None

    def client(self, name, group, uri="", *, first=0):
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if not key.exists():
            self.pki.issue_client(name, [group], uri).write(certificate, key)
        urls = [s.url for s in self.servers[first:] + self.servers[:first]]
        return ClientSettings(urls[0], self.pki.serving_ca, certificate, key, others=tuple(urls[1:]))

    @asynccontextmanager
    async def admin(self, first=0):
        client = Client(self.client("admin", PLATFORM_ADMINS, ROOT_URN, first=first))
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def cluster(tmp_path):
    etcd = Etcd().start()
    pki = ensure_pki(tmp_path / "pki")
    ensure_keyring(tmp_path / "keyring")
    servers = []
    for number in range(2):
        folder = tmp_path / f"server{number}"
        folder.mkdir()
        port = free_port()
        config = ServerConfig(
            listen=[f"127.0.0.1:{port}"],
            names=["localhost"],
            etcd=EtcdConfig(endpoints=[etcd.endpoint]),
            sealing=SealingConfig(keyring=str(tmp_path / "keyring")),
            pki=str(tmp_path / "pki"),
            lease_seconds=2,
        )
        (folder / "server.yaml").write_text(dump(config))
        servers.append(Process(port, folder, folder / "server.yaml"))
    found = Cluster(tmp_path, pki, servers, etcd)
    try:
        for server in servers:  # at once: both make what root needs
            server.start()
        await asyncio.gather(*(ready(found, number) for number in range(len(servers))))
        yield found
    finally:
        for server in servers:
            server.end(signal.SIGTERM)
            lines = (server.folder / "log").read_text().splitlines()
            print("\n".join(line for line in lines if "leases/polder" not in line)[-6000:])
        etcd.stop()


async def ready(cluster, number):
    server = cluster.servers[number]
    one = Cluster(cluster.folder, cluster.pki, [server])
    async with one.admin() as client, asyncio.timeout(30):
        while True:
            assert server.running.poll() is None, (server.folder / "log").read_text()
            try:
                await client.raw("GET", "/readyz")
                return
            except (UnreachableError, ApiError):
                await asyncio.sleep(0.05)


async def until(condition, seconds=15):
    async with asyncio.timeout(seconds):
        while not (found := await condition()):  # noqa: ASYNC110 - what it waits for is in another process
            await asyncio.sleep(0.05)
    return found


async def leader(client):
    """Which process runs the controllers."""
    try:
        lease = await client.get(Lease, Ref(ROOT, "kube-system", "polder-controllers"))
    except ApiError:
        return 0
    return int((lease.spec.holder_identity or "-0").rpartition("-")[2])


async def namespace_comes_and_goes(client, name):
    """What only the controllers can bring about: the namespace's contents are deleted, then it goes."""
    await client.create(ACME, Namespace(metadata=ObjectMeta(name=name)))
    await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="c", namespace=name)))
    await client.delete(Namespace, Ref(ACME, "", name))

    async def gone():
        return name not in {n.metadata.name for n in (await client.list(Namespace, ACME)).items}

    await until(gone)


async def test_killing_the_server_that_leads_loses_nothing(cluster):
    async with cluster.admin() as client:
        await client.raw("POST", "/apis/polder.dev/v1alpha1/tenants", yaml.safe_dump(TENANT).encode(),
                         content_type="application/yaml")  # fmt: skip
        holder = await until(lambda: leader(client))
    number = next(n for n, s in enumerate(cluster.servers) if s.running.pid == holder)
    other = 1 - number
    async with cluster.admin(first=number) as client, cluster.admin(first=other) as second:
        await namespace_comes_and_goes(client, "before")

        informer = Informer(client, ConfigMap, ACME)
        seen = []
        informer.on_change(lambda ref, old, new: seen.append((ref.name, old is None, new is None)))
        agent = ServerStreams(cluster.client("system:node:n1", NODES, first=number), {})
        following = [asyncio.create_task(informer.run()), asyncio.create_task(agent.run())]
        acknowledged = []
        writer = asyncio.create_task(write(client, acknowledged))
        try:
            await informer.wait_synced()
            await until(lambda: enough(acknowledged, 100))
            await until(lambda: connected(agent, 2))
            cluster.servers[number].end()
            mark = len(acknowledged)
            await until(lambda: enough(acknowledged, mark + 100))
            assert await until(lambda: takes_over(second, holder)) == cluster.servers[other].running.pid
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            present = {o.metadata.name for o in (await second.list(ConfigMap, ACME, "default")).items}
            assert set(acknowledged) <= present

            async def caught_up():
                return present <= {name for name, _, _ in seen}

            await until(caught_up)
            created = [name for name, new, _ in seen if new and name.startswith("w")]
            assert len(created) == len(set(created)), "an event was repeated"
            stream = await agent.open({"kind": "api", "tenant": "root"})
            await stream.reset("tried")
            await namespace_comes_and_goes(second, "after")
            cluster.servers[number].start()
            await ready(cluster, number)
            await until(lambda: connected(agent, 2))
            assert await leader(client) == cluster.servers[other].running.pid
            await asyncio.to_thread(cluster.servers[other].end, signal.SIGTERM)
            assert await until(lambda: takes_over(client, cluster.servers[other].running.pid))
            await namespace_comes_and_goes(client, "handed-over")
        finally:
            for task in (writer, *following):
                task.cancel()
            await asyncio.gather(writer, *following, return_exceptions=True)


async def enough(found, count):
    return len(found) >= count


async def connected(agent, count):
    return sum(stream.connected for stream in agent._streams) == count


async def takes_over(client, holder):
    found = await leader(client)
    return found if found not in (0, holder) else 0


async def write(client, acknowledged):
    """One object after the other; what got no answer is asked again."""
    number = 0
    while True:
        name = f"w{number}"
        meta = ObjectMeta(name=name, namespace="default")
        try:
            await client.create(ACME, ConfigMap(metadata=meta, data={"pid": str(os.getpid())}))
        except UnreachableError:
            await asyncio.sleep(0.05)
            continue
        except ApiError as error:
            if not error.is_already_exists:
                raise
        acknowledged.append(name)
        number += 1


async def test_an_etcd_that_is_away_for_a_while_ends_no_server_and_no_watch(cluster):
    async with cluster.admin() as client:
        await client.raw("POST", "/apis/polder.dev/v1alpha1/tenants", yaml.safe_dump(TENANT).encode(),
                         content_type="application/yaml")  # fmt: skip
        await until(lambda: leader(client))
        lists = []
        informer = Informer(client, ConfigMap, ACME)
        informer.on_change(lambda ref, old, new: lists.append(ref.name))
        following = asyncio.create_task(informer.run())
        try:
            await informer.wait_synced()
            await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="before", namespace="default")))
            await asyncio.to_thread(cluster.etcd.kill)
            await asyncio.sleep(3)  # longer than the lease: whoever leads must stop
            assert [s.running.poll() for s in cluster.servers] == [None, None]
            await asyncio.to_thread(cluster.etcd.start)

            async def answers():
                try:
                    return await client.list(ConfigMap, ACME, "default")
                except (ApiError, UnreachableError):
                    return None

            assert await until(answers)
            await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="after", namespace="default")))

            async def seen():
                return "after" in lists

            await until(seen)
            await namespace_comes_and_goes(client, "again")
            assert [s.running.poll() for s in cluster.servers] == [None, None]
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
