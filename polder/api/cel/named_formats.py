"""Kubernetes' library of named formats: ``format.dns1123Label().validate(text)``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from polder.api import formats, names
from polder.api.cel import urls
from polder.api.cel.functions import Library, function, member
from polder.api.cel.types import STRING, list_of, opaque, optional_of
from polder.api.cel.values import NONE, Meter, Optional, Value

FORMAT: Final = opaque("kubernetes.NamedFormat")


@dataclass(frozen=True, slots=True)
class Format(Value):
    """A form of text. ``pattern_size`` is the length of a regular expression that costs as much."""

    name: str
    problems: Callable[[str], list[str]]
    pattern_size: int
    type_name = "kubernetes.NamedFormat"

    def equals(self, other: object, meter: Meter) -> bool:  # noqa: ARG002
        """The same form."""
        return isinstance(other, Format) and self.name == other.name


def _prefix(rule: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The rule for names that get something appended: a trailing dash is fine."""

    def problems(text: str) -> list[str]:
        return rule(text[:-1] + "a" if len(text) > 1 and text.endswith("-") else text)

    return problems


def _uri(text: str) -> list[str]:
    problem = urls.problem_of(text)
    return [f'parse "{text}": {problem}'] if problem else []


def _checked(name: str, problem: str) -> Callable[[str], list[str]]:
    fits = formats.CHECKS[name]
    return lambda text: [] if fits(text) else [problem]


_ALL: Final = {
    "dns1123Label": Format("DNS1123Label", names.dns_label, 30),
    "dns1123Subdomain": Format("DNS1123Subdomain", names.dns_subdomain, 60),
    "dns1035Label": Format("DNS1035Label", names.dns_label_1035, 30),
    "qualifiedName": Format("QualifiedName", names.qualified_name, 60),
    "dns1123LabelPrefix": Format("DNS1123LabelPrefix", _prefix(names.dns_label), 30),
    "dns1123SubdomainPrefix": Format("DNS1123SubdomainPrefix", _prefix(names.dns_subdomain), 60),
    "dns1035LabelPrefix": Format("DNS1035LabelPrefix", _prefix(names.dns_label_1035), 30),
    "labelValue": Format("LabelValue", names.label_value, 40),
    "uri": Format("URI", _uri, 1103),
    "uuid": Format("uuid", _checked("uuid", "does not match the UUID format"), 72),
    "byte": Format("byte", _checked("byte", "invalid base64"), 84),
    "date": Format("date", _checked("date", "invalid date"), 94),
    "datetime": Format("datetime", _checked("datetime", "invalid datetime"), 94),
}


def _validate(form: Format, text: str) -> Optional:
    problems = form.problems(text)
    return Optional(True, problems) if problems else NONE


def _named(name: str) -> Optional:
    return Optional(True, _ALL[name]) if name in _ALL else NONE


def _constant(form: Format) -> Callable[[], Format]:
    return lambda: form


LIBRARY: Final[Library] = {
    "validate": (member("format-validate", (FORMAT, STRING), optional_of(list_of(STRING)), _validate),),
    "format.named": (function("format-named", (STRING,), optional_of(FORMAT), _named),),
    **{f"format.{name}": (function(f"format.{name}", (), FORMAT, _constant(form)),) for name, form in _ALL.items()},
}
