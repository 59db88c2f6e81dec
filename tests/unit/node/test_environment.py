"""Environments, expansion, downward fields, configurations."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from polder.api.core import ConfigMap, Pod, Secret
from polder.api.meta import ObjectMeta
from polder.api.podspec import Container
from polder.base.errors import PermanentError
from polder.node.pods import configs, fields, resources
from polder.node.pods.context import Machine
from polder.node.pods.environment import Sources, environment, expand, expand_all, needed
from polder.node.pods.fields import Surroundings
from polder.node.pods.refuse import refusal
from polder.node.pods.resolv import Resolver
from polder.node.pods.security import Profiles
from polder.system.cri_types import BindMount, ImageInfo
from tests.unit.node.podkit import pod

AROUND = Surroundings("192.0.2.1", ("10.0.0.5",), 4000, 8 << 30)
SOURCES = Sources(
    {"cm": ConfigMap(metadata=ObjectMeta(name="cm"), data={"k": "v", "l": "w"}), "gone": None},
    {"s": Secret(metadata=ObjectMeta(name="s"), data={"pw": base64.b64encode(b"hush").decode()}), "gone": None},
)
IMAGE = ImageInfo("sha256:1", (), (), 1, None, "")


def box(**spec: Any) -> Container:
    return msgspec.convert({"name": "a", "image": "i:1", **spec}, Container)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("$(A)$(A)", "11"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_what_refers_to_references_does_not_grow_without_end() -> None:
    """Ten variables of twenty references each would be 20**10 characters in the agent of all tenants."""
    env = [{"name": "V0", "value": "x" * 100}]
    env += [{"name": f"V{n}", "value": f"$(V{n - 1})" * 20} for n in range(1, 11)]
    with pytest.raises(PermanentError, match="argument list too long"):
        environment(pod(), box(env=env), SOURCES, AROUND)


def test_neither_commands_nor_whole_maps_are_longer_than_a_program_takes() -> None:
    large = "x" * 100_000
    with pytest.raises(PermanentError, match="argument list too long"):
        expand_all(["$(A)" * 1000], {"A": large})
    with pytest.raises(PermanentError, match="argument list too long"):
        expand_all(["$(A)"] * 1000, {"A": large})
    assert expand_all(["$(A)"], {"A": large}) == [large]
    sources = Sources({"cm": ConfigMap(metadata=ObjectMeta(name="cm"), data={"k": large})})
    maps = [{"prefix": f"p{n}", "configMapRef": {"name": "cm"}} for n in range(100)]
    with pytest.raises(PermanentError, match="argument list too long"):
        environment(pod(), box(envFrom=maps), sources, AROUND)
    keys = [{"name": f"v{n}", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}} for n in range(100)]
    with pytest.raises(PermanentError, match="argument list too long"):
        environment(pod(), box(env=keys), sources, AROUND)


def test_later_variables_see_earlier_ones_and_override_whole_maps() -> None:
    env = [{"name": "l", "value": "own"}, {"name": "both", "value": "$(k)$(l)"}, {"name": "early", "value": "$(late)"}]
    found = environment(
        pod(),
        box(envFrom=[{"prefix": "", "configMapRef": {"name": "cm"}}], env=[*env, {"name": "late"}]),
        SOURCES,
        AROUND,
    )
    assert (found["k"], found["l"], found["both"], found["early"]) == ("v", "own", "vown", "$(late)")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "k"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "gone", "key": "k"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "x"}}, "couldn't find key x in ConfigMap ns/cm"),
        ({"fieldRef": {"fieldPath": "spec.nope"}}, "spec.nope"),
        ({"resourceFieldRef": {"resource": "limits.gpu"}}, "limits.gpu"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], words: str) -> None:
    with pytest.raises(PermanentError) as error:
        environment(pod(), box(env=[{"name": "A", "valueFrom": source}]), SOURCES, AROUND)
    assert words in str(error.value)


def test_what_is_optional_is_left_out() -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": True}}}]
    assert environment(pod(), box(env=env), SOURCES, AROUND) == {}


def test_needed_names() -> None:
    made = box(
        envFrom=[{"secretRef": {"name": "s1"}}, {"configMapRef": {"name": "c1"}}],
        env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}],
    )
    assert needed(made) == ({"c1"}, {"s1", "s2"})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels", 'app="web"'),
        ("metadata.annotations", ""),
        ("spec.nodeName", "n1"),
        ("status.podIP", "10.0.0.5"),
        ("status.hostIP", "192.0.2.1"),
    ],
)
def test_fields(path: str, text: str) -> None:
    ref = msgspec.convert({"fieldPath": path}, fields.FieldRef)
    assert fields.field(pod(labels={"app": "web"}), ref, AROUND) == text


@pytest.mark.parametrize(
    ("resource", "text"),
    [("limits.cpu", "2"), ("limits.memory", str(64 << 20)), ("requests.cpu", "0"), ("limits.ephemeral-storage", "9")],
)
def test_where_a_container_has_no_limit_the_pods_is_its(resource: str, text: str) -> None:
    wanted = {"limits": {"cpu": "1250m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
    ref = msgspec.convert({"resource": resource}, fields.ResourceFieldRef)
    around = Surroundings("192.0.2.1", (), 4000, 8 << 30, 9)
    assert fields.resource(pod({"resources": wanted}), ref, box(), around) == text
    own = box(resources={"limits": {"cpu": "3", "memory": "1", "ephemeral-storage": "5"}})
    found = fields.resource(pod({"resources": wanted}), ref, own, around)
    assert found == {"limits.cpu": "3", "limits.memory": "1", "requests.cpu": "3"}.get(resource, "5")


@pytest.mark.parametrize(("spec", "known"), [({"hostNetwork": True}, ("192.0.2.1",)), ({}, ())])
def test_a_pod_in_the_nodes_network_knows_its_address_before_it_starts(
    spec: dict[str, Any], known: tuple[str, ...]
) -> None:
    machine = Machine(
        "192.0.2.1", 4000, 8 << 30, 9 << 30, {"cpu": 3000, "memory": 7 << 30, "ephemeral-storage": 8 << 30}
    )
    found = machine.around(pod(spec))
    assert found.pod_ips == known
    assert (found.node_cpu, found.node_memory, found.node_disk) == (3000, 7 << 30, 8 << 30), "what pods may have of it"
    assert machine.around(pod(spec), ("10.0.0.7",)).pod_ips == ("10.0.0.7",)


@pytest.mark.parametrize(
    ("resource", "divisor", "text"),
    [
        ("limits.cpu", "0", "2"),
        ("limits.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "64"),
        ("requests.memory", "0", str(64 << 20)),
        ("requests.cpu", "1m", "1500"),
    ],
)
def test_resource_fields(resource: str, divisor: str, text: str) -> None:
    limits = {"limits": {"cpu": "1500m", "memory": "64Mi"}}
    ref = msgspec.convert({"resource": resource, "divisor": divisor}, fields.ResourceFieldRef)
    assert fields.resource(pod(), ref, box(resources=limits), AROUND) == text


@pytest.mark.parametrize(
    ("resource", "divisor", "text"),
    [
        ("limits.ephemeral-storage", "1Mi", "10"),
        ("requests.ephemeral-storage", "0", str(4 << 20)),
        ("limits.hugepages-2Mi", "1Mi", "6"),
        ("requests.hugepages-2Mi", "1Mi", "6"),
        ("limits.hugepages-1Gi", "1", "0"),
    ],
)
def test_resources_beyond_cpu_and_memory(resource: str, divisor: str, text: str) -> None:
    held = {
        "limits": {"ephemeral-storage": "10Mi", "hugepages-2Mi": "6Mi"},
        "requests": {"ephemeral-storage": "4Mi"},
    }
    ref = msgspec.convert({"resource": resource, "divisor": divisor}, fields.ResourceFieldRef)
    assert fields.resource(pod(), ref, box(resources=held), AROUND) == text


def with_resources(*found: dict[str, Any]) -> Pod:
    return pod({"containers": [{"name": f"c{n}", "image": "i:1", "resources": r} for n, r in enumerate(found)]})


@pytest.mark.parametrize(
    ("found", "quality"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"requests": {"memory": "1"}}], "Burstable"),
    ],
)
def test_quality_of_service(found: list[dict[str, Any]], quality: str) -> None:
    assert resources.qos_class(with_resources(*found)) == quality


def test_cgroup_figures() -> None:
    limited = with_resources({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}})
    made = resources.container_resources(limited, limited.spec.containers[0], 1 << 30)
    assert (made.cpu_shares, made.cpu_quota, made.cpu_period, made.memory) == (256, 150_000, 100_000, 64 << 20)
    assert made.oom_score_adj == 1000 - 1000 * (64 << 20) // (1 << 30)
    assert resources.pod_limits(with_resources({"limits": {"memory": "1Mi"}}, {})).memory is None
    both = resources.pod_limits(with_resources({"limits": {"memory": "1Mi"}}, {"limits": {"memory": "2Mi"}}))
    assert (both.memory, both.cpu_quota) == (3 << 20, None)


PLACES = configs.Places(Path("/s/pods"), Path("/s/logs"), "polder/n1")


def container_of(spec: dict[str, Any], around: dict[str, Any] | None = None) -> Any:
    whole = pod({"containers": [{"name": "a", "image": "i:1", **spec}], **(around or {})})
    mounts = [BindMount("/v", "/s/pods/u-1/volumes/empty-dir/v", True)]
    inputs = configs.Inputs(2, IMAGE, {"X": "1"}, mounts, 1 << 30, Profiles(Path("/s/seccomp")))
    return configs.container_config(whole, whole.spec.containers[0], inputs, PLACES)


def test_a_container_as_the_runtime_gets_it() -> None:
    made = container_of({"command": ["$(X)"], "args": ["$$(X)"]})
    assert (made.command, made.args, made.log_path, made.attempt) == (["1"], ["$(X)"], "a/2.log", 2)
    assert BindMount("/v", "/s/pods/u-1/volumes/empty-dir/v", True) in made.mounts
    assert BindMount("/etc/hosts", "/s/pods/u-1/etc-hosts") in made.mounts
    assert "/proc/kcore" in made.security.masked_paths


def test_root_is_refused_where_the_pod_says_so() -> None:
    with pytest.raises(PermanentError, match="runAsNonRoot"):
        container_of({}, {"securityContext": {"runAsNonRoot": True}})
    made = container_of(
        {"securityContext": {"runAsUser": 5}}, {"securityContext": {"runAsNonRoot": True, "runAsUser": 0}}
    )
    assert made.security.user == 5


def test_a_sandbox_carries_tenant_and_uid() -> None:
    made = configs.sandbox_config(pod(tenant="globex"), 3, PLACES, Resolver(lambda _: "10.96.0.10"))
    assert (made.metadata.namespace, made.metadata.uid, made.metadata.attempt) == ("globex/ns", "u-1", 3)
    assert made.cgroup_parent == "/polder/n1/besteffort/podu-1"
    assert made.log_directory == "/s/logs/globex_ns_p_u-1"
    assert made.dns.searches[0] == "ns.svc.cluster.local"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostIPC": True}, "hostIPC"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}, "container i: securityContext"),
        ({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["CAP_NET_ADMIN"]}}}]}, "NET_ADMIN"),
        ({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "hostPort"),
    ],
)
def test_only_the_platform_gets_the_host(spec: dict[str, Any], named: str) -> None:
    refused = refusal(pod(spec))
    assert refused is not None
    assert refused[0] == "Forbidden"
    assert named in refused[1]
    of_root = refusal(pod(spec, tenant="root"))
    assert of_root is None or of_root[0] == "Unsupported"


def test_an_ordinary_pod_is_run() -> None:
    assert (
        refusal(pod({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_RAW"]}}}]})) is None
    )
