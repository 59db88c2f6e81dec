"""What pods call themselves and whom they know by name."""

from __future__ import annotations

import pytest

from polder.base.errors import PermanentError
from polder.node.pods.hostnames import hostname, hosts_file, hosts_file_of_node, kernel_hostname
from tests.unit.node.podkit import pod


def test_hosts_name_the_pod_and_the_api_where_no_dns_does() -> None:
    text = hosts_file(pod({"subdomain": "s", "hostname": "h"}), ["10.0.0.5"], "cluster.local", "10.96.0.1")
    assert text.startswith("# Kubernetes-managed hosts file.\n")
    assert "10.0.0.5\th.s.ns.svc.cluster.local\th\n" in text
    assert "10.96.0.1\tkubernetes.default.svc.cluster.local\tkubernetes.default.svc\tkubernetes.default\n" in text


def test_aliases_come_last_and_the_nodes_file_stays() -> None:
    named = pod({"hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a.example", "b"]}]})
    assert hosts_file(named, ["10.0.0.5"], "cluster.local").endswith("192.0.2.9\ta.example\tb\n")
    of_node = hosts_file_of_node(named, "127.0.0.1 localhost\n192.0.2.1 node\n")
    assert not of_node.startswith("# Kubernetes-managed hosts file.\n"), "told apart from a pod's own"
    assert "192.0.2.1 node\n" in of_node and of_node.endswith("192.0.2.9\ta.example\tb\n")


@pytest.mark.parametrize(
    ("spec", "short", "kernel"),
    [
        ({}, "p", "p"),
        ({"hostname": "h", "subdomain": "s"}, "h", "h"),
        ({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": True}, "h", "h.s.ns.svc.cluster.local"),
        ({"hostname": "h", "setHostnameAsFQDN": True}, "h", "h"),
        ({"hostname": "x" * 70}, "x" * 63, "x" * 63),
        ({"hostname": "h", "subdomain": "s", "hostnameOverride": "a.b.example"}, "a.b.example", "a.b.example"),
    ],
)
def test_names(spec: dict[str, object], short: str, kernel: str) -> None:
    assert (hostname(pod(spec)), kernel_hostname(pod(spec), "cluster.local")) == (short, kernel)


def test_a_name_that_the_kernel_does_not_take_is_refused() -> None:
    with pytest.raises(PermanentError, match="is too long"):
        kernel_hostname(pod({"hostname": "h" * 50, "subdomain": "s", "setHostnameAsFQDN": True}), "cluster.local")


def test_a_name_of_its_own_choice_has_no_domain() -> None:
    text = hosts_file(pod({"subdomain": "s", "hostnameOverride": "me"}), ["10.0.0.5"], "cluster.local")
    assert "10.0.0.5\tme\n" in text
