"""Which families a Service has, by what it asks for, what it had, and what the tenant's ranges give."""

from __future__ import annotations

from typing import Any

import pytest

from polder.api.service_families import settle_families
from polder.api.validation.services import validate_service, validate_service_update

BOTH = ["IPv4", "IPv6"]
FOUR, SIX = "10.96.0.9", "fd00::9"


def service(**spec: Any) -> Any:
    return {"spec": {"type": "ClusterIP", "ports": [], **spec}}


def settled(new: Any, old: Any = None, families: list[str] | None = None) -> tuple[Any, list[str]]:
    problems = [str(problem) for problem in settle_families(new, old, families or BOTH)]
    return (new["spec"].get("ipFamilyPolicy"), new["spec"].get("ipFamilies")), problems


@pytest.mark.parametrize(
    ("spec", "families", "wanted"),
    [
        ({}, BOTH, ("SingleStack", ["IPv4"])),
        ({}, ["IPv6", "IPv4"], ("SingleStack", ["IPv6"])),
        ({"ipFamilyPolicy": "PreferDualStack"}, BOTH, ("PreferDualStack", BOTH)),
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4"], ("PreferDualStack", ["IPv4"])),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, BOTH, ("RequireDualStack", ["IPv6", "IPv4"])),
        ({"ipFamilies": ["IPv6"]}, BOTH, ("SingleStack", ["IPv6"])),
        ({"clusterIPs": [SIX], "clusterIP": SIX}, BOTH, ("SingleStack", ["IPv6"])),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, ["IPv4"], ("RequireDualStack", BOTH)),
        ({"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}, ["IPv4"], ("SingleStack", ["IPv4"])),
    ],
)
def test_what_is_asked_for_is_completed(spec: Any, families: list[str], wanted: Any) -> None:
    assert settled(service(**spec), None, families) == (wanted, [])


@pytest.mark.parametrize(
    ("spec", "families", "why"),
    [
        ({"ipFamilyPolicy": "RequireDualStack"}, ["IPv4"], "not configured for dual-stack"),
        ({"ipFamilies": ["IPv6"]}, ["IPv4"], "not configured on this cluster"),
        ({"clusterIP": SIX, "clusterIPs": [SIX]}, ["IPv4"], "IPv6 is not configured on this cluster"),
        ({"ipFamilies": BOTH}, BOTH, "when multiple IP families are specified"),
        ({"clusterIP": FOUR, "clusterIPs": [FOUR, SIX]}, BOTH, "when multiple cluster IPs are specified"),
    ],
)
def test_what_cannot_be_is_refused(spec: Any, families: list[str], why: str) -> None:
    assert any(why in problem for problem in settled(service(**spec), None, families)[1])


def dual() -> Any:
    return service(clusterIP=FOUR, clusterIPs=[FOUR, SIX], ipFamilies=BOTH, ipFamilyPolicy="RequireDualStack")


def test_a_family_goes_by_the_policy_and_comes_by_it() -> None:
    down = service(**{**dual()["spec"], "ipFamilyPolicy": "SingleStack"})
    assert settled(down, dual()) == (("SingleStack", ["IPv4"]), [])
    assert down["spec"]["clusterIPs"] == [FOUR]
    assert not list(validate_service_update(down, dual()))
    up = service(**{**down["spec"], "ipFamilyPolicy": "PreferDualStack"})
    assert settled(up, down) == (("PreferDualStack", BOTH), [])


def test_a_family_does_not_go_without_the_policy() -> None:
    less = service(**{**dual()["spec"], "clusterIPs": [FOUR]})
    assert any("to release the secondary cluster IP" in problem for problem in settled(less, dual())[1])


def test_prefer_dual_stack_is_left_alone_when_the_ranges_have_changed() -> None:
    old = service(clusterIP=FOUR, clusterIPs=[FOUR], ipFamilies=["IPv4"], ipFamilyPolicy="PreferDualStack")
    assert settled(service(**old["spec"]), old) == (("PreferDualStack", ["IPv4"]), [])


def test_addresses_fit_their_families() -> None:
    def problems(addresses: list[str], families: list[str]) -> str:
        spec = {"clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": families,
                "ports": [{"port": 1, "protocol": "TCP", "targetPort": 1}], "sessionAffinity": "None",
                "ipFamilyPolicy": "RequireDualStack", "internalTrafficPolicy": "Cluster"}  # fmt: skip
        return " ".join(map(str, validate_service(service(**spec))))

    assert problems([FOUR, SIX], BOTH) == ""
    assert "expected an IPv4 value as indicated by `ipFamilies[0]`" in problems([SIX], ["IPv4"])
    assert "no more than one IP for each IP family" in problems([FOUR, "10.96.0.10"], BOTH)
