"""What stands in a pod's resolv.conf."""

from __future__ import annotations

from typing import Any

import pytest

from polder.node.pods.resolv import Resolver, dns_config, parse_resolv_conf
from polder.system.cri_types import DnsConfig
from tests.unit.node.podkit import pod

HOST = parse_resolv_conf(
    "# a remark\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example\nsearch corp.example\noptions rotate\n"
)
SEARCHES = ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example")


def made(spec: dict[str, Any], host: DnsConfig = HOST) -> DnsConfig:
    return dns_config(pod(spec), Resolver(lambda _: "10.96.0.10", host))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, DnsConfig(("10.96.0.10",), SEARCHES, ("ndots:5",))),
        ({"dnsPolicy": "Default"}, HOST),
        ({"hostNetwork": True}, HOST),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, HOST),
        ({"dnsPolicy": "ClusterFirstWithHostNet"}, DnsConfig(("10.96.0.10",), SEARCHES, ("ndots:5",))),
        (
            {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "edns0"}]}},
            DnsConfig(("9.9.9.9",), (), ("edns0",)),
        ),
        (
            {
                "dnsConfig": {
                    "nameservers": ["10.96.0.10", "9.9.9.9", "8.8.8.8", "7.7.7.7"],
                    "searches": ["x.example", "cluster.local"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "timeout", "value": "1"}],
                }
            },
            DnsConfig(("10.96.0.10", "9.9.9.9", "8.8.8.8"), (*SEARCHES, "x.example"), ("ndots:2", "timeout:1")),
        ),
    ],
)
def test_by_policy(spec: dict[str, Any], expected: DnsConfig) -> None:
    assert made(spec) == expected


def test_where_the_tenant_has_no_resolver_the_machines_is_asked() -> None:
    assert dns_config(pod({}), Resolver(host=HOST)) == HOST


def test_a_file_that_says_nothing() -> None:
    assert parse_resolv_conf("\n; nothing\nnameserver\n") == DnsConfig()
