"""Certificates and keys: the only package that imports ``cryptography``.

Four authorities, so that none can stand in for another: ``serving`` signs what servers show; ``clients`` what people and
the server's own parts show, ``agents`` what nodes show, ``front-proxy`` what an authenticating proxy shows. Keys are P-256;
authorities last ten years, leaves ninety days. Everything written is mode 0600 and replaced atomically.
"""

from polder.system.pki.authority import Authority
from polder.system.pki.caller import (
    AGENTS,
    CLIENTS,
    COMPONENTS,
    FRONT_PROXY,
    NODE_PREFIX,
    NODES,
    PLATFORM_ADMINS,
    RESERVED,
    ROOT_URN,
    SERVING,
    TENANT_ADMINS,
    URN,
    ClientName,
    parse_client,
    tenant_urn,
)
from polder.system.pki.files import Leaf, PkiError, settle_pair, write_private
from polder.system.pki.jwk import Jwk, PublicKey, SigningKey
from polder.system.pki.leaves import LEAF_LIFE, SKEW, needs_renewal
from polder.system.pki.pki import NAMES, Pki, ensure_pki, roll_over, stage
from polder.system.pki.requests import Request, new_request, read_request
from polder.system.pki.tls import pin_of, pinned, read_times, server_context

__all__ = [
    "AGENTS",
    "CLIENTS",
    "COMPONENTS",
    "FRONT_PROXY",
    "LEAF_LIFE",
    "NAMES",
    "NODES",
    "NODE_PREFIX",
    "PLATFORM_ADMINS",
    "RESERVED",
    "ROOT_URN",
    "SERVING",
    "SKEW",
    "TENANT_ADMINS",
    "URN",
    "Authority",
    "ClientName",
    "Jwk",
    "Leaf",
    "Pki",
    "PkiError",
    "PublicKey",
    "Request",
    "SigningKey",
    "ensure_pki",
    "needs_renewal",
    "new_request",
    "parse_client",
    "pin_of",
    "pinned",
    "read_request",
    "read_times",
    "roll_over",
    "server_context",
    "settle_pair",
    "stage",
    "tenant_urn",
    "write_private",
]
