"""From the configuration of authorization and audit, and the files these name, to the API server's parts."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from polder.apiserver.abac import Abac
from polder.apiserver.audit import Auditor
from polder.apiserver.audit_files import AuditFiles, AuditFileSettings
from polder.apiserver.audit_policy import DEFAULT_POLICY, parse_policy
from polder.apiserver.authz_build import AuthzSettings, MakeMode
from polder.apiserver.authz_modes import AlwaysAllow, AlwaysDeny, RbacMode
from polder.apiserver.authz_webhook import Webhook, WebhookSettings
from polder.base.clock import Clock
from polder.base.errors import PermanentError
from polder.main import config_authz as config


@dataclass(frozen=True, slots=True)
class Audit:
    """The auditor and where it writes."""

    auditor: Auditor
    files: AuditFiles


def read_modes(modes: Sequence[config.Mode], clock: Clock) -> AuthzSettings:
    """The chain's settings. Raises PermanentError naming the file or field."""
    if len({type(mode) for mode in modes}) != len(modes):
        raise PermanentError("configuration: authorization names a mode twice")
    made: list[MakeMode] = []
    files, hooks = list[Abac](), list[Webhook]()
    for mode in modes:
        match mode:
            case config.Node():
                continue
            case config.Rbac():
                made.append(RbacMode)
            case config.Abac(file=file):
                files.append(_abac(file))
                made.append(_ready(files[-1]))
            case config.Webhook():
                hooks.append(Webhook(_webhook(mode), clock))
                made.append(_ready(hooks[-1]))
            case config.AlwaysAllow():
                made.append(_ready(AlwaysAllow()))
            case config.AlwaysDeny():
                made.append(_ready(AlwaysDeny()))
            case _:
                assert_never(mode)
    nodes = any(isinstance(mode, config.Node) for mode in modes)
    return AuthzSettings(tuple(made), nodes, tuple(files), tuple(hooks))


def _ready(mode: Abac | Webhook | AlwaysAllow | AlwaysDeny) -> MakeMode:
    return lambda _: mode


def _abac(file: str) -> Abac:
    made = Abac(Path(file))
    try:
        made.load()
    except OSError as error:
        raise PermanentError(f"configuration: authorization file {file}: {error.strerror}") from error
    return made


def _webhook(mode: config.Webhook) -> WebhookSettings:
    if not mode.url.startswith("https://"):
        raise PermanentError(f"configuration: authorization Webhook url {mode.url!r} is no https URL")
    if mode.failure_policy not in {"NoOpinion", "Deny"}:
        raise PermanentError(
            f"configuration: authorization failurePolicy {mode.failure_policy!r} is none of NoOpinion, Deny"
        )
    try:
        context = ssl.create_default_context(cafile=mode.authority_file or None)
        if mode.certificate_file:
            context.load_cert_chain(mode.certificate_file, mode.key_file or None)
    except OSError as error:
        raise PermanentError(f"configuration: authorization Webhook: {error}") from error
    return WebhookSettings(
        mode.url,
        context,
        mode.timeout_seconds,
        mode.allowed_seconds,
        mode.refused_seconds,
        mode.failure_policy == "Deny",
    )


def make_audit(wanted: config.AuditConfig | None, clock: Clock) -> Audit | None:
    """The audit, None if none is wanted. Raises PermanentError naming the file."""
    if wanted is None:
        return None
    try:
        policy = parse_policy(Path(wanted.policy_file).read_text()) if wanted.policy_file else DEFAULT_POLICY
        settings = AuditFileSettings(Path(wanted.directory), wanted.max_bytes, wanted.kept, wanted.open_files)
        files = AuditFiles(settings)
    except OSError as error:
        raise PermanentError(f"configuration: audit {error.filename}: {error.strerror}") from error
    return Audit(Auditor(policy, files, clock), files)
