"""PATCH: three kinds of patches, and server-side apply.

Source: apiserver's patch handler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from polder.api.errors import ApiError, bad_request, unsupported_media_type
from polder.api.meta import Raw
from polder.api.patch import PatchType, apply_patch, patch_type
from polder.api.schemas import schema_of
from polder.apiserver import managers, objectmeta
from polder.apiserver.body import media_type, read_sent
from polder.apiserver.catalog import Resource
from polder.apiserver.content import Odd
from polder.apiserver.hooks import Call
from polder.apiserver.options import FieldValidation
from polder.apiserver.writes import Wish, Writer

APPLY: Final = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Patcher:
    """Patches objects and their subresources."""

    writer: Writer

    async def patch(self, call: Call, resource: Resource) -> web.StreamResponse:
        """PATCH of an object or of its status. Raises ApiError."""
        if media_type(call.request) == APPLY:
            return await self._apply(call, resource)
        schema = None if resource.custom is not None else schema_of(resource.kind)
        how = _type(call, resource)
        body = read_sent(await self.writer.body(call), "application/json")
        patch = body.value
        options = self.writer.options(call, "PatchOptions")

        async def patched(old: Raw | None) -> Raw:
            assert old is not None
            obj = apply_patch(how, old, patch, schema)
            _check(call, resource, obj)
            return obj

        def odd(obj: Raw) -> Odd:
            prefix = "json patch " if how is PatchType.JSON else ""
            text = orjson.dumps(patch if how is PatchType.STRATEGIC else obj).decode()
            return Odd(tuple(prefix + said for said in body.repeated), text)

        return await self.writer.change(call, resource, Wish(patched, options, not names_version(patch), odd=odd))

    async def _apply(self, call: Call, resource: Resource) -> web.StreamResponse:
        options = self.writer.options(call, "PatchOptions", applies=True)
        config, repeated = read_config(await self.writer.body(call))
        check_form(resource, config)
        scope = managers.scope_of(resource, call.info.subresource)

        async def merged(live: Raw | None) -> Raw:
            obj = await managers.applied(scope, live, config, self.writer.applier(call, options))
            _check(call, resource, obj)
            if repeated and options.validation is FieldValidation.STRICT:
                raise bad_request(f"error strict decoding YAML: {repeated}")
            return obj

        named = bool((config.get("metadata") or {}).get("resourceVersion"))
        wish = Wish(
            merged, options, not named, creates=not call.info.subresource, owns=True,
            odd=lambda _: Odd((repeated,) if repeated else ()),
        )  # fmt: skip
        return await self.writer.change(call, resource, wish)


def read_config(body: bytes) -> tuple[Raw, str]:
    """The configuration of an apply, which is JSON for most clients and therefore YAML too; and a sentence about keys that
    stand twice. Raises ApiError 400.
    """
    if body.lstrip().startswith(b"{"):
        try:
            sent = read_sent(body, "application/json")
        except ApiError as broken:
            if broken.code != 400:
                raise
        else:
            if not sent.repeated:
                return sent.obj, ""
    sent = read_sent(body, "application/yaml")
    return sent.obj, "".join(f"error converting YAML to JSON: {said}" for said in sent.repeated)


def check_form(resource: Resource, config: Raw) -> None:
    """A configuration says its version and kind, and they are the path's. Raises ApiError 400."""
    version, kind = config.get("apiVersion") or "", config.get("kind") or ""
    if (version, kind) != (resource.kind.api_version, resource.kind.kind):
        group = version if "/" in str(version) else f"/{version}"
        raise bad_request(f"invalid object type: {group}, Kind={kind}")
    if not isinstance(config.setdefault("metadata", {}), dict):
        raise bad_request("metadata: must be an object")


def _type(call: Call, resource: Resource) -> PatchType:
    """Raises ApiError 415."""
    offered = [kind for kind in PatchType if resource.custom is None or kind is not PatchType.STRATEGIC]
    if not any(media_type(call.request) == kind.value for kind in offered):
        raise unsupported_media_type([*(kind.value for kind in offered), APPLY])
    schema = None if resource.custom is not None else schema_of(resource.kind)
    return patch_type(media_type(call.request), schema)


def _check(call: Call, resource: Resource, obj: Raw) -> None:
    objectmeta.check_kind(resource, obj)
    objectmeta.check_place(resource, objectmeta.check_metadata(obj), call.info.namespace)


def names_version(patch: Any) -> bool:
    """Whether a patch insists on a resource version; then a lost race is the caller's."""
    if isinstance(patch, dict):
        meta = patch.get("metadata")
        return isinstance(meta, dict) and bool(meta.get("resourceVersion"))
    return isinstance(patch, list) and any(
        isinstance(op, dict) and op.get("path") == "/metadata/resourceVersion" for op in patch
    )
