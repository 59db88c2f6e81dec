"""Audit: what is written of requests, where, and what never is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from polder.apiserver.audit import Auditor
from polder.apiserver.audit_files import CURRENT, AuditFiles, AuditFileSettings, files_of
from polder.apiserver.audit_policy import DEFAULT_POLICY, AuditPolicy, PolicyError, parse_policy
from polder.apiserver.protobuf import MEDIA
from polder.apiserver.protobuf_encode import encode_body
from polder.apiserver.server import ApiServer
from polder.base.clock import SystemClock
from tests.contract.conftest import Api, Running

TENANTS = "/apis/polder.dev/v1alpha1/tenants"
MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
EVERYTHING = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n"


class Audited:
    """The running server once more, with an audit."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.files = AuditFiles(AuditFileSettings(folder))
        self.auditor = Auditor(DEFAULT_POLICY, self.files, SystemClock())
        self.folder = folder
        parts = replace(running.identity.parts, auditor=self.auditor)
        settings = running.api._settings
        self.server = ApiServer(settings, running.store, parts, SystemClock())
        self.running = replace(running, api=self.server)

    def events(self, tenant: str, count: int = 1, *, within: float = 15, **wanted: Any) -> list[Any]:
        """The events with these fields, as soon as there are so many."""
        deadline, found = time.monotonic() + within, list[Any]()
        while time.monotonic() < deadline:
            path = self.folder / tenant / CURRENT
            lines = path.read_text().splitlines() if path.exists() else []
            found = [e for e in map(json.loads, lines) if all(e.get(k) == v for k, v in wanted.items())]
            if len(found) >= count:
                break
            time.sleep(0.02)
        return found


@pytest.fixture
async def audited(running: Running, tmp_path: Path) -> AsyncIterator[Audited]:
    made = Audited(running, tmp_path / "audit")
    await made.server.start()
    yield made
    for session in made.running.sessions:
        await session.close()
    await made.server.stop()
    made.files.close()


@pytest.fixture
async def acme(audited: Audited) -> Api:
    admin = audited.running.admin()
    for name in ("acme", "globex"):
        assert (await admin.post(TENANTS, {"metadata": {"name": name}})).status == 201
    return await audited.running.tenant_admin("acme")


@pytest.mark.parametrize("name", ["nowhere", "%2Ftmp", "..", "%2e%2e%2Faudit-too", "a%2Fb", "%00", "x" * 300])
async def test_nobody_makes_up_whose_file_it_is(audited: Audited, acme: Api, name: str) -> None:
    anonymous = audited.running.client()
    before = sorted(path.name for path in audited.folder.parent.iterdir())
    url = URL(f"https://127.0.0.1:{audited.server.port}/tenants/{name}{MAPS}", encoded=True)
    async with anonymous.session.post(url, json={"metadata": {"name": "x"}}) as answer:
        assert answer.status == 403
    (event,) = audited.events("root", verb="create", requestURI=url.raw_path)
    assert event["user"]["username"] == "system:anonymous"
    assert {path.name for path in audited.folder.iterdir()} <= {"root", "acme", "globex"}
    assert sorted(path.name for path in audited.folder.parent.iterdir()) == before
    assert audited.files.dropped == 0


def test_a_name_that_no_tenant_has_is_no_path(tmp_path: Path) -> None:
    files = AuditFiles(AuditFileSettings(tmp_path / "audit"))
    for name in ("../out", str(tmp_path / "out"), "\0", "", "."):
        files.put(name, b"lost\n")
    files.put("acme", b"kept\n")
    files.close()
    assert files.dropped == 5
    assert [path.name for path in tmp_path.iterdir()] == ["audit"]
    assert (tmp_path / "audit" / "acme" / CURRENT).read_bytes() == b"kept\n"


async def test_changes_are_written_into_the_tenants_file(audited: Audited, acme: Api) -> None:
    made = await acme.post(MAPS, {"metadata": {"name": "x"}, "data": {"a": "hidden"}}, User_Agent="me/1")
    (event,) = audited.events("acme", verb="create")
    assert (event["kind"], event["apiVersion"], event["level"], event["stage"]) == (
        "Event", "audit.k8s.io/v1", "Metadata", "ResponseComplete",
    )  # fmt: skip
    assert event["auditID"] == made.headers["Audit-Id"]
    assert event["user"]["username"] == "admin" and "polder:tenant-admins" in event["user"]["groups"]
    assert event["objectRef"] == {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}
    assert event["responseStatus"]["code"] == 201 and event["userAgent"] == "me/1" and event["sourceIPs"]
    assert event["annotations"]["polder.dev/tenant"] == "acme"
    assert event["annotations"]["authorization.k8s.io/decision"] == "allow"
    assert "requestObject" not in event and "hidden" not in json.dumps(event)
    await acme.get(MAPS)
    refused = await acme.delete("/apis/polder.dev/v1alpha1/namespaces/default/ports/x")
    (event,) = audited.events("acme", verb="delete")
    assert event["responseStatus"]["code"] == refused.status == 403
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert not audited.events("acme", within=1, verb="list")
    assert not audited.events("globex", within=1, verb="create")
    assert [e["objectRef"]["resource"] for e in audited.events("root", 2, verb="create")] == ["tenants", "tenants"]


async def test_the_platforms_administrator_is_seen(audited: Audited, acme: Api) -> None:
    admin = audited.running.admin()
    assert (await admin.at("acme").get(SECRETS)).status == 200
    (event,) = audited.events("acme", verb="list")
    assert "polder:platform-admins" in event["user"]["groups"]
    assert (await admin.at("acme").call("GET", MAPS, Impersonate_User="jane")).status == 403
    event = audited.events("acme", 2, verb="list")[-1]
    assert (event["user"]["username"], event["impersonatedUser"]["username"]) == ("admin", "jane")


async def test_knocking_stands_in_roots_file(audited: Audited, acme: Api) -> None:
    for tenant in ("globex", "none"):
        assert (await acme.at(tenant).delete(f"{MAPS}/x")).status == 403
    found = audited.events("root", 2, verb="delete")
    assert [e["requestURI"] for e in found] == [f"/tenants/{t}{MAPS}/x" for t in ("globex", "none")]
    assert {path.name for path in audited.folder.iterdir()} <= {"root", "acme"}


async def test_levels_and_what_is_never_written(audited: Audited, acme: Api) -> None:
    audited.auditor.policy = parse_policy(EVERYTHING)
    await acme.post(MAPS, {"metadata": {"name": "x"}, "data": {"a": "shown"}})
    (event,) = audited.events("acme", stage="ResponseComplete", verb="create")
    assert event["requestObject"]["data"] == {"a": "shown"} == event["responseObject"]["data"]
    assert audited.events("acme", stage="RequestReceived", verb="create")
    await acme.post(SECRETS, {"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}})
    await acme.get(f"{SECRETS}/s")
    await acme.patch(f"{SECRETS}/s", {"stringData": {"password": "hunter3"}})
    token = (await acme.post(TOKEN, {"spec": {}})).json["status"]["token"]
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    await acme.post("/apis/authentication.k8s.io/v1/tokenreviews", review)
    await audited.running.client(token=token).get(MAPS)
    assert audited.events("acme", verb="list", stage="ResponseComplete")
    (seen,) = audited.events("acme", verb="patch", stage="ResponseComplete")
    assert seen["level"] == "Metadata"
    text = (audited.folder / "acme" / CURRENT).read_text()
    for secret in ("hunter2", "hunter3", "aHVudGVy", token):
        assert secret not in text
    await acme.post(MAPS, {"metadata": {"name": "big"}, "data": {"a": "x" * 200_000}})
    event = audited.events("acme", 5, verb="create", stage="ResponseComplete")[-1]
    assert event["annotations"]["audit.k8s.io/truncated"] == "true" and "requestObject" not in event


async def test_bodies_in_protobuf_are_written_as_any_other(audited: Audited, acme: Api) -> None:
    """What Go's typed clients send, kubectl among them."""
    audited.auditor.policy = parse_policy(EVERYTHING)
    typed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "shown"}}
    await acme.post(MAPS, encode_body(typed), Content_Type=MEDIA, Accept=MEDIA)
    (event,) = audited.events("acme", stage="ResponseComplete", verb="create")
    assert event["requestObject"]["data"] == {"a": "shown"} == event["responseObject"]["data"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
    await acme.post(SECRETS, encode_body(secret), Content_Type=MEDIA)
    await acme.post(MAPS, encode_body(secret), Content_Type=MEDIA)
    long = {**typed, "metadata": {"name": "long"}, "data": {"a": "x" * 50_000}}
    await acme.post(MAPS, encode_body(long), Content_Type=MEDIA)
    found = audited.events("acme", 4, stage="ResponseComplete", verb="create")
    assert [("requestObject" in e, e["annotations"].get("audit.k8s.io/truncated")) for e in found] == [
        (True, None), (False, None), (False, None), (False, "true"),
    ]  # fmt: skip
    assert "hunter2" not in (audited.folder / "acme" / CURRENT).read_text()


async def test_a_watch_is_written_when_it_begins(audited: Audited, acme: Api) -> None:
    audited.auditor.policy = parse_policy(EVERYTHING)
    async with acme.watch(f"{MAPS}?watch=1") as stream:
        await stream.content.readline()
        assert audited.events("acme", stage="ResponseStarted", verb="watch")


POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [jane]}
- {level: Request, resources: [{group: "", resources: [pods/*]}], namespaces: [default]}
- {level: None, nonResourceURLs: ["/healthz*"]}
- {level: Metadata, tenants: ["*"], verbs: [create]}
"""


def test_rules_in_their_order() -> None:
    from polder.apiserver.audit_policy import Level, verdict
    from polder.apiserver.types import Identity, RequestInfo, Role
    from polder.base.ids import TenantName

    policy = parse_policy(POLICY)
    jane, joe = Identity("jane", Role.USER), Identity("joe", Role.USER)

    def level(who: Identity, verb: str, resource: str, sub: str = "", tenant: str = "acme", path: str = "") -> Level:
        what = RequestInfo(TenantName(tenant), verb, path, "", "v1", resource, sub, "default")
        return verdict(policy, who, what).level

    assert level(jane, "create", "pods", "log") is Level.NONE
    assert level(joe, "get", "pods", "log") is Level.REQUEST
    assert level(joe, "get", "pods") is Level.NONE
    assert level(joe, "create", "pods") is Level.METADATA
    assert level(joe, "create", "pods", tenant="root") is Level.NONE
    assert level(joe, "create", "", path="/healthz/x") is Level.NONE


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Policy", "rules"),
        ("apiVersion: v1\nkind: Policy", "expected audit.k8s.io/v1"),
        ("rules: [{level: Some}]", "rules.0..level 'Some'"),
        ("rules: [{level: None, verb: [get]}]", "verb"),
        ("rules: [{level: None, nonResourceURLs: [/x], namespaces: [y]}]", "both"),
        ("rules: [{level: None, omitStages: [Later]}]", "Later"),
        ("rules: {", "audit policy"),
    ],
)
def test_bad_policies(text: str, problem: str) -> None:
    if text == "kind: Policy":
        assert parse_policy(text) == AuditPolicy()
        return
    with pytest.raises(PolicyError, match=problem):
        parse_policy(text)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_files_are_rotated_and_few_are_open(tmp_path: Path) -> None:
    files = AuditFiles(AuditFileSettings(tmp_path, max_bytes=1000, kept=2, open_files=8))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(60):
        for tenant in range(50):
            files.put(f"t{tenant}", b'{"n":%d}\n' % number)
    until((tmp_path / "t49" / CURRENT).exists)
    assert len(os.listdir("/proc/self/fd")) <= before + 9
    for number in range(1000):
        files.put("big", b"%06d\n" % number)
        if not number % 100:
            time.sleep(0.01)
    files.close()
    lines = b"".join(path.read_bytes() for path in files_of(tmp_path, "big")).splitlines()
    assert lines == sorted(lines) and lines[-1] == b"000999" and len(files_of(tmp_path, "big")) <= 3
    assert (tmp_path / "t7" / CURRENT).read_bytes().count(b"\n") == 60
    assert oct((tmp_path / "t7" / CURRENT).stat().st_mode)[-3:] == "600"


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    files = AuditFiles(AuditFileSettings(tmp_path, waiting_bytes=100))
    files.put("t", b"x" * 101)
    assert files.dropped == 1
    (tmp_path / "bad").write_text("in the way")
    files.put("bad", b"y\n")
    until(lambda: files.dropped == 2)
    files.put("t", b"good\n")
    files.close()
    assert (tmp_path / "t" / CURRENT).read_bytes() == b"good\n"


KILLED = """
import sys, time
from pathlib import Path
from polder.apiserver.audit_files import AuditFiles, AuditFileSettings
files = AuditFiles(AuditFileSettings(Path(sys.argv[1])))
for number in range(10**9):
    files.put("t", b"%09d\\n" % number)
    if not number % 200:
        print(number, flush=True)
        time.sleep(0.01)
"""


def test_kill_9_loses_the_last_lines_only(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(30)]
        process.send_signal(signal.SIGKILL)
    lines = (tmp_path / "t" / CURRENT).read_bytes().split(b"\n")
    assert [int(line) for line in lines[:-1]] == list(range(len(lines) - 1))
    assert len(lines) >= said[-2], "what was put a moment ago is there"
