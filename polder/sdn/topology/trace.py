"""``polder trace``: a question of somebody, and the answer from the parts that a node compiled. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from polder.base.errors import PermanentError
from polder.sdn.topology.types import Part, Port
from polder.sdn.topology.vips import Vip
from polder.sdn.topology.walk import Decision, Packet, Walk

PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP")
_QUESTION = re.compile(r"^\s*([^/\s]+)/([^/\s]+)/(\S+)\s*(?:→|->|\bto\b)\s*(\S+)\s*$")


class QuestionError(PermanentError):
    """A question that cannot be understood, or names what is not there."""


@dataclass(frozen=True, slots=True)
class Question:
    """From a pod (``namespace/name``) of a tenant to a target: an address, a pod or a service (``kind`` empty: whichever there
    is, a service first) by name, in the pod's namespace where it has none.
    """

    tenant: str
    source: str
    target: str
    port: int = 0
    protocol: str = "TCP"
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What happens to one packet, and why."""

    packet: Packet
    destination: str
    decisions: tuple[Decision, ...]

    @property
    def allowed(self) -> bool:
        """Whether it arrives, as far as policies go."""
        return all(one.allowed for one in self.decisions)


def parse(text: str) -> Question:
    """``TENANT/NAMESPACE/POD → TARGET[:PORT][/PROTOCOL]``; the arrow may be ``->`` or ``to``; a target may begin with ``pod/`` or
    ``service/``. Raises QuestionError.
    """
    found = _QUESTION.match(text)
    if found is None:
        raise QuestionError(
            f"{text!r} is no question such as acme/default/client → web:80 or … to pod/shop/db:5432/tcp"
        )
    tenant, namespace, pod, rest = found.groups()
    rest, protocol = _protocol(rest)
    kind, rest = _kind(rest)
    target, port = _port(rest)
    if not _is_address(target) and "/" not in target:
        target = f"{namespace}/{target}"
    return Question(tenant, f"{namespace}/{pod}", target, port, protocol, kind)


def _protocol(rest: str) -> tuple[str, str]:
    """Without the protocol at its end: one behind a port, or icmp."""
    before, _, last = rest.rpartition("/")
    known = last.upper()
    if known in PROTOCOLS and (":" in before or known == "ICMP"):
        return before, known
    return rest, "TCP"


def _kind(rest: str) -> tuple[str, str]:
    for kind, words in (("pod", ("pod/", "pods/")), ("service", ("service/", "services/", "svc/"))):
        for word in words:
            if rest.startswith(word):
                return kind, rest.removeprefix(word)
    return "", rest


def _port(rest: str) -> tuple[str, int]:
    if _is_address(rest):
        return rest, 0
    target, colon, port = rest.rpartition(":")
    if not colon:
        return rest.strip("[]"), 0
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise QuestionError(f"{port!r} is no number of a port")
    return target.strip("[]"), int(port)


def answer(question: Question, parts: Iterable[Part]) -> list[Answer]:
    """One answer for each packet that the question may mean: families, and a service's backends. Raises QuestionError."""
    known = list(parts)
    walk = Walk(known)
    ports = [one for one in known if isinstance(one, Port)]
    source = next((one for one in ports if one.pod == question.source), None)
    if source is None:
        raise QuestionError(f"tenant {question.tenant} has no pod {question.source} with a network here")
    found = []
    for destination, address, port in _targets(question, known):
        for own in source.addresses:
            if (":" in own) == (":" in address):
                packet = Packet(own, address, question.protocol, port)
                found.append(Answer(packet, destination, tuple(walk.decide(packet))))
    if not found:
        raise QuestionError(f"{question.source} and {question.target} have no family of addresses in common")
    return found


def _targets(question: Question, parts: Iterable[Part]) -> list[tuple[str, str, int]]:
    """What the target may be after services are translated: a name, an address, a port."""
    known = list(parts)
    ports = [one for one in known if isinstance(one, Port)]
    names = {address: f"pod {one.pod}" for one in ports for address in one.addresses}
    vips = [one for one in known if isinstance(one, Vip)]
    if _is_address(question.target):
        vip = next((one for one in vips if question.target in one.addresses), None)
        if vip is not None:
            return _backends(question, vip, names)
        return [(names.get(question.target, "an address outside"), question.target, question.port)]
    vip = next((one for one in vips if one.name == question.target), None)
    if vip is not None and question.kind in ("", "service"):
        return _backends(question, vip, names)
    pods = [one for one in ports if one.pod == question.target] if question.kind in ("", "pod") else []
    if not pods:
        kind = question.kind or "pod or service"
        raise QuestionError(f"tenant {question.tenant} has no {kind} {question.target} here")
    return [(f"pod {question.target}", address, question.port) for one in pods for address in one.addresses]


def _backends(question: Question, vip: Vip, names: dict[str, str]) -> list[tuple[str, str, int]]:
    port = next((p for p in vip.ports if (p.port, p.protocol.upper()) == (question.port, question.protocol)), None)
    if port is None:
        offered = ", ".join(f"{one.port}/{one.protocol}" for one in vip.ports) or "none"
        asked = f"{question.port}/{question.protocol.lower()}"
        raise QuestionError(f"Service {vip.name} has no port {asked}; it has {offered}")
    backends = port.ready or port.ending
    if not backends:
        raise QuestionError(f"Service {vip.name} has no backend for port {question.port}: connections are refused")
    return [
        (f"service {vip.name}, backend {names.get(one.address, one.address)}", one.address, one.port)
        for one in backends
    ]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
