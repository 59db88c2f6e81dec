"""What a node does not run, and what it says of that."""

from __future__ import annotations

from polder.node.pods.features import Features
from polder.node.pods.refuse import refusal, sysctls
from tests.unit.node.podkit import pod


def test_parameters_that_reach_no_further_than_the_pod_are_set_and_others_are_refused() -> None:
    def asking(*names: str) -> dict[str, object]:
        return {"securityContext": {"sysctls": [{"name": name, "value": "1"} for name in names]}}

    good = pod(asking("kernel/shm_rmid_forced", "net.ipv4.tcp_syncookies"))
    assert refusal(good) is None
    assert sysctls(good) == {"kernel.shm_rmid_forced": "1", "net.ipv4.tcp_syncookies": "1"}
    for name in ("kernel.msgmax", "net.core.somaxconn", "vm.overcommit_memory", "net/ipv4/conf/all/forwarding"):
        refused = refusal(pod(asking("net.ipv4.tcp_syncookies", name)))
        assert refused == ("SysctlForbidden", f'forbidden sysctl: "{name.replace("/", ".")}" not allowlisted')


def test_a_node_may_let_pods_set_more() -> None:
    asks = pod({"securityContext": {"sysctls": [{"name": "net/core/somaxconn", "value": "1"}]}})
    for patterns in ((), ("net.ipv4.*",), ("net.core.somaxcon",), ("kernel.msgmax",)):
        assert refusal(asks, Features(sysctls=patterns)) is not None
    for patterns in (("net.*",), ("net.core.somaxconn",)):
        assert refusal(asks, Features(sysctls=patterns)) is None


def test_volumes_of_drivers_that_are_not_there_are_refused_in_a_sentence() -> None:
    refused = refusal(pod({"volumes": [{"name": "v", "csi": {"driver": "d.example.com"}}]}))
    assert refused is not None and refused[0] == "Unsupported" and "spec.volumes, v:" in refused[1]


def test_a_label_is_nothing_without_selinux_and_refused_with_it() -> None:
    label = {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}
    around = pod(label)
    own = pod({"containers": [{"name": "a", "image": "x:1", **label}]})
    for one in (around, own):
        assert refusal(one) is None
        refused = refusal(one, Features(selinux=True))
        assert refused is not None and refused[0] == "Unsupported" and "seLinuxOptions" in refused[1]
    assert refusal(pod(), Features(selinux=True)) is None


def test_what_the_kernel_or_the_runtime_lacks_is_said() -> None:
    confined = pod({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}})
    assert refusal(confined) == ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
    assert refusal(confined, Features(app_armor=True)) is None
    strict = pod({"securityContext": {"supplementalGroupsPolicy": "Strict"}})
    refused = refusal(strict)
    assert refused is not None and refused[0] == "SupplementalGroupsPolicyNotSupported"
    assert refusal(strict, Features(strict_groups=True)) is None
    assert refusal(pod({"securityContext": {"supplementalGroupsPolicy": "Merge"}})) is None


def test_no_pod_of_a_tenant_is_unconfined() -> None:
    loose = {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}
    for spec in (loose, {"containers": [{"name": "a", "image": "x:1", **loose}]}):
        refused = refusal(pod(spec))
        assert refused is not None and refused[0] == "Forbidden" and "seccompProfile.type Unconfined" in refused[1]
        assert refusal(pod(spec, tenant="root")) is None
