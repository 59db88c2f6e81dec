"""Probes, hooks and restart rules of containers.

Source: upstream's validateProbe, validateLifecycle, validateContainerRestartPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_HEADER: Final = re.compile(r"[-A-Za-z0-9]+")
_HEADER_RULE: Final = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is "
    "'[-A-Za-z0-9]+')"
)
_SCHEMES: Final = ("HTTP", "HTTPS")
_COUNTS: Final = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_POLICIES: Final = ("Always", "Never", "OnFailure")
_ACTIONS: Final = ("Restart",)
_OPERATORS: Final = ("In", "NotIn")
_RULES, _CODES = 20, 255
_SIGNALS: Final = frozenset(
    {"SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO"}
    | {"SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV", "SIGSTKFLT", "SIGSTOP"}
    | {"SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM"}
    | {"SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN", "SIGRTMAX"}
    | {f"SIGRTMIN+{n}" for n in range(1, 16)}
    | {f"SIGRTMAX-{n}" for n in range(1, 15)}
)


def validate_handlers(container: Raw, spec: Raw, at: Field) -> Iterator[FieldError]:
    """Probes and hooks of a container of either group but the ephemeral ones."""
    grace = spec.get("terminationGracePeriodSeconds")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            yield from _probe(name, container[name], grace, at / name)
    lifecycle = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if name in lifecycle:
            yield from _handler(lifecycle[name], grace, at / "lifecycle" / name)
    signal = lifecycle.get("stopSignal")
    if signal is not None:
        where, system = at / "lifecycle" / "stopSignal", (spec.get("os") or {}).get("name")
        if not system:
            yield where.forbidden("may not be set for containers with empty `spec.os.name`")
        elif signal not in _SIGNALS:
            yield where.not_supported(signal, sorted(_SIGNALS))


def validate_plain_init(container: Raw, at: Field) -> Iterator[FieldError]:
    """An init container that runs to its end has nothing to be probed for."""
    for name in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            yield (at / name).forbidden("may not be set for init containers without restartPolicy=Always")


def _probe(name: str, probe: Raw, grace: int | None, at: Field) -> Iterator[FieldError]:
    yield from _handler(probe, grace, at)
    for count in _COUNTS:
        if probe.get(count, 0) < 0:
            yield (at / count).invalid(probe[count], "must be greater than or equal to 0")
    own = probe.get("terminationGracePeriodSeconds")
    if own is not None and own <= 0:
        yield (at / "terminationGracePeriodSeconds").invalid(own, "must be greater than 0")
    if name == "readinessProbe":
        if own is not None:
            yield (at / "terminationGracePeriodSeconds").invalid(own, "must not be set for readinessProbes")
    elif probe.get("successThreshold", 1) != 1:
        yield (at / "successThreshold").invalid(probe["successThreshold"], "must be 1")


def _handler(handler: Raw, grace: int | None, at: Field) -> Iterator[FieldError]:
    given = [kind for kind in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if handler.get(kind) is not None]
    if not given:
        yield at.required("must specify a handler type")
        return
    for kind in given[1:]:
        yield (at / kind).forbidden("may not specify more than 1 handler type")
    yield from _action(given[0], handler[given[0]], grace, at / given[0])


def _action(kind: str, action: Raw, grace: int | None, at: Field) -> Iterator[FieldError]:
    if kind == "exec":
        if not action.get("command"):
            yield (at / "command").required()
    elif kind == "sleep":
        seconds = action.get("seconds", 0)
        if grace is not None and not 0 <= seconds <= grace:
            why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            yield at.invalid(seconds, why)
    else:
        yield from _port(action.get("port", 0), at / "port")
        if kind == "httpGet":
            yield from _get(action, at)


def _get(action: Raw, at: Field) -> Iterator[FieldError]:
    if not action.get("path"):
        yield (at / "path").required()
    if action.get("scheme") not in _SCHEMES:
        yield (at / "scheme").not_supported(action.get("scheme", ""), _SCHEMES)
    for header in action.get("httpHeaders") or ():
        if not _HEADER.fullmatch(header.get("name", "")):
            yield (at / "httpHeaders").invalid(header.get("name", ""), _HEADER_RULE)


def _port(port: Any, at: Field) -> Iterator[FieldError]:
    said = names.port_name(port) if isinstance(port, str) else names.port_number(port)
    yield from (at.invalid(port, one) for one in said)


def validate_restarts(container: Raw, at: Field) -> Iterator[FieldError]:
    """A container's own restart policy and its rules (KEP-753, KEP-5307)."""
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    if policy is None:
        if rules:
            yield (at / "restartPolicy").required("must specify restartPolicy when restart rules are used")
        return
    if policy not in _POLICIES:
        yield (at / "restartPolicy").not_supported(policy, _POLICIES)
    if len(rules) > _RULES:
        yield (at / "restartPolicyRules").too_many(len(rules), _RULES)
    for number, rule in enumerate(rules):
        yield from _rule(rule, (at / "restartPolicyRules")[number])


def _rule(rule: Raw, at: Field) -> Iterator[FieldError]:
    if rule.get("action") not in _ACTIONS:
        yield (at / "action").not_supported(rule.get("action", ""), _ACTIONS)
    codes = rule.get("exitCodes")
    if codes is None:
        yield (at / "exitCodes").required("must be specified")
        return
    if codes.get("operator") not in _OPERATORS:
        yield (at / "exitCodes" / "operator").not_supported(codes.get("operator", ""), _OPERATORS)
    if len(codes.get("values") or ()) > _CODES:
        yield (at / "exitCodes" / "values").too_many(len(codes["values"]), _CODES)
