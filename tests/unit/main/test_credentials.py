"""What `polder up` and `polder kubeconfig` find or make below a cluster's state directory."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from polder.base.errors import PermanentError
from polder.base.ids import ROOT, TenantName
from polder.main.cluster import Cluster
from polder.main.config import AgentConfig, ServerConfig, load
from polder.main.config_authn import Certificate
from polder.main.config_authz import AlwaysDeny, Node
from polder.main.credentials import Credentials
from polder.system.pki import NODES, PkiError, parse_client
from polder.system.pki.authority import Wanted
from polder.system.pki.leaves import CLIENT_USAGES, make_subject


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials.of(Cluster(state=tmp_path))


def der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


def test_a_node_of_an_earlier_release_keeps_its_key_and_gets_a_certificate_of_todays_form(credentials) -> None:
    node = credentials.cluster.node(1)
    old = credentials.pki.clients.issue(Wanted(make_subject("system:node:node-1", (NODES,)), (), CLIENT_USAGES))
    old.write(credentials.cluster.pki / "node-1.crt", credentials.cluster.pki / "node-1.key")
    certificate, key = credentials.node(node)
    found = parse_client(der(certificate.read_bytes()))
    assert (found.common_name, found.addresses) == ("system:node:node-1", (node.address,))
    assert credentials.pki.issuer(der(certificate.read_bytes())) == "agents"
    assert found.key == parse_client(der(old.certificate)).key
    before, after = (load_pem_private_key(pem, None).private_numbers() for pem in (old.key, key.read_bytes()))
    assert before == after
    again = certificate.read_bytes()
    credentials.node(node)
    assert certificate.read_bytes() == again, "one that is good stays"


def test_a_user_has_a_context_for_each_tenant_and_no_rights_of_the_platform(credentials) -> None:
    leaf = credentials.user("bob", ["dev"])
    name = parse_client(der(leaf.certificate))
    assert (name.common_name, name.organizations, name.uris) == ("bob", ("dev",), ("urn:polder:tenant:root",))
    document = yaml.safe_load(credentials.contexts("bob", [TenantName("acme"), TenantName("globex"), ROOT], leaf))
    assert [c["name"] for c in document["contexts"]] == ["acme", "globex", "root"]
    assert {c["context"]["user"] for c in document["contexts"]} == {"bob"}
    assert [c["cluster"]["server"].partition("/tenants/")[2] for c in document["clusters"]] == ["acme", "globex", ""]
    assert document["current-context"] == "acme"
    authority = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    assert authority == credentials.pki.trust
    for group in ("polder:platform-admins", "polder:components"):
        with pytest.raises(PkiError):
            credentials.user("bob", [group])


def test_the_administrators_certificate_is_made_anew_when_it_is_due(credentials) -> None:
    certificate, _ = credentials.admin()
    first = certificate.read_bytes()
    assert credentials.admin()[0].read_bytes() == first
    assert not credentials.pki.due("clients", certificate, datetime.now(UTC))
    certificate.write_bytes(credentials.pki.issue_front_proxy("x").certificate)
    assert credentials.admin()[0].read_bytes() not in {first, b""}
    assert credentials.pki.issuer(der(certificate.read_bytes())) == "clients"


def test_what_somebody_set_in_the_servers_file_stays_when_the_cluster_is_started_again(credentials) -> None:
    path = credentials.write_server_config()
    assert load(path, ServerConfig).listen == ["127.0.0.1:6443", "172.30.0.1:6443"]
    document = yaml.safe_load(path.read_text())
    assert document.keys() == {"apiVersion", "kind", "listen", "names", "store", "sealing", "pki", "audit"}, (
        "a later release's defaults count in a file that is there"
    )
    document |= {
        "authentication": [{"type": "Certificate"}],
        "authorization": [{"type": "Node"}, {"type": "AlwaysDeny"}],
    }
    document["listen"].append("192.0.2.1:6443")
    path.write_text("# ours\n" + yaml.safe_dump(document))
    before = path.read_text()
    credentials.write_server_config()
    assert path.read_text() == before, "nothing changes, so that comments stay too"
    moved = Credentials(Cluster(state=credentials.cluster.state, port=7000), credentials.pki)
    found = load(moved.write_server_config(), ServerConfig)
    assert found.listen == ["127.0.0.1:7000", "172.30.0.1:7000", "192.0.2.1:6443"]
    assert (found.authentication, found.authorization) == ((Certificate(),), (Node(), AlwaysDeny()))
    path.write_text(yaml.safe_dump(document | {"pki": "/elsewhere/pki"}))
    assert load(credentials.write_server_config(), ServerConfig).pki == str(credentials.cluster.pki)
    path.write_text(yaml.safe_dump(document | {"authentification": []}))
    with pytest.raises(PermanentError, match="authentification"):
        credentials.write_server_config()


def test_what_somebody_set_in_an_agents_file_stays_when_the_cluster_is_started_again(credentials) -> None:
    node = credentials.cluster.node(1)
    path = credentials.write_agent_config(node)
    first = load(path, AgentConfig)
    document = yaml.safe_load(path.read_text()) | {"maxPods": 7, "dnsUpstreams": ["192.0.2.53"], "prefix": "other"}
    document["protected"].append("192.0.2.0/24")
    path.write_text(yaml.safe_dump(document))
    found = load(credentials.write_agent_config(node), AgentConfig)
    assert (found.max_pods, found.dns_upstreams, found.prefix) == (7, ["192.0.2.53"], first.prefix)
    assert found.protected == [*first.protected, "192.0.2.0/24"]
