"""What a pod calls itself and whom it knows by name: hostname, domain and /etc/hosts.

Source: Kubernetes documentation, "DNS for Services and Pods", "Adding entries to Pod /etc/hosts with HostAliases".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from polder.api.core import Pod
from polder.base.errors import PermanentError

LENGTH: Final = 63
KERNEL_LENGTH: Final = 64
"""Bytes of a hostname that the kernel takes (gethostname(2))."""
_MANAGED: Final = "# Kubernetes-managed hosts file."
"""What programs look for when they want to know who wrote the file."""
_OF_NODE: Final = "# Kubernetes-managed hosts file (host network)."


def hostname(pod: Pod) -> str:
    """The pod's name for itself, without domain."""
    own = pod.spec.hostname_override or pod.spec.hostname or pod.metadata.name
    return own[:LENGTH].rstrip("-.")


def full_name(pod: Pod, domain: str) -> str:
    """The pod's name with its domain; empty for one without subdomain."""
    if not pod.spec.subdomain or pod.spec.hostname_override is not None:
        return ""
    return f"{hostname(pod)}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{domain}"


def kernel_hostname(pod: Pod, domain: str) -> str:
    """What the kernel tells the pod. Raises PermanentError for a full name that is too long for it."""
    if not pod.spec.set_hostname_as_fqdn:
        return hostname(pod)
    name = full_name(pod, domain) or hostname(pod)
    if len(name) > KERNEL_LENGTH:
        raise PermanentError(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long "
            f"({KERNEL_LENGTH} characters is the max, {len(name)} characters requested)"
        )
    return name


def hosts_file(pod: Pod, addresses: Sequence[str], domain: str, api: str = "") -> str:
    """The contents of /etc/hosts. ``api``: the address of the tenant's ``kubernetes`` service, where no DNS tells it."""
    lines = [
        _MANAGED,
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    full, own = full_name(pod, domain), hostname(pod)
    lines += ["\t".join(part for part in (address, full, own) if part) for address in addresses]
    if api:
        names = [f"kubernetes.default.svc.{domain}", "kubernetes.default.svc", "kubernetes.default"]
        lines.append("\t".join([api, *names]))
    return "\n".join([*lines, *_aliases(pod)]) + "\n"


def hosts_file_of_node(pod: Pod, file: str) -> str:
    """The contents of /etc/hosts in a pod on the node's own network: the node's ``file``, and the pod's additions."""
    return "\n".join([_OF_NODE, file.rstrip("\n"), *_aliases(pod)]) + "\n"


def _aliases(pod: Pod) -> list[str]:
    rows = ["\t".join([str(a.get("ip", "")), *a.get("hostnames", [])]) for a in pod.spec.host_aliases or []]
    return ["", "# Entries added by HostAliases.", *rows] if rows else []
