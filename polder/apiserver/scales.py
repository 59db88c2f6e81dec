"""The scale subresource: read, updated, patched and applied as autoscaling/v1, of workloads and of custom kinds.

Source: upstream's ScaleREST (apps storage, apiextensions customresource).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import orjson
from aiohttp import web

from polder.api.apply import Scope, update
from polder.api.conform import conform_to, strict_error, unknown_field
from polder.api.errors import bad_request, conflict, invalid, method_not_allowed, no_such_path, not_found
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.ownership import MANAGED, Managed, read_stored, write
from polder.api.patch import apply_patch, patch_type
from polder.api.scale import (
    BUILT_IN_SCALES,
    SUBRESOURCE,
    VERSION,
    ScaleOwners,
    ScalePaths,
    ScaleVersions,
    scale_of,
    validate_scale,
    with_replicas,
)
from polder.api.schemas import named
from polder.apiserver import managers, objectmeta, tables
from polder.apiserver.admission import AdmissionContext, Subject
from polder.apiserver.answers import json_answer, raw_answer
from polder.apiserver.body import media_type, parse_body, parse_object
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call
from polder.apiserver.managers import Author
from polder.apiserver.negotiate import Form, accepted
from polder.apiserver.objects import decode
from polder.apiserver.options import FieldValidation, WriteOptions
from polder.apiserver.patches import APPLY, names_version, read_config
from polder.apiserver.reads import key_of
from polder.apiserver.writes import Wish, Writer

SCALE: Final = Kind("autoscaling", "v1", "Scale", "scales", "scale")
_SCOPE: Final = Scope(ScaleVersions(), VERSION, SUBRESOURCE)
_SCHEMA: Final = "io.k8s.api.autoscaling.v1.Scale"


def paths_of(resource: Resource) -> ScalePaths:
    """Where a kind holds its scale. Raises ApiError 404 for one that has none."""
    found = BUILT_IN_SCALES.get(resource.kind.resource) if resource.custom is None else resource.custom.scale
    if found is None:
        raise no_such_path()
    return found


@dataclass(frozen=True, slots=True)
class _Change:
    """What a request asks of a Scale: the body (decoded) and how it is to be taken."""

    body: object
    how: str
    options: WriteOptions


@dataclass(frozen=True, slots=True)
class Scales:
    """Serves scales."""

    writer: Writer

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """get, update or patch of a scale. Raises ApiError."""
        paths = paths_of(resource)
        match call.info.verb:
            case "get":
                return await self._get(call, resource, paths)
            case "update":
                sent = parse_object(await self.writer.body(call), media_type(call.request))
                change = _Change(sent, "", self.writer.options(call, "UpdateOptions"))
            case "patch":
                change = await self._patch(call)
            case other:
                raise method_not_allowed(resource.kind, f"{other} of scale")
        return await self._change(call, resource, paths, change)

    async def _get(self, call: Call, resource: Resource, paths: ScalePaths) -> web.StreamResponse:
        entry = await self.writer.store.get(key_of(call, resource))
        if entry is None:
            raise not_found(resource.kind, call.info.name)
        entry = await resource.served(entry)
        return _answer(call, scale_of(decode(entry.value, entry.revision), paths), self.writer.clock.now())

    async def _patch(self, call: Call) -> _Change:
        how, body = media_type(call.request), await self.writer.body(call)
        if how == APPLY:
            return _Change(read_config(body)[0], how, self.writer.options(call, "PatchOptions", applies=True))
        patch_type(how, named(_SCHEMA))
        return _Change(parse_body(body, "application/json"), how, self.writer.options(call, "PatchOptions"))

    async def _change(self, call: Call, resource: Resource, paths: ScalePaths, change: _Change) -> web.StreamResponse:
        """Existing object to existing scale to wanted scale to wanted object."""
        warnings: list[str] = []

        async def make(live: Raw | None) -> Raw:
            assert live is not None
            warnings.clear()
            owners = ScaleOwners(read_stored(live["metadata"]), paths, resource.kind.api_version)
            old = scale_of(live, paths)
            managed = owners.of_scale()
            entries = write(managed, {})
            if entries:
                old["metadata"][MANAGED] = entries
            new = await self._wanted(call, old, managed, (change, bool(owners.parents.owners)), warnings)
            return _rescaled(resource, live, new, owners)

        def subject(old: Raw, obj: Raw) -> Subject:
            return Subject(SCALE, scale_of(obj, paths), "UPDATE", scale_of(old, paths), partial(_admitted, paths))

        wish = Wish(make, change.options, retry=not names_version(change.body), owns=True, subject=subject)
        entry, more, _ = await self.writer.changed(call, resource, wish)
        scale = scale_of(decode(entry.value, entry.revision), paths)
        return _answer(call, scale, self.writer.clock.now(), (*warnings, *more))

    async def _wanted(
        self, call: Call, old: Raw, managed: Managed, asked: tuple[_Change, bool], warnings: list[str]
    ) -> Raw:
        """The scale that is wanted, its managedFields set. Raises ApiError."""
        change, tracked = asked
        author = self.writer.author(change.options)
        if change.how == APPLY:
            assert isinstance(change.body, dict)
            _check_form(change.body)
            by = self.writer.applier(call, change.options)
            return _conformed(await managers.applied(_SCOPE, old, change.body, by), change.options, warnings)
        if change.how:
            schema = named(_SCHEMA)
            new = apply_patch(patch_type(change.how, schema), old, change.body, schema)
        else:
            assert isinstance(change.body, dict)
            new = change.body
        objectmeta.check_kind(Resource(SCALE), new)
        objectmeta.check_place(Resource(SCALE), objectmeta.check_metadata(new), call.info.namespace)
        new = _conformed(new, change.options, warnings)
        return await _tracked(old, new, managed, author) if tracked else new


async def _tracked(old: Raw, new: Raw, managed: Managed, author: Author) -> Raw:
    found = await update(_SCOPE, old, new, managed, (author.name, author.time))
    return {**new, "metadata": {**new["metadata"], MANAGED: write(found, {})}}


def _check_form(config: Raw) -> None:
    version, kind = config.get("apiVersion"), config.get("kind")
    if (version, kind) != (VERSION, SCALE.kind):
        raise bad_request(f"invalid object type: {version or '/'}, Kind={kind or ''}")
    config.setdefault("metadata", {})


def _conformed(scale: Raw, options: WriteOptions, warnings: list[str]) -> Raw:
    """Raises ApiError 400, 422."""
    found = conform_to(named(_SCHEMA), SCALE, scale)
    if found.unknown and options.validation is FieldValidation.STRICT:
        raise strict_error(SCALE, map(unknown_field, found.unknown))
    if options.validation is FieldValidation.WARN:
        warnings += map(unknown_field, found.unknown)
    return found.obj


def _rescaled(resource: Resource, live: Raw, scale: Raw, owners: ScaleOwners) -> Raw:
    """The object with what its scale says. Raises ApiError 400, 409, 422."""
    meta, name = scale["metadata"], live["metadata"]["name"]
    objectmeta.check_name(meta, name)
    if problems := list(validate_scale(scale)):
        raise invalid(SCALE, name, problems)
    uid = live["metadata"]["uid"]
    if meta.get("uid") and meta["uid"] != uid:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {uid}"
        raise conflict(resource.kind, name, why)
    found = with_replicas(live, owners.paths, (scale.get("spec") or {}).get("replicas", 0))
    entries = write(owners.of_object(read_stored(meta)), live["metadata"])
    version = meta.get("resourceVersion") or live["metadata"]["resourceVersion"]
    kept = {k: v for k, v in live["metadata"].items() if k != MANAGED}
    return {**found, "metadata": {**kept, "resourceVersion": version, **({MANAGED: entries} if entries else {})}}


def _admitted(paths: ScalePaths, context: AdmissionContext, scale: Raw) -> None:
    """What admission made of a Scale; its object follows."""
    assert context.obj is not None
    if problems := list(validate_scale(scale)):
        raise invalid(SCALE, context.name, problems)
    found = with_replicas(context.obj, paths, (scale.get("spec") or {}).get("replicas", 0))
    context.obj.update(found)


def _answer(call: Call, scale: Raw, now: datetime, warnings: tuple[str, ...] = ()) -> web.Response:
    asked = accepted(call.request.headers.get("Accept", ""))
    if asked.form is Form.TABLE:
        options = tables.Options(call.query.get("includeObject", "Metadata"), asked.meta_version)
        meta = {"resourceVersion": scale["metadata"]["resourceVersion"]}
        return raw_answer(tables.table(Resource(SCALE), [scale], meta, now, options))
    if asked.form is Form.METADATA:
        return raw_answer(tables.partial(scale, asked.meta_version))
    return json_answer(orjson.dumps(scale), media=asked.media, warnings=warnings)
