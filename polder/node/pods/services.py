"""Environment variables that tell a container of the services of its namespace.

Source: Kubernetes documentation, "Accessing the Service", "Environment variables" (Docker's link variables).
"""

from __future__ import annotations

from collections.abc import Iterable

from polder.api.core import Service
from polder.base.errors import PermanentError

_NOWHERE = ("", "None")
MOST = 100_000
"""Variables: with more no program starts."""


def service_variables(services: Iterable[Service]) -> dict[str, str]:
    """The variables of services that have an address. Raises PermanentError for more than any program can be told."""
    found: dict[str, str] = {}
    for service in services:
        if service.spec.cluster_ip not in _NOWHERE and service.spec.ports:
            found.update(_of(service))
        if len(found) > MOST:
            raise PermanentError("argument list too long: the namespace has too many services for enableServiceLinks")
    return found


def _of(service: Service) -> dict[str, str]:
    own, address, ports = _name(service.metadata.name), service.spec.cluster_ip, service.spec.ports or []
    host = f"[{address}]" if ":" in address else address
    first = ports[0]
    found = {f"{own}_SERVICE_HOST": address, f"{own}_SERVICE_PORT": str(first.port)}
    found |= {f"{own}_SERVICE_PORT_{_name(port.name)}": str(port.port) for port in ports if port.name}
    found[f"{own}_PORT"] = f"{first.protocol.lower()}://{host}:{first.port}"
    for port in ports:
        prefix = f"{own}_PORT_{port.port}_{port.protocol.upper()}"
        found |= {
            prefix: f"{port.protocol.lower()}://{host}:{port.port}",
            f"{prefix}_PROTO": port.protocol.lower(),
            f"{prefix}_PORT": str(port.port),
            f"{prefix}_ADDR": address,
        }
    return found


def _name(text: str) -> str:
    return text.upper().replace("-", "_")
