"""A port of the node has one holder."""

from polder.api.core import Pod
from polder.api.podspec import Container, ContainerPort, PodSpec
from polder.node.pods.hostports import HostPorts, ports_of


def pod(*ports: ContainerPort, sidecar: bool = False) -> Pod:
    with_ports = Container(name="c", image="i", ports=list(ports), restart_policy="Always" if sidecar else "")
    plain = Container(name="d", image="i", ports=[ContainerPort(container_port=80)])
    if sidecar:
        return Pod(spec=PodSpec(containers=[plain], init_containers=[with_ports]))
    return Pod(spec=PodSpec(containers=[with_ports, plain]))


def port(number: int, address: str = "", protocol: str = "TCP") -> ContainerPort:
    return ContainerPort(container_port=1, host_port=number, host_ip=address, protocol=protocol)


def test_a_pod_s_ports_are_those_of_what_runs():
    assert ports_of(pod(port(80), port(53, "10.0.0.1", "UDP"))) == {("TCP", 80, ""), ("UDP", 53, "10.0.0.1")}
    assert ports_of(pod(port(80, "0.0.0.0"), sidecar=True)) == {("TCP", 80, "")}
    assert not ports_of(pod())


def test_who_comes_second_is_refused_until_the_first_is_gone():
    book, wanted = HostPorts(), ports_of(pod(port(80)))
    assert book.take("a", wanted)
    assert book.take("a", wanted)
    assert not book.take("b", wanted)
    assert not book.take("b", ports_of(pod(port(80, "10.0.0.1"))))
    assert book.take("c", ports_of(pod(port(80, protocol="UDP"))))
    assert book.take("d", frozenset())
    book.free("a")
    assert book.take("b", ports_of(pod(port(80, "10.0.0.1"))))
    assert book.take("e", ports_of(pod(port(80, "10.0.0.2"))))


def test_what_runs_already_has_its_ports():
    book, wanted = HostPorts(), ports_of(pod(port(80)))
    assert book.take("a", wanted)
    assert book.take("b", wanted, sure=True)
    book.free("a")
    assert not book.take("c", wanted)
