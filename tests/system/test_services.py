"""Services by real packets: who answers, who is refused, and that tenants with equal addresses never meet."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from polder.sdn.topology.vips import Backend, Vip, VipPort
from polder.system.net.codec import family_of
from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from tests.system import frames
from tests.system.lab import BRIEF, PATIENT, Host, Lab

pytestmark = pytest.mark.system
SERVICE = "10.96.5.5"
WEB, CLIENT, FAR, OTHER = "10.0.1.10", "10.0.1.11", "10.0.1.12", "10.0.2.10"


def two_tenants(lab: Lab) -> dict[str, Host]:
    """acme and globex: the same networks and the same addresses."""
    pods = {}
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24", "b": "10.0.2.0/24"})
        for name, node, address, network in (
            ("web", "n1", WEB, "a"),
            ("client", "n1", CLIENT, "a"),
            ("far", "n2", FAR, "a"),
            ("other", "n2", OTHER, "b"),
        ):
            pods[f"{tenant}.{name}"] = lab.pod(tenant, name, node, address, network)
    return pods


def service(tenant: str, *backends: Backend, name: str = "web", address: str = SERVICE, **more: object) -> Vip:
    port = VipPort("tcp", 80, ready=backends)
    return Vip(tenant, f"default/{name}", (address,), (address,), (port,), **more)  # type: ignore[arg-type]


def answers(client: Host, times: int = 30, address: str = SERVICE, port: int = 80) -> set[str]:
    first = client.tcp(address, port)
    return {first, *(client.tcp(address, port, PATIENT if first else BRIEF) for _ in range(times - 1))}


async def test_a_service_answers_from_both_nodes_and_networks_and_only_its_own_tenant(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme", Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2"), Backend(OTHER, 8080, "n2")))
    lab.put(service("globex", Backend(FAR, 8080, "n2")))
    await lab.deploy()
    await lab.verify()
    names = ("web", "far", "other")
    servers = [pods[f"{tenant}.{name}"].tcp_server() for tenant in ("acme", "globex") for name in names]
    seen = [server.__enter__() for server in servers]
    try:
        everyone = {"acme.web", "acme.far", "acme.other"}
        for name in ("client", "far", "other", "web"):
            assert answers(pods[f"acme.{name}"]) == everyone, name
            assert answers(pods[f"globex.{name}"], 6) == {"globex.far"}, name
        assert {CLIENT, FAR, OTHER} <= set(seen[0]), "the server sees who asks"
    finally:
        for server in servers:
            server.__exit__(None, None, None)


async def test_hairpin_a_pod_reaches_itself_by_its_service(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme", Backend(WEB, 8080, "n1")))
    lab.put(service("globex", Backend(FAR, 8080, "n2")))
    await lab.deploy()
    with pods["acme.web"].tcp_server() as seen, pods["globex.far"].tcp_server():
        assert pods["acme.web"].tcp(SERVICE, 80) == "acme.web"
        assert seen == ["10.0.1.1"], "from the gateway: a host drops what comes from itself"
        assert pods["globex.far"].tcp(SERVICE, 80) == "globex.far"


async def test_no_backend_is_refused_at_once_and_so_is_another_port(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme"))
    lab.put(service("globex", Backend(WEB, 8080, "n1")))
    await lab.deploy()
    for tenant, port in (("acme", 80), ("globex", 81)):
        with pods[f"{tenant}.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(2)
            with pytest.raises(ConnectionRefusedError):
                sock.connect((SERVICE, port))
        with pods[f"{tenant}.client"].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.connect((SERVICE, port))
            sock.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(10)
    with pods["acme.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.connect(("10.96.5.6", 80))  # no service has it: dropped, as before


def udp_from(client: Host, address: str, port: int, source: int = 0, seconds: float = PATIENT) -> str:
    """Who answers a datagram, which is sent again meanwhile; each from a port of its own unless one is given."""
    end = time.monotonic() + seconds
    with client.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        if source:
            sock.bind(("", source))
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(min(left, 1.0))
            try:
                sock.sendto(b"who", (address, port))
                data, peer = sock.recvfrom(64)
            except TimeoutError:
                continue
            except OSError:
                return ""
            assert peer[:2] == (address, port), "the answer comes from the service"
            return data.decode()
    return ""


@contextmanager
def udp_server(host: Host, port: int = 8053, address: str = "") -> Iterator[None]:
    """Answers each datagram with the host's name."""
    sock = host.socket(family_of(address), socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(0.1)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            with suppress(TimeoutError):
                _, peer = sock.recvfrom(64)
                sock.sendto(host.name.encode(), peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sock.close()


async def test_several_ports_and_protocols_of_one_service(lab: Lab) -> None:
    pods = two_tenants(lab)
    ports = (
        VipPort("tcp", 80, "http", ready=(Backend(WEB, 8080, "n1"),)),
        VipPort("tcp", 81, "other", ready=(Backend(WEB, 8081, "n1"), Backend(FAR, 8082, "n2"))),
        VipPort("udp", 80, "dns", ready=(Backend(FAR, 8053, "n2"), Backend(WEB, 8054, "n1"))),
        VipPort("sctp", 80, "signal", ready=(Backend(FAR, 8080, "n2"),)),
    )
    lab.put(Vip("acme", "default/web", (SERVICE, "10.96.5.9"), (SERVICE, "10.96.5.9"), ports))
    await lab.deploy()
    await lab.verify()
    client, web, far = pods["acme.client"], pods["acme.web"], pods["acme.far"]
    with web.tcp_server(), web.tcp_server(8081), far.tcp_server(8082), udp_server(far), udp_server(web, 8054):
        for address in (SERVICE, "10.96.5.9"):
            assert answers(client, 3, address) == {"acme.web"}
            assert answers(client, 20, address, 81) == {"acme.web", "acme.far"}
            assert {udp_from(client, address, 80) for _ in range(20)} == {"acme.web", "acme.far"}
    with far.sniff("eth0") as arrived, client.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP) as sock:
        sock.sendto(
            frames.sctp_init(4444, 80), (SERVICE, 0)
        )  # many kernels have no SCTP of their own, but all translate it
        assert arrived(frames.sctp_init(4444, 8080))


async def test_a_client_stays_with_its_backend_and_another_may_have_another(lab: Lab) -> None:
    pods = two_tenants(lab)
    three = tuple(Backend(address, 8080) for address in (WEB, FAR, OTHER))
    lab.put(service("acme", *three, affinity=2))
    await lab.deploy()
    await lab.verify()
    names = {"acme.web": pods["acme.web"], "acme.far": pods["acme.far"], "acme.other": pods["acme.other"]}
    client = pods["acme.client"]
    with names["acme.web"].tcp_server(), names["acme.far"].tcp_server(), names["acme.other"].tcp_server():
        (first,) = answers(client, 10)
        assert first in names
        # another backend goes, so that slots move: the client stays
        for gone in names.keys() - {first}:
            left = tuple(one for one in three if one.address != WHERE[gone])
            lab.put(service("acme", *left, affinity=2))
            await lab.deploy()
            assert answers(client, 5) == {first}
        # its own goes: it finds another, and stays there
        left = tuple(one for one in three if one.address != WHERE[first])
        lab.put(service("acme", *left, affinity=2))
        await lab.deploy()
        await lab.verify()
        assert remembered(lab) == 0
        (second,) = answers(client, 10)
        assert second in names.keys() - {first}
        assert remembered(lab) == 1
        await asyncio.sleep(2.5)
        assert remembered(lab) == 0, "without a new connection it is forgotten"


def remembered(lab: Lab) -> int:
    """How many clients acme's router on n1 remembers."""
    with lab.space("n1", "acme") as netns:
        return run_inside(netns, lambda: run_nft("list map inet service seen4")).count("expires")


async def test_a_udp_clients_flow_ends_with_its_backend(lab: Lab) -> None:
    """One socket, one source port: the kernel knows the flow, and would send it to the dead for minutes."""
    pods = two_tenants(lab)
    both = {FAR: Backend(FAR, 8053, "n2"), WEB: Backend(WEB, 8053, "n1")}

    def put(*backends: Backend) -> None:
        for tenant in ("acme", "globex"):
            port = VipPort("udp", 53, ready=backends)
            lab.put(Vip(tenant, "default/dns", (SERVICE,), (SERVICE,), (port,)))

    put(both[FAR])
    await lab.deploy()
    client, other = pods["acme.client"], pods["globex.client"]
    with udp_server(pods["acme.far"]), udp_server(pods["acme.web"]), udp_server(pods["globex.far"]):
        assert udp_from(client, SERVICE, 53, 4000) == "acme.far"
        assert udp_from(other, SERVICE, 53, 4000) == "globex.far"
        put(both[FAR], both[WEB])
        await lab.deploy()
        assert udp_from(client, SERVICE, 53, 4000) == "acme.far", "control: a flow stays where it is"
        put(both[WEB])
        await lab.deploy()
        await lab.verify()
        assert udp_from(client, SERVICE, 53, 4000) == "acme.web"
        put()
        await lab.deploy()
        assert udp_from(client, SERVICE, 53, 4000, seconds=BRIEF) == ""


WHERE = {"acme.web": WEB, "acme.far": FAR, "acme.other": OTHER}
