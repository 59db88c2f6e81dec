"""`polder backup`, `restore` and `secrets` as a person types them, with a server in a process of its own."""

from __future__ import annotations

import stat

import pytest

from polder.main.entry import main
from tests.process import ServerProcess

CORE = "/api/v1/namespaces/default"


def config_map(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "rabioso"}}
TENANT = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}


@pytest.fixture
def server(tmp_path):
    found = ServerProcess(tmp_path / "state").start()
    yield found
    found.stop()


def polder(server, *args):
    return main(["--state", str(server.state), *map(str, args)])


def test_all_is_saved_lost_and_brought_back(server, tmp_path, capsys):
    file, core = tmp_path / "all", f"/tenants/acme{CORE}"
    assert server.call("POST", "/apis/polder.dev/v1alpha1/tenants", TENANT)[0] == 201
    assert server.call("POST", f"{core}/configmaps", config_map("c"))[0] == 201
    assert server.call("POST", f"{core}/secrets", SECRET)[0] == 201
    before = server.call("GET", f"{core}/configmaps/c")[1]
    assert polder(server, "backup", file) == 0
    said = capsys.readouterr().out
    assert "saved everything" in said and "keep the keyring" in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert polder(server, "backup", file) == 1
    assert "--force" in capsys.readouterr().err
    assert polder(server, "restore", file) == 1
    assert "in use" in capsys.readouterr().err
    assert server.call("DELETE", f"{core}/configmaps/c")[0] == 200
    server.stop()
    assert polder(server, "restore", file) == 1
    assert "not empty" in capsys.readouterr().err
    database = server.state / "server" / "polder.db"
    for path in database.parent.glob("polder.db*"):
        path.unlink()
    assert polder(server, "restore", file) == 0
    server.start()
    after = server.call("GET", f"{core}/configmaps/c")[1]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"]) + 1000
    assert server.call("GET", f"{core}/secrets/s")[1]["data"] == {"k": "cmFiaW9zbw=="}
    status, found = server.call(
        "GET", f"{core}/configmaps?watch=1&resourceVersion={before['metadata']['resourceVersion']}"
    )
    assert "Expired" in str(found) or status == 410, (status, found)
    # With the server down the store's file is read itself.
    server.stop()
    assert polder(server, "backup", tmp_path / "again") == 0
    assert polder(server, "backup", tmp_path / "one", "--tenant", "nobody") == 1


def test_one_tenant_and_a_rotation(server, tmp_path, capsys):
    core = f"/tenants/acme{CORE}"
    assert server.call("POST", "/apis/polder.dev/v1alpha1/tenants", TENANT)[0] == 201
    assert server.call("POST", f"{core}/secrets", SECRET)[0] == 201
    file = tmp_path / "acme.backup"
    assert polder(server, "backup", file, "--tenant", "acme") == 0
    for wrong, why in (
        (("restore", file), "--tenant acme"),
        (("restore", file, "--tenant", "globex"), "not globex"),
        (("restore", file, "--tenant", "acme"), "already exists"),
        (("backup", tmp_path / "x", "--tenant", "nobody"), "not found"),
    ):
        assert polder(server, *wrong) == 1
        assert why in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert polder(server, "restore", file, "--tenant", "acme=copy") == 0
    assert "restored tenant acme as copy" in capsys.readouterr().out
    assert server.call("GET", f"/tenants/copy{CORE}/secrets/s")[1]["data"] == {"k": "cmFiaW9zbw=="}

    assert polder(server, "secrets", "add-key") == 0
    assert polder(server, "secrets", "rotate") == 0
    assert "values were written anew" in capsys.readouterr().out
    assert server.call("GET", f"{core}/secrets/s")[0] == 200
    assert polder(server, "secrets", "prune") == 0
    assert "forgot 1 keys" in capsys.readouterr().out
    server.stop()
    server.start()
    assert server.call("GET", f"{core}/secrets/s")[1]["data"] == {"k": "cmFiaW9zbw=="}
