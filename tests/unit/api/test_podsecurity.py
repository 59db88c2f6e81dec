"""The Pod Security Standards: each rule broken once, and a pod that meets them."""

from __future__ import annotations

from typing import Any

import pytest

from polder.api.podsecurity import Standard, standards_of, violations

GOOD = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(context: Any = None, pod: Any = None, **more: Any) -> Any:
    container = {"name": "c", "image": "i", "securityContext": {**GOOD, **(context or {})}}
    return {"containers": [container], "securityContext": pod or {}, **more}


def broken(level: str, pod: Any, minor: int | None = None, meta: Any = None) -> str:
    return violations(Standard(level, minor), meta or {}, pod)


def test_a_careful_pod_meets_every_level() -> None:
    assert broken("restricted", spec()) == ""
    assert broken("baseline", spec()) == ""


def test_privileged_allows_everything() -> None:
    assert broken("privileged", spec({"privileged": True}, hostNetwork=True)) == ""


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (spec(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (spec({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (
            spec({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"], "drop": ["ALL"]}}),
            'non-default capabilities (container "c" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
        ),
        (spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            spec({"procMount": "Unmasked"}),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            spec({"seLinuxOptions": {"type": "spc_t", "user": "u"}}),
            'seLinuxOptions (container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)',
        ),
        (
            spec(pod={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (spec(pod={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
        (
            spec(pod={"windowsOptions": {"hostProcess": True}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            spec(pod={"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")',
        ),
    ],
)
def test_what_baseline_forbids(pod: Any, said: str) -> None:
    assert broken("baseline", pod) == said
    assert broken("restricted", pod), "restricted forbids at least as much"


def test_ports_and_hosts_of_probes() -> None:
    pod = spec()
    pod["containers"][0] |= {
        "ports": [{"containerPort": 1, "hostPort": 80}],
        "livenessProbe": {"httpGet": {"host": "10.0.0.1"}},
    }
    assert broken("baseline", pod) == (
        'hostPort (container "c" uses hostPort 80), '
        'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")'
    )
    assert "probe" not in broken("baseline", pod, 33), "the rule is younger than the version"


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (
            spec({"allowPrivilegeEscalation": None}),
            'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
        ),
        (
            spec({"capabilities": {"add": ["CHOWN"]}}),
            'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; container "c" '
            'must not include "CHOWN" in securityContext.capabilities.add)',
        ),
        (
            spec(volumes=[{"name": "v", "nfs": {}}]),
            'restricted volume types (volume "v" uses restricted volume type "nfs")',
        ),
        (
            spec({"runAsNonRoot": None}),
            'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        ),
        (
            spec({"runAsNonRoot": False}, {"runAsNonRoot": False}),
            'runAsNonRoot != true (pod and container "c" must not set securityContext.runAsNonRoot=false)',
        ),
        (spec({"runAsUser": 0}), 'runAsUser=0 (container "c" must not set runAsUser=0)'),
        (
            spec({"seccompProfile": None}),
            'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
            '"Localhost")',
        ),
    ],
)
def test_what_restricted_forbids(pod: Any, said: str) -> None:
    assert broken("restricted", pod) == said
    assert broken("baseline", pod) == ""


def test_the_pods_own_context_counts_for_its_containers() -> None:
    pod = spec(
        {"runAsNonRoot": None, "seccompProfile": None}, {"runAsNonRoot": True, "seccompProfile": {"type": "Localhost"}}
    )
    assert broken("restricted", pod) == ""


def test_a_user_namespace_of_its_own_lets_pods_be_root_inside() -> None:
    pod = spec({"runAsNonRoot": None, "runAsUser": 0}, hostUsers=False)
    assert broken("restricted", pod) == ""
    assert "runAsUser=0" in broken("restricted", pod, 34)


def test_labels_name_level_and_version() -> None:
    prefix = "pod-security.kubernetes.io/"
    labels = {f"{prefix}enforce": "baseline", f"{prefix}enforce-version": "v1.25", f"{prefix}warn": "restricted"}
    found, problems = standards_of(labels)
    assert problems == []
    assert {mode: str(standard) for mode, standard in found.items()} == {
        "enforce": "baseline:v1.25", "audit": "privileged:latest", "warn": "restricted:latest",
    }  # fmt: skip
    found, problems = standards_of({f"{prefix}enforce": "strict", f"{prefix}warn-version": "1.2"})
    assert found["enforce"].level == "restricted", "what cannot be read is not taken lightly"
    assert problems == [
        (f"{prefix}enforce", "strict", "must be one of privileged, baseline, restricted"),
        (f"{prefix}warn-version", "1.2", 'must be "latest" or "v1.x"'),
    ]
