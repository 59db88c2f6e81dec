"""Custom objects between the versions of their definition: by name alone, or by the webhook that the definition names.

A webhook gets many objects in one call. What it says of an object's identity is not believed: kind, name, namespace and UID
must be what they were, and of metadata only labels and annotations are taken.

Source: upstream's conversion/webhook_converter (facts only), apiextensions/v1 ConversionReview.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from polder.api import names
from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.apiserver.outcalls import OutcallError, Outcalls
from polder.base.ids import TenantName

TIMEOUT: Final = 30.0
"""Seconds that one call may take."""
BATCH_OBJECTS: Final = 500
BATCH_BYTES: Final = 1024 * 1024
"""One call's objects: their answer has room in what a call may bring back."""
_REVIEWS: Final = ("v1", "v1beta1")


@dataclass(frozen=True, slots=True)
class Target:
    """What is converted to: the tenant's kind in this version, and what converts (None: the name of the version changes)."""

    tenant: TenantName
    api_version: str
    kind: str
    webhook: Mapping[str, Any] | None = None


class ConversionError(Exception):
    """Why a webhook's answer is of no use."""


@dataclass(frozen=True, slots=True)
class Converter:
    """Converts objects."""

    outcalls: Outcalls | None = None

    async def convert(self, objs: Sequence[Raw], to: Target) -> list[Raw]:
        """The objects in the version of ``to``, in their order. Raises ApiError 500."""
        if to.webhook is None:
            return [{**obj, "apiVersion": to.api_version} for obj in objs]
        found = list(objs)
        places = [place for place, obj in enumerate(objs) if obj.get("apiVersion") != to.api_version]
        for batch in _batches(places, objs):
            converted = await self._call([objs[place] for place in batch], to)
            for place, obj in zip(batch, converted, strict=True):
                found[place] = obj
        return found

    async def _call(self, objs: list[Raw], to: Target) -> list[Raw]:
        assert to.webhook is not None
        group, _, version = objs[0].get("apiVersion", "").partition("/")
        what = f"conversion webhook for {group}/{version}, Kind={to.kind}"
        review = next((v for v in to.webhook.get("conversionReviewVersions") or () if v in _REVIEWS), None)
        if review is None or self.outcalls is None:
            why = "no supported conversion review versions" if review is None else "this server makes no calls"
            raise _failed(f"{what} failed: {why}")
        uid = str(uuid.uuid4())
        request = {"uid": uid, "desiredAPIVersion": to.api_version, "objects": objs}
        head = {"kind": "ConversionReview", "apiVersion": f"apiextensions.k8s.io/{review}"}
        body = orjson.dumps({**head, "request": request})
        try:
            answer = await self.outcalls.post(to.tenant, to.webhook["clientConfig"], body, TIMEOUT)
            found = _converted(answer, review, uid)
        except (OutcallError, ConversionError) as error:
            raise _failed(f"{what} failed: {error}") from error
        if len(found) != len(objs):
            raise _failed(f"{what} returned {len(found)} objects, expected {len(objs)}")
        made = []
        for place, (old, new) in enumerate(zip(objs, found, strict=True)):
            try:
                made.append(_checked(old, new, to))
            except ConversionError as error:
                raise _failed(f"{what} returned invalid converted object at index {place}: {error}") from None
        return made


def _failed(message: str) -> ApiError:
    return ApiError(500, "InternalError", message)


def _batches(places: list[int], objs: Sequence[Raw]) -> list[list[int]]:
    found: list[list[int]] = []
    size = 0
    for place in places:
        length = len(orjson.dumps(objs[place])) if len(places) > 1 else 0
        if not found or len(found[-1]) >= BATCH_OBJECTS or size + length > BATCH_BYTES:
            found.append([])
            size = 0
        found[-1].append(place)
        size += length
    return found


def _converted(answer: bytes, review: str, uid: str) -> list[Any]:
    """The objects of an answer. Raises ConversionError."""
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise ConversionError(f"the answer is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConversionError("the answer is no ConversionReview")
    said = (found.get("apiVersion"), found.get("kind"))
    if review == "v1" and said != ("apiextensions.k8s.io/v1", "ConversionReview"):
        raise ConversionError(
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got "
            f"{said[0] or ''}, Kind={said[1] or ''}"
        )
    response = found.get("response")
    if not isinstance(response, dict):
        raise ConversionError("no response provided")
    if review == "v1" and response.get("uid") != uid:
        raise ConversionError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result")
    status = result.get("status") if isinstance(result, dict) else ""
    if status != "Success":
        message = result.get("message") if isinstance(result, dict) else ""
        raise ConversionError(str(message or f"response.result.status was '{status or ''}', not 'Success'")[:1024])
    objects = response.get("convertedObjects")
    return objects if isinstance(objects, list) else []


def _checked(old: Raw, new: Any, to: Target) -> Raw:
    """The converted object with the identity that it had. Raises ConversionError."""
    if not isinstance(new, dict):
        raise ConversionError("it is no object")
    if new.get("apiVersion") != to.api_version:
        said = new.get("apiVersion") or ""
        raise ConversionError(f"invalid groupVersion (expected {to.api_version}, received {said})")
    if new.get("kind") != old.get("kind"):
        raise ConversionError(f"invalid kind (expected {old.get('kind')}, received {new.get('kind') or ''})")
    meta, before = new.get("metadata"), old["metadata"]
    if not isinstance(meta, dict):
        raise ConversionError("missing metadata in converted object")
    for key in ("name", "namespace", "uid"):
        if (meta.get(key) or "") != (before.get(key) or ""):
            label = "UID" if key == "uid" else key
            raise ConversionError(f"must have the same {label}: {before.get(key) or ''} != {meta.get(key) or ''}")
    kept = {key: value for key, value in before.items() if key not in ("labels", "annotations")}
    for key in ("labels", "annotations"):
        found = meta.get(key)
        if found is None:
            continue
        _check_map(key, found, before.get(key) or {})
        kept[key] = found
    return {**new, "metadata": kept}


def _check_map(key: str, found: Any, before: Raw) -> None:
    if not isinstance(found, dict):
        raise ConversionError(f"invalid metadata.{key} in converted object: it must be a map")
    for name, value in found.items():
        if not isinstance(value, str):
            raise ConversionError(f"metadata.{key}[{name}] must be a string in converted object")
    if found == before:
        return
    for name, value in found.items():
        said = names.qualified_name(name if key == "labels" else name.lower())
        said += names.label_value(value) if key == "labels" else []
        if said:
            raise ConversionError(f'metadata.{key}: Invalid value: "{name}": {said[0]}')


async def breathe(done: int) -> int:
    """Lets others run after about a turn's worth of bytes; the bytes that count since."""
    if done < 64 * 1024:
        return done
    await asyncio.sleep(0)
    return 0
