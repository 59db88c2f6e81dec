"""What a pod's dnsConfig may hold."""

from __future__ import annotations

import pytest

from polder.api.errors import Field
from polder.api.validation.pod_dns import validate_dns_config


def fields(config: dict[str, object]) -> list[str]:
    return [error.field for error in validate_dns_config(config, Field("spec.dnsConfig"))]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"nameservers": ["10.9.8.7", "2001:db8::1"], "searches": ["a.example.", "_x._tcp.example", "."]},
        {"options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]},
    ],
)
def test_good(config: dict[str, object]) -> None:
    assert fields(config) == []


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"nameservers": ["1.1.1.1"] * 4}, "nameservers"),
        ({"nameservers": ["10.0.0.1", "dns.example"]}, "nameservers[1]"),
        ({"nameservers": ["10.0.0.1\noptions debug"]}, "nameservers[0]"),
        ({"nameservers": ["fe80::1%eth0"]}, "nameservers[0]"),
        ({"searches": ["x.example"] * 33}, "searches"),
        ({"searches": ["x" * 60 + ".example"] * 31}, "searches"),
        ({"searches": ["a b"]}, "searches[0]"),
        ({"searches": ["a.example\nnameserver 6.6.6.6"]}, "searches[0]"),
        ({"options": [{"name": "edns0"}, {"value": "2"}]}, "options[1]"),
    ],
)
def test_bad(config: dict[str, object], field: str) -> None:
    assert fields(config) == [f"spec.dnsConfig.{field}"]
