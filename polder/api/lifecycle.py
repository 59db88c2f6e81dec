"""Probes, hooks and restart rules of containers: core/v1 as the node reads them, under upstream's names."""

from __future__ import annotations

from polder.api.meta import Struct


class ExecAction(Struct, frozen=True, kw_only=True):
    """A command, run in the container without a shell."""

    command: list[str] | None = None


class HttpHeader(Struct, frozen=True, kw_only=True):
    """One header of a request."""

    name: str
    value: str = ""


class HttpGetAction(Struct, frozen=True, kw_only=True):
    """A GET. ``host`` is the pod's address where none is given."""

    port: int | str = 0
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HttpHeader] | None = None


class TcpSocketAction(Struct, frozen=True, kw_only=True):
    """A connection that is opened and closed again."""

    port: int | str = 0
    host: str = ""


class GrpcAction(Struct, frozen=True, kw_only=True):
    """A call of grpc.health.v1.Health/Check."""

    port: int = 0
    service: str = ""


class SleepAction(Struct, frozen=True, kw_only=True):
    """A wait (KEP-3960)."""

    seconds: int = 0


class Probe(Struct, frozen=True, kw_only=True):
    """core/v1 Probe; times are seconds."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class Hook(Struct, frozen=True, kw_only=True):
    """core/v1 LifecycleHandler: exactly one of these."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True, kw_only=True):
    """What is done after a container started and before it is told to stop."""

    post_start: Hook | None = None
    pre_stop: Hook | None = None
    stop_signal: str = ""


class ExitCodes(Struct, frozen=True, kw_only=True):
    """Exit codes that a rule is about. ``operator``: In or NotIn."""

    operator: str = ""
    values: list[int] | None = None


class RestartRule(Struct, frozen=True, kw_only=True):
    """core/v1 ContainerRestartRule (KEP-5307). ``action``: Restart or RestartAllContainers."""

    action: str = ""
    exit_codes: ExitCodes | None = None
