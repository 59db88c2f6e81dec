"""nginx, PostgreSQL and a web application of Debian's packages, from ordinary manifests, in a tenant: born, updated and taken
back under load with no failed request, backed up, and with the data still there when the database's pod is another.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.harness import ROOT, Cluster, eventually

pytestmark = pytest.mark.e2e
MANIFESTS = ROOT / "examples" / "applications"
WITHOUT = ("perl*", "libperl*", "lib*-perl", "locales*", "libllvm*", "libz3*", "libc-l10n", "libnewt*", "libslang2")
IMAGES = {
    "nginx": ("nginx-light",),
    "postgres": ("postgresql-15", "--path", "/usr/lib/postgresql/15/bin"),
    "python": ("python3", "python3-psycopg2"),
}
LOAD = """
import json, signal, sys, urllib.request
answers, failures, going = {}, [], True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
while going:
    try:
        with urllib.request.urlopen("http://front/", timeout=10) as answer:
            version = answer.read().decode().split()[0]
        answers[version] = answers.get(version, 0) + 1
    except Exception as error:
        failures.append(repr(error))
    if sum(answers.values()) % 20 == 1:
        print(json.dumps({"answers": answers, "failures": failures[:20]}), flush=True)
print(json.dumps({"answers": answers, "failures": failures[:20]}), flush=True)
"""


class Shop:
    """The tenant in which the applications run."""

    def __init__(self, cluster: Cluster, tenant: str) -> None:
        self.cluster, self.tenant = cluster, tenant

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 180) -> str:
        return self.cluster.kubectl(self.tenant, *args, stdin=stdin, timeout=timeout).stdout

    def rolled(self, name: str) -> None:
        self.kubectl("rollout", "status", name, "--timeout=150s")

    def load(self) -> dict[str, dict[str, int]]:
        """What the load saw so far."""
        line = self.kubectl("logs", "load", "--tail=1")
        said: dict[str, dict[str, int]] = json.loads(line) if line else {"answers": {}}
        return said

    def answered_by(self, version: str) -> None:
        before = self.load()["answers"].get(version, 0)
        eventually(f"the load sees version {version}", lambda: self.load()["answers"].get(version, 0) > before + 20, 60)


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("images")
    for name, packages in IMAGES.items():
        without = [word for pattern in WITHOUT for word in ("--without", pattern)]
        tool = [sys.executable, str(ROOT / "tools" / "debian_image.py")]
        out = folder / f"{name}.tar"
        subprocess.run([*tool, f"{name}:debian", str(out), *packages, *without], check=True, timeout=300)
        cluster.polder("image", "import", str(out))
        out.unlink()
    made = Shop(cluster, "applications")
    cluster.make_tenant(made.tenant)
    made.kubectl("apply", "-f", str(MANIFESTS))
    for name in ("statefulset/database", "deployment/shop", "deployment/front"):
        made.rolled(name)
    yield made
    cluster.delete_tenant(made.tenant)


def test_an_update_and_its_way_back_lose_no_request(shop: Shop) -> None:
    shop.kubectl(
        "run", "load", "--image=python:debian", "--image-pull-policy=IfNotPresent", "--", "python3", "-c", LOAD
    )
    eventually("the load runs", lambda: shop.load()["answers"].get("one", 0) > 20, 60)
    shop.kubectl("set", "env", "deployment/shop", "VERSION=two")
    shop.rolled("deployment/shop")
    shop.answered_by("two")
    shop.kubectl("rollout", "restart", "deployment/front")
    shop.rolled("deployment/front")
    shop.kubectl("rollout", "undo", "deployment/shop")
    shop.rolled("deployment/shop")
    shop.answered_by("one")
    seen = shop.load()
    assert seen["failures"] == [], seen
    shop.kubectl("delete", "pod", "load")
    pods = json.loads(shop.kubectl("get", "pods", "-l", "app in (shop, front)", "-o", "json"))["items"]
    assert not any(one["restartCount"] for pod in pods for one in pod["status"]["containerStatuses"]), pods
    history = shop.kubectl("rollout", "history", "deployment/shop")
    assert [line.split()[0] for line in history.splitlines() if line[:1].isdigit()] == ["2", "3"]


def test_a_backup_is_made_as_the_cron_job_would(shop: Shop) -> None:
    shop.kubectl("create", "job", "--from=cronjob/backup", "backup-now")
    shop.kubectl("wait", "--for=condition=Complete", "job/backup-now", "--timeout=120s")
    assert int(shop.kubectl("logs", "job/backup-now")) > 0


def test_the_data_outlives_the_databases_pod(shop: Shop) -> None:
    count = ("psql", "-h", "/tmp", "-U", "shop", "-d", "postgres", "-Atc", "SELECT count(*) FROM visits")
    env = "PGPASSWORD=correct-horse"
    before = int(shop.kubectl("exec", "database-0", "--", "env", env, *count))
    uid = shop.kubectl("get", "pod", "database-0", "-o", "jsonpath={.metadata.uid}")
    shop.kubectl("delete", "pod", "database-0")
    shop.rolled("statefulset/database")
    assert shop.kubectl("get", "pod", "database-0", "-o", "jsonpath={.metadata.uid}") != uid
    assert int(shop.kubectl("exec", "database-0", "--", "env", env, *count)) >= before > 0
