"""From the configuration of OpenID Connect issuers to the API server's settings; what cannot be meant is refused."""

from __future__ import annotations

from polder.apiserver.oidc import ALGORITHMS, Issuer, TenantChoice
from polder.apiserver.oidc_claims import Mapper, MappingError, Mappings, Rule, Source
from polder.apiserver.oidc_keys import Place
from polder.apiserver.tokens import ISSUER
from polder.base.errors import PermanentError
from polder.main import config_authn as config


def issuers_of(method: config.OpenIdConnect) -> tuple[Issuer, ...]:
    """The issuers. Raises PermanentError naming the field."""
    issuers = tuple(_issuer(jwt, f"authentication OpenIDConnect jwt[{n}]") for n, jwt in enumerate(method.jwt))
    urls = [issuer.place.issuer for issuer in issuers]
    twice = next((url for url in urls if urls.count(url) > 1), "")
    if twice:
        raise PermanentError(f"configuration: authentication OpenIDConnect names the issuer {twice} twice")
    return issuers


def _issuer(jwt: config.Jwt, at: str) -> Issuer:
    asked = jwt.issuer
    for field, url in (("url", asked.url), ("discoveryURL", asked.discovery_url or "https://")):
        if not url.startswith("https://"):
            raise _bad(at, f"issuer.{field} {url!r} is no https URL")
    if asked.url == ISSUER:
        raise _bad(at, f"issuer.url {asked.url} is the cluster's own issuer")
    if not asked.audiences:
        raise _bad(at, "issuer.audiences is empty")
    if asked.audience_match_policy not in {"", "MatchAny"}:
        raise _bad(at, f"issuer.audienceMatchPolicy {asked.audience_match_policy!r}: only MatchAny is supported")
    unknown = sorted(set(asked.signing_algorithms) - ALGORITHMS)
    if unknown:
        raise _bad(at, f"issuer.signingAlgorithms: {unknown[0]!r} is none of {', '.join(sorted(ALGORITHMS))}")
    mappings = _mappings(jwt, at)
    try:
        Mapper(mappings)
    except MappingError as error:
        raise _bad(at, str(error)) from error
    if jwt.tenant.claim and (jwt.tenant.name or jwt.tenant.uid):
        raise _bad(at, "tenant names a claim and a tenant; it is one or the other")
    return Issuer(
        Place(asked.url, asked.certificate_authority, asked.discovery_url),
        frozenset(asked.audiences),
        mappings,
        TenantChoice(jwt.tenant.name, jwt.tenant.uid, jwt.tenant.claim),
        frozenset(asked.signing_algorithms) or ALGORITHMS,
    )


def _mappings(jwt: config.Jwt, at: str) -> Mappings:
    asked = jwt.claim_mappings
    if not (asked.username.claim or asked.username.expression):
        raise _bad(at, "claimMappings.username needs a claim or an expression")
    claim_rules = []
    for number, rule in enumerate(jwt.claim_validation_rules):
        if bool(rule.claim) == bool(rule.expression):
            raise _bad(at, f"claimValidationRules[{number}] needs a claim or an expression, one of them")
        claim_rules.append(Rule(rule.claim, rule.required_value, rule.expression, rule.message))
    return Mappings(
        _source(asked.username, at, "username"),
        _source(asked.groups, at, "groups"),
        _source(asked.uid, at, "uid", prefixed=False),
        tuple((extra.key, extra.value_expression) for extra in asked.extra),
        tuple(claim_rules),
        tuple(Rule(expression=rule.expression, message=rule.message) for rule in jwt.user_validation_rules),
    )


def _source(source: config.ClaimSource, at: str, field: str, *, prefixed: bool = True) -> Source:
    if source.claim and source.expression:
        raise _bad(at, f"claimMappings.{field} has a claim and an expression; it is one or the other")
    if source.claim and prefixed and source.prefix is None:
        raise _bad(at, f"claimMappings.{field}.prefix is missing; it may be empty")
    if source.prefix is not None and not (source.claim and prefixed):
        raise _bad(at, f"claimMappings.{field}.prefix has no claim that it stands before")
    return Source(source.claim, source.prefix or "", source.expression)


def _bad(at: str, what: str) -> PermanentError:
    return PermanentError(f"configuration: {at}: {what}")
