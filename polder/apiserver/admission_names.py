"""The admission plug-ins that a server can have on, by upstream's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from polder.base.errors import PermanentError

NEEDED: Final = ("NamespaceLifecycle", "ServiceAccount")
"""Part of what makes a tenant; they cannot be left out."""
DEFAULT: Final = (
    "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "PodSecurity", "Priority", "DefaultTolerationSeconds",
    "DefaultStorageClass", "DefaultIngressClass", "RuntimeClass", "CertificateApproval", "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota",
)  # fmt: skip
OPTIONAL: Final = (
    "AlwaysAdmit", "AlwaysPullImages", "DenyExecOnPrivileged", "DenyServiceExternalIPs", "SecurityContextDeny",
)  # fmt: skip
"""Known, and off unless they are asked for."""


def check_names(names: Sequence[str]) -> frozenset[str]:
    """The plug-ins that a server has on. Raises PermanentError naming what is unknown or missing."""
    unknown = [name for name in names if name not in {*DEFAULT, *OPTIONAL}]
    if unknown:
        raise PermanentError(f"configuration: admission: {unknown[0]!r} is no admission plug-in of this server")
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise PermanentError(f"configuration: admission: {missing[0]} cannot be left out")
    return frozenset(names)
