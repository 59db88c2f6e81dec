"""Requests and answers of CNI between text and types: the environment, the configuration on stdin, the JSON on stdout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from polder.cni.types import (
    VERSIONS,
    Attachment,
    CniAddress,
    CniError,
    CniInterface,
    CniRequest,
    CniResult,
    CniRoute,
    Code,
    Command,
)

_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_FIRST_OF = {Command.CHECK: "0.4.0", Command.GC: "1.1.0", Command.STATUS: "1.1.0"}
"""The version that introduced a command."""


class _Attached(msgspec.Struct, frozen=True, rename={"container": "containerID"}):
    container: str
    ifname: str


class _Interface(msgspec.Struct, frozen=True):
    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""


class _Ip(msgspec.Struct, frozen=True):
    address: str
    gateway: str = ""
    interface: int = 0
    version: str = ""


class _Route(msgspec.Struct, frozen=True):
    dst: str
    gw: str = ""


class _Previous(msgspec.Struct, frozen=True):
    interfaces: list[_Interface] = []
    ips: list[_Ip] = []
    routes: list[_Route] = []


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys that the plugin takes; any other is refused by name."""

    cni_version: str = msgspec.field(default="", name="cniVersion")
    name: str
    type: str = "polder-cni"
    prev_result: _Previous | None = msgspec.field(default=None, name="prevResult")
    args: dict[str, Any] | None = None
    capabilities: dict[str, bool] | None = None
    runtime_config: dict[str, Any] | None = msgspec.field(default=None, name="runtimeConfig")
    valid: list[_Attached] | None = msgspec.field(default=None, name="cni.dev/valid-attachments")
    attachments: list[_Attached] | None = msgspec.field(default=None, name="cni.dev/attachments")


def parse_request(environment: Mapping[str, str], stdin: bytes) -> CniRequest:
    """One call. Raises CniError that names the variable or the field."""
    command = _command(environment)
    config = _config(command, stdin)
    version = _version(config.cni_version, command)
    if command in (Command.VERSION, Command.STATUS):
        return CniRequest(command, version, config.name)
    if command is Command.GC:
        if config.valid is None and config.attachments is None:
            raise CniError(
                Code.INVALID_CONFIG,
                "invalid network config",
                "cni.dev/valid-attachments: GC needs the list, even empty",
            )
        valid = tuple(Attachment(a.container, a.ifname) for a in config.valid or config.attachments or [])
        return CniRequest(command, version, config.name, valid=valid)
    return _of_container(command, version, config, environment)


def encode_result(result: CniResult, version: str) -> bytes:
    """What ADD prints."""
    old = version in ("0.3.1", "0.4.0")
    body = {
        "cniVersion": version,
        "interfaces": [_interface(i, version) for i in result.interfaces],
        "ips": [_address(a, old) for a in result.addresses],
        "routes": [_filled({"dst": r.destination, "gw": r.gateway}) for r in result.routes],
        "dns": {},
    }
    return msgspec.json.encode(body)


def encode_error(error: CniError, version: str) -> bytes:
    """What any command prints when it fails."""
    body = {"cniVersion": version, "code": int(error.code), "msg": error.message, "details": error.details}
    return msgspec.json.encode(_filled(body))


def encode_versions(version: str) -> bytes:
    """What VERSION prints."""
    return msgspec.json.encode({"cniVersion": version, "supportedVersions": list(VERSIONS)})


def _command(environment: Mapping[str, str]) -> Command:
    text = environment.get("CNI_COMMAND", "")
    try:
        return Command(text)
    except ValueError:
        known = ", ".join(c.value for c in Command)
        raise _environment(f"CNI_COMMAND {text!r} is none of {known}") from None


def _config(command: Command, stdin: bytes) -> _Config:
    if command is Command.VERSION:
        loose = _decode(stdin, dict[str, Any]) if stdin.strip() else {}
        return _Config(cni_version=str(loose.get("cniVersion", "")), name=str(loose.get("name", "polder")))
    config: _Config = _decode(stdin, _Config)
    if not _CONTAINER.fullmatch(config.name):
        raise CniError(
            Code.INVALID_CONFIG,
            "invalid network config",
            f"name {config.name!r}: use letters, digits, '_', '.' and '-'",
        )
    return config


def _decode(stdin: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(stdin, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        unsupported = text.startswith("Object contains unknown field")
        code = Code.UNSUPPORTED_FIELD if unsupported else Code.INVALID_CONFIG
        raise CniError(code, "unsupported field" if unsupported else "invalid network config", text) from error
    except msgspec.DecodeError as error:
        raise CniError(Code.DECODING_FAILURE, "failed to decode the network config", str(error)) from error


def _version(text: str, command: Command) -> str:
    if command is Command.VERSION:
        return text or VERSIONS[-1]
    if text not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "incompatible CNI version",
            f"cniVersion {text!r} is none of {', '.join(VERSIONS)}",
        )
    first = _FIRST_OF.get(command)
    if first is not None and VERSIONS.index(text) < VERSIONS.index(first):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            "incompatible CNI version",
            f"cniVersion {text} does not know CNI_COMMAND {command.value}, which came with {first}",
        )
    return text


def _of_container(command: Command, version: str, config: _Config, environment: Mapping[str, str]) -> CniRequest:
    container, interface = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    netns = environment.get("CNI_NETNS", "")
    if not _CONTAINER.fullmatch(container):
        raise _environment(
            f"CNI_CONTAINERID {container!r}: use letters, digits, '_', '.' and '-', a letter or digit first"
        )
    if not interface or len(interface) > 15 or interface in (".", "..") or re.search(r"[/:\s]", interface):
        raise _environment(f"CNI_IFNAME {interface!r}: use 1 to 15 characters without '/', ':' and white space")
    if not netns and command is not Command.DEL:
        raise _environment("CNI_NETNS is missing")
    if command is Command.CHECK and config.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "invalid network config", "prevResult: CHECK needs the result of ADD")
    arguments = _arguments(environment.get("CNI_ARGS", ""))
    return CniRequest(
        command,
        version,
        config.name,
        container=container,
        netns=netns,
        interface=interface,
        pod_uid=arguments.get("K8S_POD_UID", ""),
        pod_namespace=arguments.get("K8S_POD_NAMESPACE", ""),
        pod_name=arguments.get("K8S_POD_NAME", ""),
        previous=_result(config.prev_result),
    )


def _arguments(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise _environment(f"CNI_ARGS {pair!r} is not KEY=VALUE")
        found[key] = value
    return found


def _result(previous: _Previous | None) -> CniResult | None:
    if previous is None:
        return None
    return CniResult(
        tuple(CniInterface(i.name, i.mac, i.mtu, i.sandbox) for i in previous.interfaces),
        tuple(CniAddress(a.address, a.gateway, a.interface) for a in previous.ips),
        tuple(CniRoute(r.dst, r.gw) for r in previous.routes),
    )


def _interface(link: CniInterface, version: str) -> dict[str, Any]:
    mtu = link.mtu if version == "1.1.0" else 0
    return _filled({"name": link.name, "mac": link.mac, "mtu": mtu, "sandbox": link.sandbox})


def _address(address: CniAddress, old: bool) -> dict[str, Any]:
    body = {"address": address.address, "gateway": address.gateway, "version": _family(address.address) if old else ""}
    return {**_filled(body), "interface": address.interface}


def _family(address: str) -> str:
    return "6" if ":" in address else "4"


def _filled(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value not in ("", 0)}


def _environment(details: str) -> CniError:
    return CniError(Code.INVALID_ENVIRONMENT, "invalid environment", details)
