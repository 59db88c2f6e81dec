"""Where the configuration says that objects are stored."""

import subprocess
import sys

import pytest

from polder.base.errors import PermanentError
from polder.main.config import ServerConfig
from polder.main.config_storage import EtcdConfig
from polder.main.storage import open_store
from polder.main.storage_etcd import etcd_settings


def config(**more):
    return ServerConfig(listen=[], pki="", **more)


@pytest.mark.parametrize("more", [{}, {"store": "x", "etcd": EtcdConfig(endpoints=["a:1"])}])
async def test_a_store_is_a_file_or_an_etcd(more):
    with pytest.raises(PermanentError, match="exactly one of store"):
        await open_store(config(**more))


@pytest.mark.parametrize(
    ("etcd", "said"),
    [
        (EtcdConfig(endpoints=[]), "etcd.endpoints names none"),
        (EtcdConfig(endpoints=["a:1"], certificate="c"), "go together"),
        (EtcdConfig(endpoints=["a:1"], certificate="c", key="k"), "needs etcd.authority"),
    ],
)
def test_a_mistake_in_the_etcd_configuration_is_named(etcd, said):
    with pytest.raises(PermanentError, match=said):
        etcd_settings(etcd)


def test_a_server_with_a_file_loads_no_grpc():
    code = "import sys, polder.main.server; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
