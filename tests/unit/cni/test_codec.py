from __future__ import annotations

import json

import pytest

from polder.cni.codec import encode_error, encode_result, encode_versions, parse_request
from polder.cni.types import (
    Attachment,
    CniAddress,
    CniError,
    CniInterface,
    CniResult,
    CniRoute,
    Code,
    Command,
)
from polder.cni.wire import WireError, pack_answer, pack_request, unpack_answer, unpack_request

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "abc",
    "CNI_NETNS": "/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=acme/default;K8S_POD_NAME=web;K8S_POD_UID=u-1",
}
CONFIG = {"cniVersion": "1.0.0", "name": "polder", "type": "polder-cni"}
RESULT = CniResult(
    (CniInterface("eth0", "0a:58:0a:00:00:05", 1450, "/run/netns/x"), CniInterface("pabc", mtu=1450)),
    (CniAddress("10.0.0.5/16", "10.0.0.1", 0),),
    (CniRoute("0.0.0.0/0", "10.0.0.1"),),
)


def body(**more) -> bytes:
    return json.dumps({**CONFIG, **more}).encode()


def test_add_is_understood() -> None:
    request = parse_request(ENVIRONMENT, body(runtimeConfig={}, capabilities={"mac": True}, args={"cni": {}}))
    assert request.command is Command.ADD
    assert (request.container, request.interface, request.netns) == ("abc", "eth0", "/run/netns/x")
    assert (request.pod_uid, request.pod_namespace, request.pod_name) == ("u-1", "acme/default", "web")


def test_del_needs_no_netns_and_gc_takes_its_list_under_either_name() -> None:
    assert parse_request({**ENVIRONMENT, "CNI_COMMAND": "DEL", "CNI_NETNS": ""}, body()).netns == ""
    listed = [{"containerID": "a", "ifname": "eth0"}]
    for name in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        request = parse_request({"CNI_COMMAND": "GC"}, body(**{"cniVersion": "1.1.0", name: listed}))
        assert request.valid == (Attachment("a", "eth0"),)


@pytest.mark.parametrize(
    ("environment", "config", "code", "words"),
    [
        ({"CNI_COMMAND": "JUMP"}, {}, Code.INVALID_ENVIRONMENT, "CNI_COMMAND 'JUMP'"),
        ({"CNI_CONTAINERID": ""}, {}, Code.INVALID_ENVIRONMENT, "CNI_CONTAINERID"),
        ({"CNI_CONTAINERID": "-x"}, {}, Code.INVALID_ENVIRONMENT, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": ".."}, {}, Code.INVALID_ENVIRONMENT, "CNI_IFNAME"),
        ({"CNI_IFNAME": "a b"}, {}, Code.INVALID_ENVIRONMENT, "CNI_IFNAME"),
        ({"CNI_NETNS": ""}, {}, Code.INVALID_ENVIRONMENT, "CNI_NETNS"),
        ({"CNI_ARGS": "K8S_POD_UID"}, {}, Code.INVALID_ENVIRONMENT, "CNI_ARGS 'K8S_POD_UID'"),
        ({}, {"cniVersion": "0.2.0"}, Code.INCOMPATIBLE_VERSION, "cniVersion '0.2.0'"),
        ({}, {"cniVersion": None}, Code.INVALID_CONFIG, "cniVersion"),
        ({}, {"name": ""}, Code.INVALID_CONFIG, "name ''"),
        ({}, {"ipMasq": True}, Code.UNSUPPORTED_FIELD, "ipMasq"),
        ({"CNI_COMMAND": "CHECK"}, {}, Code.INVALID_CONFIG, "prevResult"),
        ({"CNI_COMMAND": "CHECK"}, {"cniVersion": "0.3.1"}, Code.INCOMPATIBLE_VERSION, "CHECK"),
        ({"CNI_COMMAND": "GC"}, {}, Code.INCOMPATIBLE_VERSION, "GC, which came with 1.1.0"),
        ({"CNI_COMMAND": "GC"}, {"cniVersion": "1.1.0"}, Code.INVALID_CONFIG, "cni.dev/valid-attachments"),
        ({"CNI_COMMAND": "STATUS"}, {}, Code.INCOMPATIBLE_VERSION, "STATUS"),
    ],
)
def test_what_is_wrong_is_named(environment, config, code, words) -> None:
    with pytest.raises(CniError) as caught:
        parse_request({**ENVIRONMENT, **environment}, body(**config))
    assert caught.value.code == code
    assert words in caught.value.details


@pytest.mark.parametrize("stdin", [b"", b"{", b"[]", b"\xff\xfe", b'"x"'])
def test_stdin_that_is_no_config_is_refused(stdin: bytes) -> None:
    with pytest.raises(CniError) as caught:
        parse_request(ENVIRONMENT, stdin)
    assert caught.value.code in (Code.DECODING_FAILURE, Code.INVALID_CONFIG)


def test_results_in_each_version() -> None:
    new = json.loads(encode_result(RESULT, "1.1.0"))
    assert new == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "eth0", "mac": "0a:58:0a:00:00:05", "mtu": 1450, "sandbox": "/run/netns/x"},
            {"name": "pabc", "mtu": 1450},
        ],
        "ips": [{"address": "10.0.0.5/16", "gateway": "10.0.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
        "dns": {},
    }
    assert "mtu" not in json.loads(encode_result(RESULT, "1.0.0"))["interfaces"][0]
    assert json.loads(encode_result(RESULT, "0.4.0"))["ips"][0]["version"] == "4"
    six = CniResult(addresses=(CniAddress("fd00::5/128", "fd00::1"),))
    assert json.loads(encode_result(six, "0.4.0"))["ips"][0]["version"] == "6"
    again = parse_request({**ENVIRONMENT, "CNI_COMMAND": "CHECK"}, body(prevResult=new))
    assert again.previous == RESULT


def test_errors_and_versions() -> None:
    error = json.loads(encode_error(CniError(Code.TRY_AGAIN_LATER, "later", "why"), "1.0.0"))
    assert error == {"cniVersion": "1.0.0", "code": 11, "msg": "later", "details": "why"}
    assert json.loads(encode_versions("1.0.0"))["supportedVersions"][-1] == "1.1.0"
    assert parse_request({"CNI_COMMAND": "VERSION"}, b"").version == "1.1.0"


def test_the_wire_carries_environment_and_stdin_unchanged() -> None:
    for environment in ({}, {"CNI_A": "1"}, {"CNI_A": "x=y", "CNI_B": "\udcff"}):
        for stdin in (b"", b"\0\0", b"{}"):
            assert unpack_request(pack_request(environment, stdin)) == (environment, stdin)
    assert unpack_answer(pack_answer(1, b"a\nb")) == (1, b"a\nb")
    for broken in (b"", b"polder-cni 1\nCNI_A=1\0", b"hello\n", b"polder-cni 1\n" + b"x" * (1 << 20)):
        with pytest.raises(WireError):
            unpack_request(broken)
    for broken in (b"", b"x\n", b"1"):
        with pytest.raises(WireError):
            unpack_answer(broken)
