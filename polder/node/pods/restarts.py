"""When a container that ended starts again: the pod's policy, the container's own, and its rules (KEP-753, KEP-5307). Pure."""

from __future__ import annotations

from polder.api.core import Pod
from polder.api.lifecycle import RestartRule
from polder.api.podspec import Container

ALWAYS, ON_FAILURE, NEVER = "Always", "OnFailure", "Never"
RESTART, RESTART_ALL = "Restart", "RestartAllContainers"


def is_sidecar(container: Container) -> bool:
    """Whether an init container runs beside the others for as long as the pod does."""
    return container.restart_policy == ALWAYS


def rule_for(container: Container, exit_code: int) -> RestartRule | None:
    """The first of the container's rules that is about this exit code."""
    for rule in container.restart_policy_rules or []:
        codes = rule.exit_codes
        if codes is None:
            continue
        listed = exit_code in (codes.values or ())
        if listed if codes.operator == "In" else codes.operator == "NotIn" and not listed:
            return rule
    return None


def restarts(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether a container that ended so starts again."""
    if container.restart_policy:
        rule = rule_for(container, exit_code)
        if rule is not None and rule.action in {RESTART, RESTART_ALL}:
            return True
    policy = container.restart_policy or pod.spec.restart_policy
    return policy == ALWAYS or (policy == ON_FAILURE and exit_code != 0)


def restarts_init(pod: Pod, container: Container, exit_code: int) -> bool:
    """Likewise for an init container that is to run to its end."""
    return exit_code != 0 and restarts(pod, container, exit_code)


def restarts_all(container: Container, exit_code: int) -> bool:
    """Whether the whole pod starts again in place (KEP-5532) because this container ended so."""
    if not container.restart_policy:
        return False
    rule = rule_for(container, exit_code)
    return rule is not None and rule.action == RESTART_ALL


def after_kill(pod: Pod, container: Container) -> bool:
    """Whether a container starts again that the node itself stops: its rules, which are about exit codes, do not count."""
    return (container.restart_policy or pod.spec.restart_policy) != NEVER
