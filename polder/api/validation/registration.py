"""What registers others to take part: webhooks, admission policies and their bindings, aggregated APIs.

Whether expressions compile is looked at where they are compiled (``apiserver``): it costs more than a rule may.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.client_config import check_client_config
from polder.api.validation.meta import path_segment
from polder.api.validation.rules import Rules, choice, every, named, required, unique, validate_selector

_SPEC: Final = Field("spec")
_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES: Final = ("*", "Cluster", "Namespaced")
_REVIEWS: Final = ("v1", "v1beta1")
_GROUP: Final = "admissionregistration.k8s.io"


def validate_rule(rule: Raw, at: Field) -> Iterator[FieldError]:
    """A RuleWithOperations."""
    for name, what in (("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = rule.get(name) or []
        if not values:
            yield (at / name).required()
        if len(values) > 1 and "*" in values:
            yield (at / name).invalid(values, f"if '*' is present, must not specify other {what}")
    for number, operation in enumerate(rule.get("operations") or ()):
        if operation not in _OPERATIONS:
            yield (at / "operations")[number].not_supported(operation, _OPERATIONS)
    for number, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            yield (at / "apiVersions")[number].required()
    yield from _resources(rule.get("resources") or [], at / "resources")
    if rule.get("scope", "*") not in _SCOPES:
        yield (at / "scope").not_supported(rule["scope"], _SCOPES)


def _resources(resources: list[str], at: Field) -> Iterator[FieldError]:
    if not resources:
        yield at.required()
    whole = {item.removesuffix("/*") for item in resources if item.endswith("/*")}
    for number, item in enumerate(resources):
        resource, slash, sub = item.partition("/")
        if not item:
            yield at[number].required()
        elif item == "*/*" and len(resources) > 1:
            yield at.invalid(resources, "if '*/*' is present, must not specify other resources")
        elif slash and sub != "*" and resource in whole:
            yield at[number].invalid(item, f"if '{resource}/*' is present, must not specify {item}")
        elif not slash and item != "*" and "*" in resources:
            why = "if '*' is present, must not specify other resources without subresources"
            yield at.invalid(resources, why)


def _webhook(hook: Raw, at: Field) -> Iterator[FieldError]:
    yield from qualified_host(hook.get("name", ""), at / "name")
    for number, rule in enumerate(hook.get("rules") or ()):
        yield from validate_rule(rule, (at / "rules")[number])
    effects = hook.get("sideEffects")
    if effects is None:
        yield (at / "sideEffects").required("must specify one of None, NoneOnDryRun")
    elif effects not in ("None", "NoneOnDryRun"):
        yield (at / "sideEffects").not_supported(effects, ("None", "NoneOnDryRun"))
    if not 1 <= hook.get("timeoutSeconds", 10) <= 30:
        why = "the timeout value must be between 1 and 30 seconds"
        yield (at / "timeoutSeconds").invalid(hook["timeoutSeconds"], why)
    for name in ("namespaceSelector", "objectSelector"):
        yield from validate_selector(hook.get(name) or {}, at / name)
    yield from check_client_config(hook.get("clientConfig") or {}, at / "clientConfig", any_bundle=True)
    yield from _reviews(hook.get("admissionReviewVersions") or [], at / "admissionReviewVersions")
    yield from validate_conditions(hook.get("matchConditions") or [], at / "matchConditions")


def qualified_host(name: str, at: Field) -> Iterator[FieldError]:
    """A domain name of at least three parts."""
    if not name:
        yield at.required()
        return
    yield from (at.invalid(name, said) for said in names.dns_subdomain(name))
    if name.count(".") < 2:
        yield at.invalid(name, "should be a domain with at least three segments separated by dots")


def _reviews(versions: list[str], at: Field) -> Iterator[FieldError]:
    if not versions:
        yield at.required(f"must specify one of {', '.join(_REVIEWS)}")
        return
    for number, version in enumerate(versions):
        if version in versions[:number]:
            yield at[number].invalid(version, "duplicate version")
        yield from (at[number].invalid(version, said) for said in names.dns_label_1035(version))
    if not set(versions) & set(_REVIEWS):
        yield at.invalid(versions, f"must include at least one of {', '.join(_REVIEWS)}")


def validate_conditions(conditions: list[Raw], at: Field) -> Iterator[FieldError]:
    """matchConditions: named expressions, at most 64."""
    if len(conditions) > 64:
        yield at.too_many(len(conditions), 64)
    seen: set[str] = set()
    for number, condition in enumerate(conditions):
        name = condition.get("name", "")
        if not str(condition.get("expression", "")).strip():
            yield (at[number] / "expression").required()
        if not name:
            yield (at[number] / "name").required()
        else:
            yield from ((at[number] / "name").invalid(name, said) for said in names.qualified_name(name))
        if name and name in seen:
            yield (at[number] / "name").duplicate(name)
        seen.add(name)


_WEBHOOKS: Final = (
    every("webhooks[]", _webhook),
    unique("webhooks", "name"),
    choice("webhooks[].failurePolicy", "Fail", "Ignore"),
    choice("webhooks[].matchPolicy", "Equivalent", "Exact"),
)


# --- policies ---------------------------------------------------------------------------------------------------------


def _matching(found: Raw, at: Field) -> Iterator[FieldError]:
    if found.get("matchPolicy") not in (None, "Equivalent", "Exact"):
        yield (at / "matchPolicy").not_supported(found["matchPolicy"], ("Equivalent", "Exact"))
    for name in ("namespaceSelector", "objectSelector"):
        yield from validate_selector(found.get(name) or {}, at / name)
    for group in ("resourceRules", "excludeResourceRules"):
        for number, rule in enumerate(found.get(group) or ()):
            where, seen = (at / group)[number], set()
            for index, name in enumerate(rule.get("resourceNames") or ()):
                yield from ((where / "resourceNames")[index].invalid(name, said) for said in path_segment(name))
                if name in seen:
                    yield (where / "resourceNames")[index].duplicate(name)
                seen.add(name)
            yield from validate_rule(rule, where)


def _policy(policy: Raw) -> Iterator[FieldError]:
    spec = policy.get("spec") or {}
    constraints = spec.get("matchConstraints")
    if constraints is None:
        yield (_SPEC / "matchConstraints").required()
    else:
        yield from _matching(constraints, _SPEC / "matchConstraints")
        if not constraints.get("resourceRules"):
            yield (_SPEC / "matchConstraints" / "resourceRules").required()
    yield from validate_conditions(spec.get("matchConditions") or [], _SPEC / "matchConditions")
    for number, variable in enumerate(spec.get("variables") or ()):
        at = (_SPEC / "variables")[number]
        for name in ("name", "expression"):
            if not str(variable.get(name, "")).strip():
                yield (at / name).required(f"{name} is not specified")
    if (kind := spec.get("paramKind")) is not None:
        yield from _param_kind(kind, _SPEC / "paramKind")


def _param_kind(kind: Raw, at: Field) -> Iterator[FieldError]:
    version = kind.get("apiVersion", "")
    if not version:
        yield (at / "apiVersion").required()
    elif version.count("/") > 1:
        yield (at / "apiVersion").invalid(version, f"unexpected GroupVersion string: {version}")
    if not kind.get("kind"):
        yield (at / "kind").required()


_REASONS: Final = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")


def _validations(policy: Raw) -> Iterator[FieldError]:
    spec = policy.get("spec") or {}
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        why = "validations or auditAnnotations must contain at least one item"
        yield (_SPEC / "validations").required(why)
        yield (_SPEC / "auditAnnotations").required(why)
    for number, validation in enumerate(spec.get("validations") or ()):
        at = (_SPEC / "validations")[number]
        if not str(validation.get("expression", "")).strip():
            yield (at / "expression").required("expression is not specified")
        for name in ("message", "messageExpression"):
            text = validation.get(name, "")
            if text and not text.strip():
                yield (at / name).invalid(text, "must be non-empty if specified")
        message = str(validation.get("message", "")).strip()
        if "\n" in message or "\r" in message:
            yield (at / "message").invalid(validation["message"], "must not contain line breaks")
        if validation.get("reason") not in (None, *_REASONS):
            yield (at / "reason").not_supported(validation["reason"], _REASONS)
    name = (policy.get("metadata") or {}).get("name", "")
    annotations = spec.get("auditAnnotations") or []
    for number, annotation in enumerate(annotations):
        at, key = (_SPEC / "auditAnnotations")[number], annotation.get("key", "")
        yield from ((at / "key").invalid(f"{name}/{key}", said) for said in names.qualified_name(f"{name}/{key}"))
        if not str(annotation.get("valueExpression", "")).strip():
            yield (at / "valueExpression").required("valueExpression is not specified")


def _mutations(policy: Raw) -> Iterator[FieldError]:
    spec = policy.get("spec") or {}
    if not spec.get("mutations"):
        yield (_SPEC / "mutations").required("mutations must contain at least one item")
    forms = {"JSONPatch": "jsonPatch", "ApplyConfiguration": "applyConfiguration"}
    for number, mutation in enumerate(spec.get("mutations") or ()):
        at, kind = (_SPEC / "mutations")[number], mutation.get("patchType", "")
        if not kind:
            yield (at / "patchType").required()
        elif kind not in forms:
            yield (at / "patchType").not_supported(kind, sorted(forms))
        for name, form in forms.items() if kind in forms else ():
            if name == kind and mutation.get(form) is None:
                yield (at / form).required(f"must be specified when patchType is {kind}")
            elif name != kind and mutation.get(form) is not None:
                yield (at / form).invalid(f"{{{form}}}", f"must not be specified when patchType is {kind}")
    if not spec.get("reinvocationPolicy"):
        yield (_SPEC / "reinvocationPolicy").required()
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        for operation in rule.get("operations") or ():
            if operation not in ("*", "CREATE", "UPDATE"):
                at = _SPEC / "matchConstraints" / "resourceRules" / "operations"
                yield at.not_supported(operation, ("*", "CREATE", "UPDATE"))


def _params(reference: Raw, at: Field) -> Iterator[FieldError]:
    name, selector = reference.get("name", ""), reference.get("selector")
    if name and selector is not None:
        for part in ("name", "selector"):
            yield (at / part).forbidden("name and selector are mutually exclusive")
    elif not name and selector is None:
        yield at.required("one of name or selector must be specified")
    yield from ((at / "name").invalid(name, said) for said in path_segment(name))
    yield from validate_selector(selector or {}, at / "selector")
    action = reference.get("parameterNotFoundAction")
    if not action:
        yield (at / "parameterNotFoundAction").required()
    elif action not in ("Allow", "Deny"):
        yield (at / "parameterNotFoundAction").not_supported(action, ("Deny", "Allow"))


def _actions(binding: Raw) -> Iterator[FieldError]:
    actions, at = (binding.get("spec") or {}).get("validationActions") or [], _SPEC / "validationActions"
    if not actions:
        yield at.required()
    for number, action in enumerate(actions):
        if action not in ("Audit", "Deny", "Warn"):
            yield at[number].not_supported(action, ("Audit", "Deny", "Warn"))
        if action in actions[:number]:
            yield at[number].duplicate(action)
    if {"Deny", "Warn"} <= set(actions):
        why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
        yield at.invalid(actions, f"{why}and headers serves no purpose)")


_BINDING: Final = (
    required("spec.policyName"),
    named("spec.policyName"),
    every("spec.paramRef", _params),
    every("spec.matchResources", _matching),
)
_FAILURE: Final = choice("spec.failurePolicy", "Fail", "Ignore", needed=True)


# --- aggregated APIs --------------------------------------------------------------------------------------------------


def _api_service(service: Raw) -> Iterator[FieldError]:
    spec, name = service.get("spec") or {}, (service.get("metadata") or {}).get("name", "")
    group, version = spec.get("group", ""), spec.get("version", "")
    if name != f"{version}.{group}":
        why = f'must be `spec.version+"."+spec.group`: "{version}.{group}"'
        yield Field("metadata.name").invalid(name, why)
    if not group and version != "v1":
        yield (_SPEC / "group").required("only v1 may have an empty group and it better be legacy kube")
    if group:
        yield from ((_SPEC / "group").invalid(group, said) for said in names.dns_subdomain(group))
    yield from ((_SPEC / "version").invalid(version, said) for said in names.dns_label_1035(version))
    for field, limit in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        if not 0 < spec.get(field, 0) <= limit:
            yield (_SPEC / field).invalid(spec.get(field, 0), f"must be positive and less than {limit}")
    target, insecure = spec.get("service"), spec.get("insecureSkipTLSVerify")
    if target is None:
        if spec.get("caBundle"):
            yield (_SPEC / "caBundle").invalid("", "local APIServices may not have a caBundle")
        if insecure:
            why = "local APIServices may not have insecureSkipTLSVerify"
            yield (_SPEC / "insecureSkipTLSVerify").invalid(insecure, why)
        return
    for field in ("namespace", "name"):
        if not target.get(field):
            yield (_SPEC / "service" / field).required()
    for said in names.port_number(target.get("port", 443)):
        yield (_SPEC / "service" / "port").invalid(target.get("port"), f"port is not valid: {said}")
    if insecure and spec.get("caBundle"):
        yield (_SPEC / "insecureSkipTLSVerify").invalid(insecure, "may not be true if caBundle is present")


REGISTRATION: Final[dict[str, Rules]] = {
    f"validatingwebhookconfigurations.{_GROUP}": Rules(_WEBHOOKS),
    f"mutatingwebhookconfigurations.{_GROUP}": Rules(
        (*_WEBHOOKS, choice("webhooks[].reinvocationPolicy", "IfNeeded", "Never"))
    ),
    f"validatingadmissionpolicies.{_GROUP}": Rules((_FAILURE, _policy, _validations)),
    f"mutatingadmissionpolicies.{_GROUP}": Rules(
        (_FAILURE, _policy, _mutations, choice("spec.reinvocationPolicy", "IfNeeded", "Never"))
    ),
    f"validatingadmissionpolicybindings.{_GROUP}": Rules((*_BINDING, _actions)),
    f"mutatingadmissionpolicybindings.{_GROUP}": Rules(_BINDING),
    "apiservices.apiregistration.k8s.io": Rules((_api_service,)),
}
