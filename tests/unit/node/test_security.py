"""What containers may do, as the runtime is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polder.base.errors import PermanentError
from polder.node.pods.security import Profiles, container_security, pod_spaces
from polder.system.cri_types import ImageInfo, Security, SecurityProfile
from tests.unit.node.podkit import pod


def image(user: int | None = None, name: str = "") -> ImageInfo:
    return ImageInfo("sha256:1", (), (), 1, user, name)


def security(
    own: dict[str, Any] | None = None,
    around: dict[str, Any] | None = None,
    *,
    tenant: str = "acme",
    profiles: Profiles | None = None,
    run: ImageInfo | None = None,
) -> Security:
    container = {"name": "a", "image": "i:1", **({"securityContext": own} if own else {})}
    whole = pod({"containers": [container], **({"securityContext": around} if around else {})}, tenant=tenant)
    return container_security(whole, whole.spec.containers[0], run or image(), profiles or Profiles(Path("/s/seccomp")))


def test_the_containers_word_goes_before_the_pods() -> None:
    found = security({"runAsUser": 5}, {"runAsUser": 0, "runAsGroup": 7, "supplementalGroups": [8], "fsGroup": 9})
    assert (found.user, found.group, tuple(found.supplemental_groups)) == (5, 7, (8, 9))
    assert security(run=image(33)).user == 33


@pytest.mark.parametrize(
    ("own", "around", "run", "why"),
    [
        ({}, {"runAsNonRoot": True}, image(), "image will run as root"),
        ({}, {"runAsNonRoot": True}, image(0), "image will run as root"),
        ({}, {"runAsNonRoot": True}, image(None, "www"), "non-numeric user"),
        ({"runAsNonRoot": True}, {"runAsUser": 0}, image(5), "breaks non-root policy"),
    ],
)
def test_root_is_refused_where_the_pod_says_so(
    own: dict[str, Any], around: dict[str, Any], run: ImageInfo, why: str
) -> None:
    with pytest.raises(PermanentError, match=why):
        security(own, around, run=run)


def test_who_is_not_root_may_run() -> None:
    assert security({"runAsUser": 5}, {"runAsNonRoot": True, "runAsUser": 0}).user == 5
    assert security({}, {"runAsNonRoot": True}, run=image(9)).user == 9
    assert security({"runAsNonRoot": False}, {"runAsNonRoot": True}).user is None


def test_seccomp_is_the_runtimes_unless_said_otherwise() -> None:
    loose = {"seccompProfile": {"type": "Unconfined"}}
    assert security().seccomp == SecurityProfile("RuntimeDefault")
    assert security({}, loose).seccomp == SecurityProfile("Unconfined")
    assert security({"seccompProfile": {"type": "RuntimeDefault"}}, loose).seccomp == SecurityProfile("RuntimeDefault")


def test_profiles_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "tenants").mkdir()
    for name in ("audit.json", "tenants/web.json"):
        (tmp_path / name).write_text("{}")

    def local(name: str, tenant: str) -> Security:
        context = {"seccompProfile": {"type": "Localhost", "localhostProfile": name}}
        return security(context, tenant=tenant, profiles=Profiles(tmp_path))

    for name, tenant in (("audit.json", "root"), ("tenants/web.json", "root"), ("tenants/web.json", "acme")):
        assert local(name, tenant).seccomp == SecurityProfile("Localhost", str(tmp_path / name))
    for name in ("audit.json", "tenants/../audit.json", "/etc/passwd"):
        with pytest.raises(PermanentError, match="seccomp profile"):
            local(name, "acme")
    with pytest.raises(PermanentError, match="the node has no seccomp profile"):
        local("none.json", "root")


def test_app_armor_is_told_where_the_kernel_has_it(tmp_path: Path) -> None:
    context = {"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}}
    assert security(context).app_armor is None
    assert security(context, tenant="root", profiles=Profiles(tmp_path, True)).app_armor == SecurityProfile(
        "Localhost", "mine"
    )
    assert security(profiles=Profiles(tmp_path, True)).app_armor == SecurityProfile("RuntimeDefault")


def test_a_tenant_names_profiles_that_are_for_tenants_only(tmp_path: Path) -> None:
    def named(name: str, tenant: str) -> SecurityProfile | None:
        context = {"appArmorProfile": {"type": "Localhost", "localhostProfile": name}}
        return security(context, tenant=tenant, profiles=Profiles(tmp_path, True)).app_armor

    assert named("unconfined-program", "root") == SecurityProfile("Localhost", "unconfined-program")
    assert named("tenants-web", "acme") == SecurityProfile("Localhost", "tenants-web")
    for name in ("unconfined-program", "/usr/sbin/ntpd", "tenants", ""):
        with pytest.raises(PermanentError, match="AppArmor profile"):
            named(name, "acme")


def test_a_sandbox_has_all_rights_when_one_of_its_containers_has() -> None:
    def spaces(*privileged: bool, group: str = "containers") -> bool:
        made = [{"name": f"c{n}", "image": "i", "securityContext": {"privileged": p}} for n, p in enumerate(privileged)]
        whole = {"containers": [{"name": "a", "image": "i"}], group: made}
        return pod_spaces(pod(whole, tenant="root")).privileged

    assert spaces(False, True)
    assert spaces(True, group="initContainers")
    assert not spaces(False)
