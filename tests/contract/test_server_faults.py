"""A server whose disk fails, and one that is killed amid writes: what clients see, and what is there afterwards."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import build
from tests.process import ServerProcess

PATH = "/api/v1/namespaces/default/configmaps"


def config_map(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": name}}


@pytest.fixture
def faults(tmp_path):
    return build(tmp_path)


@pytest.fixture
def server(tmp_path, faults):
    found = ServerProcess(tmp_path / "state", faults.environment).start()
    yield found
    faults.set("0")
    found.stop()


def names(server):
    return {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in server.call("GET", PATH)[1]["items"]}


@pytest.mark.parametrize("mode", ["f", "y"])
def test_on_a_failing_disk_reads_go_on_and_writes_are_refused_with_a_status(server, faults, mode):
    assert server.call("POST", PATH, config_map("before"))[0] == 201
    faults.set(mode)
    for method, path, body in (
        ("POST", PATH, config_map("never")),
        ("PATCH", f"{PATH}/before", {"data": {"n": "other"}}),
        ("DELETE", f"{PATH}/before", None),
    ):
        status, answer = server.call(method, path, body)
        assert (status, answer["kind"], answer["reason"]) == (500, "Status", "InternalError"), answer
        assert "the store cannot write" in answer["message"]
    assert server.call("GET", f"{PATH}/before")[1]["data"] == {"n": "before"}
    assert set(names(server)) == {"before", "kube-root-ca.crt"}
    faults.set("0")
    assert server.call("POST", PATH, config_map("after"))[0] == 201
    server.stop(signal.SIGKILL)
    server.start()
    assert set(names(server)) == {"before", "after", "kube-root-ca.crt"}
    assert server.call("GET", f"{PATH}/before")[1]["data"] == {"n": "before"}


class Watch:
    """A client that follows with watches, and reconnects from the last version it saw."""

    def __init__(self, server, version):
        self.server, self.version, self.seen = server, version, []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop.is_set():
            url = f"https://127.0.0.1:{self.server.port}{PATH}?watch=1&resourceVersion={self.version}&timeoutSeconds=60"
            try:
                with urllib.request.urlopen(url, context=self.server._context, timeout=3) as answer:
                    for line in answer:
                        event = json.loads(line)
                        assert event["type"] in ("ADDED", "MODIFIED"), event
                        meta = event["object"]["metadata"]
                        self.seen.append((int(meta["resourceVersion"]), meta["name"]))
                        self.version = meta["resourceVersion"]
            except (OSError, ValueError):
                time.sleep(0.02)


def test_kill_9_under_writes_keeps_what_was_acknowledged_and_watches_resume(server):
    acknowledged, rounds = {}, 3
    start = server.call("GET", PATH)[1]["metadata"]["resourceVersion"]
    watches = [Watch(server, start) for _ in range(2)]
    random.seed(5)

    def write(worker, until):
        number = 0
        while not until.is_set():
            name = f"w{worker}-{time.monotonic_ns()}-{number}"
            try:
                status, answer = server.call("POST", PATH, config_map(name))
            except OSError:
                return
            assert status == 201, answer
            acknowledged[name] = answer["metadata"]["resourceVersion"]
            number += 1

    with ThreadPoolExecutor(8) as pool:
        for _ in range(rounds):
            until, enough = threading.Event(), len(acknowledged) + random.randrange(60, 160)
            writers = [pool.submit(write, n, until) for n in range(8)]
            while len(acknowledged) < enough:
                time.sleep(0.001)
            server.stop(signal.SIGKILL)
            until.set()
            for writer in writers:
                writer.result(20)
            server.start()
    found = names(server)
    assert {name: found.get(name) for name in acknowledged} == acknowledged
    assert server.call("POST", PATH, config_map("last"))[0] == 201
    end = time.monotonic() + 15
    while time.monotonic() < end and not all(w.seen and w.seen[-1][1] == "last" for w in watches):
        time.sleep(0.02)
    for watch in watches:
        watch.stop.set()
    server.stop(signal.SIGKILL)
    for watch in watches:
        watch.thread.join(10)
        assert [v for v, _ in watch.seen] == sorted({v for v, _ in watch.seen})
        assert {name for _, name in watch.seen} == {*found, "last"} - {"kube-root-ca.crt"}
