"""Connections into what runs (exec, attach, port forwarding, proxying): admission is asked before anything else, with the
options as an object, the operation CONNECT.

Source: upstream's ConnectResource handler and the options types of core/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from polder.api.connections import CONNECTIONS
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext, Chain, Subject
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call

_STREAMS: Final[dict[str, bool]] = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
"""What of a container is connected, and whether that is so where nothing is said."""
_TRUE: Final = frozenset({"1", "true"})
_PORTS: Final = "ports"


def options_kind(resource: Resource, subresource: str) -> Kind:
    """The kind of the options, such as PodAttachOptions."""
    return kind_of_options(resource.kind.resource, subresource)


def kind_of_options(resource: str, subresource: str) -> Kind:
    """The same by the resource's name."""
    name = CONNECTIONS[resource, subresource].options
    return Kind("", "v1", name, name.lower(), name.lower())


def options(kind: Kind, subresource: str, query: Mapping[str, Any]) -> Raw:
    """What a request asks for, from its query (a multi-dict), as an object of ``kind``."""
    found: Raw = {"kind": kind.kind, "apiVersion": kind.api_version}
    if subresource in {"exec", "attach"}:
        said = {name: str(query.get(name, "")).lower() for name in _STREAMS}
        found |= {name: said[name] in _TRUE if said[name] else usual for name, usual in _STREAMS.items()}
        if query.get("container"):
            found["container"] = query["container"]
    if subresource == "exec":
        found["command"] = _all(query, "command")
    if subresource == "portforward" and _PORTS in query:
        found[_PORTS] = [int(port) for ports in _all(query, _PORTS) for port in ports.split(",") if port.isdecimal()]
    if subresource == "proxy" and query.get("path"):
        found["path"] = query["path"]
    return found


def _all(query: Mapping[str, Any], name: str) -> list[str]:
    everything = getattr(query, "getall", None)
    return list(everything(name, [])) if everything is not None else [query[name]] if name in query else []


async def admit(chain: Chain, call: Call, resource: Resource) -> None:
    """Asks all of admission about a connection. Raises ApiError."""
    info = call.info
    kind = options_kind(resource, info.subresource)
    subject = Subject(kind, options(kind, info.subresource, call.request.query), "CONNECT")
    context = AdmissionContext(
        call.who, info.tenant, "connect", resource, info.namespace, info.name, info.subresource, subject=subject
    )
    await chain.look(context)
