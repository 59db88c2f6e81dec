"""Rules for names, label keys and values, config keys, ports: each check returns sentences, none when all is well.

Sentences and expressions follow apimachinery's ``util/validation``.
"""

from __future__ import annotations

import re
from typing import Final

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"

_LABEL_RE: Final = re.compile(_LABEL)
_SUBDOMAIN_RE: Final = re.compile(_SUBDOMAIN)
_LABEL_1035_RE: Final = re.compile(_LABEL_1035)
_QUALIFIED_RE: Final = re.compile(_QUALIFIED)
_CONFIG_KEY_RE: Final = re.compile(_CONFIG_KEY)
_ENV_NAME_RE: Final = re.compile("[ -<>-~]+")
_PORT_NAME_RE: Final = re.compile("[-a-z0-9]+")

_QUALIFIED_SAYS: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)


def _rule(says: str, expression: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{says} (e.g. {shown}regex used for validation is '{expression}')"


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


_LABEL_RULE: Final = _rule(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_RULE: Final = _rule(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_LABEL_1035_RULE: Final = _rule(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_QUALIFIED_RULE: Final = _rule(_QUALIFIED_SAYS, _QUALIFIED, "MyName", "my.name", "123-abc")
_VALUE_RULE: Final = _rule(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character",
    f"({_QUALIFIED})?",
    "MyValue",
    "my_value",
    "12345",
)
_CONFIG_KEY_RULE: Final = _rule(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)


def dns_label(text: str) -> list[str]:
    """RFC 1123 label, at most 63 bytes."""
    said = [] if len(text) <= 63 else [_too_long(63)]
    return said if _LABEL_RE.fullmatch(text) else [*said, _LABEL_RULE]


def dns_label_1035(text: str) -> list[str]:
    """RFC 1035 label, at most 63 bytes: services are named so."""
    said = [] if len(text) <= 63 else [_too_long(63)]
    return said if _LABEL_1035_RE.fullmatch(text) else [*said, _LABEL_1035_RULE]


def dns_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain, at most 253 bytes."""
    said = [] if len(text) <= 253 else [_too_long(253)]
    return said if _SUBDOMAIN_RE.fullmatch(text) else [*said, _SUBDOMAIN_RULE]


def qualified_name(text: str) -> list[str]:
    """``name`` or ``prefix/name``: keys of labels and annotations, finalizers, resources."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return [f"a qualified name {_QUALIFIED_RULE} with an optional DNS subdomain prefix and '/' "
                "(e.g. 'example.com/MyName')"]  # fmt: skip
    said: list[str] = []
    if slash and not prefix:
        said.append("prefix part must be non-empty")
    elif slash:
        said += [f"prefix part {sentence}" for sentence in dns_subdomain(prefix)]
    if not name:
        said.append("name part must be non-empty")
    elif len(name) > 63:
        said.append(f"name part {_too_long(63)}")
    if not _QUALIFIED_RE.fullmatch(name):
        said.append(f"name part {_QUALIFIED_RULE}")
    return said


def label_value(text: str) -> list[str]:
    """The value of a label: at most 63 bytes, may be empty."""
    said = [] if len(text) <= 63 else [_too_long(63)]
    return said if not text or _QUALIFIED_RE.fullmatch(text) else [*said, _VALUE_RULE]


def config_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    said = [] if len(text) <= 253 else [_too_long(253)]
    if not _CONFIG_KEY_RE.fullmatch(text):
        said.append(_CONFIG_KEY_RULE)
    elif text == ".":
        said.append("must not be '.'")
    elif text.startswith(".."):
        said.append("must not be '..'" if text == ".." else "must not start with '..'")
    return said


def env_name(text: str) -> list[str]:
    """The name of an environment variable."""
    if _ENV_NAME_RE.fullmatch(text):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def port_number(number: object) -> list[str]:
    """A TCP, UDP or SCTP port, 1 to 65535."""
    if isinstance(number, int) and 1 <= number <= 65535:
        return []
    return ["must be between 1 and 65535, inclusive"]


def port_name(text: str) -> list[str]:
    """IANA service name, RFC 6335 section 5.1."""
    said: list[str] = []
    if len(text) > 15:
        said.append("must be no more than 15 characters")
    if not _PORT_NAME_RE.fullmatch(text):
        said.append("must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= char <= "z" for char in text):
        said.append("must contain at least one letter (a-z)")
    if "--" in text:
        said.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        said.append("must not begin or end with a hyphen")
    return said
