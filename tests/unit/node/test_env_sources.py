"""Variables from services, and from files that init containers wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from polder.api.core import Service
from polder.base.errors import PermanentError
from polder.node.pods.envfiles import FILES, LARGEST, env_files, parse
from polder.node.pods.environment import Sources, environment
from polder.node.pods.fields import Surroundings
from polder.node.pods.services import service_variables
from polder.node.volumes.mounting import Mounted
from tests.unit.node.podkit import pod

AROUND = Surroundings("192.0.2.1", ("10.0.0.5",), 2000, 1 << 30)


def service(name: str, address: str, *ports: dict[str, Any]) -> Service:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterIP": address, "ports": list(ports)}}, Service
    )


def test_services_are_told_with_all_their_ports() -> None:
    web = service("my-web", "10.96.0.7", {"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP", "name": "a-b"})
    assert service_variables([web]) == {
        "MY_WEB_SERVICE_HOST": "10.96.0.7",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_SERVICE_PORT_A_B": "53",
        "MY_WEB_PORT": "tcp://10.96.0.7:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.7:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.7",
        "MY_WEB_PORT_53_UDP": "udp://10.96.0.7:53",
        "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53",
        "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.7",
    }
    six = service_variables([service("s", "fd00::7", {"port": 1})])
    assert (six["S_PORT"], six["S_SERVICE_HOST"]) == ("tcp://[fd00::7]:1", "fd00::7")


def test_headless_services_are_not_told() -> None:
    assert service_variables([service("s", "None", {"port": 1}), service("t", "", {"port": 1})]) == {}


def test_links_are_left_out_where_the_pod_does_not_want_them() -> None:
    api = service("kubernetes", "10.96.0.1", {"port": 443, "name": "https"})
    sources = Sources(kubernetes=api, services=[service("web", "10.96.0.7", {"port": 80})])
    for wanted in (True, False):
        found = pod({"enableServiceLinks": wanted})
        known = environment(found, found.spec.containers[0], sources, AROUND)
        assert ("WEB_SERVICE_HOST" in known) is wanted
        assert known["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


FILE = """# what an init container wrote
A='1'
  B='two
lines' # and a comment

EMPTY=''
BASH= 'x'
A='later'
"""


@pytest.mark.parametrize(
    ("key", "value"), [("A", "1"), ("B", "two\nlines"), ("EMPTY", None), ("BASH", None), ("C", None)]
)
def test_variables_of_a_file(key: str, value: str | None) -> None:
    assert parse(FILE).value(key) == value


@pytest.mark.parametrize("text", ["A=1", "A = '1'", "='1'", "A", "A='1' x", "B='1'\nA='open"])
def test_another_form_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(PermanentError, match=r"line \d is not of the form"):
        parse(text).value("A")


def test_a_file_of_the_pods_scratch_space(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "env").write_text("A='1'\n")
    (tmp_path / "secret").write_text("A='of the host'\n")
    (tmp_path / "e" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "e" / "large").write_text("#" * (LARGEST + 1))

    def known(path: str, volume: str = "e", *, optional: bool = False) -> dict[str, str]:
        ref = {"volumeName": volume, "path": path, "key": "A", "optional": optional}
        container = {"name": "a", "image": "x:1", "env": [{"name": "V", "valueFrom": {"fileKeyRef": ref}}]}
        volumes = [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]
        whole = pod({"containers": [container], "volumes": volumes})
        mounted = {"e": Mounted(tmp_path / "e"), "c": Mounted(tmp_path / "e")}
        files = env_files(whole, whole.spec.containers[0], mounted)
        return environment(whole, whole.spec.containers[0], Sources(files=files), AROUND)

    assert known("env") == {"V": "1"}
    assert known("missing", optional=True) == {}
    for path, why in (("missing", "not found in file"), ("out", "leads out"), ("large", "more than"), ("..", "leads")):
        with pytest.raises(PermanentError, match=why):
            known(path)
    with pytest.raises(PermanentError, match="no emptyDir"):
        known("env", "c")


def test_a_file_is_read_once_however_many_variables_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent serves all tenants: what one of them writes is not read a thousand times."""
    reads = []

    def count(directory: Path, path: str, largest: int) -> bytes:
        reads.append(path)
        return b"A='1'\n"

    monkeypatch.setattr("polder.node.pods.envfiles.read_beneath", count)

    def known(paths: list[str]) -> dict[str, str]:
        refs = [{"volumeName": "e", "path": path, "key": "A"} for path in paths]
        env = [{"name": f"V{n}", "valueFrom": {"fileKeyRef": ref}} for n, ref in enumerate(refs)]
        whole = pod(
            {"containers": [{"name": "a", "image": "x:1", "env": env}], "volumes": [{"name": "e", "emptyDir": {}}]}
        )
        files = env_files(whole, whole.spec.containers[0], {"e": Mounted(tmp_path)})
        return environment(whole, whole.spec.containers[0], Sources(files=files), AROUND)

    assert set(known(["env"] * 1000).values()) == {"1"}
    assert reads == ["env"]
    with pytest.raises(PermanentError, match="files at most"):
        known([str(n) for n in range(FILES + 1)])


def test_a_line_of_another_form_hides_only_what_comes_after_it() -> None:
    found = parse("A='1'\nB\nC='3'\n")
    assert found.value("A") == "1"
    with pytest.raises(PermanentError, match="line 2"):
        found.value("C")


def test_links_of_too_many_services_are_refused() -> None:
    ports = [{"port": n, "name": f"p{n}"} for n in range(1, 2001)]
    with pytest.raises(PermanentError, match="too many services"):
        service_variables(service(f"s{n}", "10.96.0.7", *ports) for n in range(100))
