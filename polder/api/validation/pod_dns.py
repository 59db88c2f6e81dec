"""What a pod may add to its resolv.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_SERVERS: Final = 3
_SEARCHES: Final = 32
_CHARACTERS: Final = 2048
"""As many as resolvers read (resolv.conf(5))."""


def validate_dns_config(config: Raw, at: Field) -> Iterator[FieldError]:
    """Errors of ``dnsConfig``."""
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if len(servers) > _SERVERS:
        yield (at / "nameservers").invalid(servers, f"must not have more than {_SERVERS} nameservers")
    for number, server in enumerate(servers):
        if not _is_address(server):
            why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            yield (at / "nameservers")[number].invalid(server, why)
    if len(searches) > _SEARCHES:
        yield (at / "searches").invalid(searches, f"must not have more than {_SEARCHES} search paths")
    if len(" ".join(searches)) > _CHARACTERS:
        yield (at / "searches").invalid(searches, f"must not have more than {_CHARACTERS} characters")
    for number, search in enumerate(searches):
        # The root alone, a dot behind and underscores are used in searches.
        text = "root" if search == "." else search.removesuffix(".").replace("_", "x")
        yield from ((at / "searches")[number].invalid(search, said) for said in names.dns_subdomain(text))
    for number, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield (at / "options")[number].required("must not be empty")


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False
