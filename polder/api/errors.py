"""What the API answers when it refuses: one error type, rendered as metav1.Status in kube-apiserver's words.

The module's functions build the usual errors; ``Field`` builds the paths that field errors name. Sentences, reasons and
codes follow apimachinery's ``api/errors`` and ``util/validation/field``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from polder.base.errors import PolderError

if TYPE_CHECKING:
    from polder.api.kinds import Kind
    from polder.api.meta import Raw

CONFLICT_ADVICE: Final = "the object has been modified; please apply your changes to the latest version and try again"


class FieldErrorType(Enum):
    """What is wrong with a field: upstream's words and the reason of the cause in a Status."""

    REQUIRED = ("Required value", "FieldValueRequired")
    INVALID = ("Invalid value", "FieldValueInvalid")
    TYPE_INVALID = ("Invalid value", "FieldValueTypeInvalid")
    NOT_SUPPORTED = ("Unsupported value", "FieldValueNotSupported")
    FORBIDDEN = ("Forbidden", "FieldValueForbidden")
    DUPLICATE = ("Duplicate value", "FieldValueDuplicate")
    NOT_FOUND = ("Not found", "FieldValueNotFound")
    TOO_LONG = ("Too long", "FieldValueTooLong")
    TOO_MANY = ("Too many", "FieldValueTooMany")

    @property
    def words(self) -> str:
        """What the message begins with."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The reason of the cause."""
        return self.value[1]


_VALUELESS = frozenset({FieldErrorType.REQUIRED, FieldErrorType.FORBIDDEN, FieldErrorType.TOO_LONG})


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong. ``value`` is shown for the types that show one."""

    type: FieldErrorType
    field: str
    value: object = None
    detail: str = ""

    @property
    def body(self) -> str:
        """The sentence without the field: ``Invalid value: "x": must be …``."""
        text = self.type.words
        if self.type not in _VALUELESS and self.value is not None:
            text += f": {shown(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def shown(value: object) -> str:
    """A value as Go's %v, %q or JSON prints it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True)
class Field:
    """A path such as ``spec.containers[0].image``; ``/`` adds a name, ``[]`` an index or a map key."""

    path: str = ""

    def __truediv__(self, name: str) -> Field:
        return Field(f"{self.path}.{name}" if self.path else name)

    def __getitem__(self, key: int | str) -> Field:
        return Field(f"{self.path}[{key}]")

    def __str__(self) -> str:
        return self.path

    def required(self, detail: str = "") -> FieldError:
        """The field must be there."""
        return FieldError(FieldErrorType.REQUIRED, self.path, None, detail)

    def invalid(self, value: object, detail: str) -> FieldError:
        """The field's value breaks a rule."""
        return FieldError(FieldErrorType.INVALID, self.path, value, detail)

    def type_invalid(self, value: object, detail: str) -> FieldError:
        """The field's value has the wrong type."""
        return FieldError(FieldErrorType.TYPE_INVALID, self.path, value, detail)

    def not_supported(self, value: object, supported: Iterable[str]) -> FieldError:
        """The field's value is none of a closed list."""
        words = ", ".join(json.dumps(word) for word in supported)
        return FieldError(FieldErrorType.NOT_SUPPORTED, self.path, value, f"supported values: {words}")

    def forbidden(self, detail: str) -> FieldError:
        """The field may not be set, or not by this caller."""
        return FieldError(FieldErrorType.FORBIDDEN, self.path, None, detail)

    def duplicate(self, value: object) -> FieldError:
        """The value stands twice where it must be unique."""
        return FieldError(FieldErrorType.DUPLICATE, self.path, value)

    def not_found(self, value: object) -> FieldError:
        """The value names something that does not exist."""
        return FieldError(FieldErrorType.NOT_FOUND, self.path, value)

    def too_long(self, limit: int) -> FieldError:
        """The value has more than ``limit`` bytes."""
        return FieldError(FieldErrorType.TOO_LONG, self.path, None, f"may not be more than {limit} bytes")

    def too_many(self, actual: int, limit: int) -> FieldError:
        """The list has more than ``limit`` items."""
        detail = f"must have at most {limit} item{'' if limit == 1 else 's'}"
        return FieldError(FieldErrorType.TOO_MANY, self.path, actual, detail)


class ApiError(PolderError):
    """A refused request: HTTP code, metav1 reason, message, details (kind, name, group, causes, retryAfterSeconds)."""

    def __init__(self, code: int, reason: str, message: str, details: Raw | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: Raw = details or {}
        self.token = ""
        """What continues a list whose own token is too old, from the present state."""

    @property
    def is_not_found(self) -> bool:
        """The object or resource does not exist."""
        return self.code == 404

    @property
    def is_conflict(self) -> bool:
        """Somebody else changed the object, or a precondition does not hold."""
        return self.code == 409 and self.reason == "Conflict"

    @property
    def is_already_exists(self) -> bool:
        """The name is taken."""
        return self.code == 409 and self.reason == "AlreadyExists"

    @property
    def is_invalid(self) -> bool:
        """The object breaks a rule."""
        return self.code == 422

    @property
    def is_forbidden(self) -> bool:
        """The caller may not."""
        return self.code == 403

    @property
    def is_expired(self) -> bool:
        """The resource version or continue token is too old."""
        return self.code == 410

    def to_status(self) -> Raw:
        """The metav1.Status."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.token} if self.token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, raw: Raw, code: int = 500) -> ApiError:
        """The error that a server answered; ``code`` is the HTTP code, for answers that carry none of their own."""
        found = raw.get("code")
        details = raw.get("details")
        return cls(
            found if isinstance(found, int) and found else code,
            str(raw.get("reason", "")),
            str(raw.get("message", "")) or f"the server answered with HTTP code {code}",
            details if isinstance(details, dict) else None,
        )


def quoted(text: str) -> str:
    """Text in double quotes as Go's %q prints it."""
    return shown(text)


def _details(kind: Kind, name: str, *, by_kind: bool = False) -> Raw:
    details: Raw = {}
    if name:
        details["name"] = name
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.kind if by_kind else kind.plural
    return details


def not_found(kind: Kind, name: str) -> ApiError:
    """404: no such object."""
    return ApiError(404, "NotFound", f'{kind.qualified} "{name}" not found', _details(kind, name))


def no_such_path() -> ApiError:
    """404: no such path or resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> ApiError:
    """409: the name is taken."""
    return ApiError(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', _details(kind, name))


def generate_name_exhausted(kind: Kind, name: str) -> ApiError:
    """409: every generated name was taken."""
    message = (
        f'{kind.qualified} "{name}" already exists, the server was not able to generate a unique name for the object'
    )
    return ApiError(409, "AlreadyExists", message, {**_details(kind, name), "retryAfterSeconds": 1})


def conflict(kind: Kind, name: str, why: str = CONFLICT_ADVICE) -> ApiError:
    """409: the object changed meanwhile, or a precondition does not hold."""
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(kind, name))


def invalid(kind: Kind, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422: the object breaks rules; every broken one is a cause."""
    details = _details(kind, name, by_kind=True)
    details["causes"] = [{"reason": e.type.reason, "message": e.body, "field": e.field} for e in errors]
    sentences = list(dict.fromkeys(str(e) for e in errors))
    listed = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {listed}', details)


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    """403: the caller may not, or admission refuses."""
    subject = f'{kind.qualified} "{name}"' if name else kind.qualified
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(kind, name))


def forbidden_path(user: str, verb: str, path: str) -> ApiError:
    """403 for a path that is no resource."""
    return ApiError(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{path}"', {})


def unauthorized() -> ApiError:
    """401: nobody, or nobody known."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> ApiError:
    """400: the request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def method_not_allowed(kind: Kind, verb: str) -> ApiError:
    """405: the resource has no such verb."""
    message = f'{verb} is not supported on resources of kind "{kind.qualified}"'
    return ApiError(405, "MethodNotAllowed", message, _details(kind, ""))


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    """406: none of the media types that the caller accepts can be given."""
    return ApiError(406, "NotAcceptable", f"only the following media types are accepted: {', '.join(accepted)}")


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    """415: the body's media type is not understood here."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def expired(message: str) -> ApiError:
    """410: a continue token or a watch's resource version that is compacted away."""
    return ApiError(410, "Expired", message)


def too_old(asked: int, oldest: int) -> ApiError:
    """410 of a watch, in upstream's words."""
    return expired(f"too old resource version: {asked} ({oldest})")


def too_large(message: str) -> ApiError:
    """413: the body is over the limit (a sentence such as ``limit is 3145728``)."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {message}")


def too_large_resource_version(asked: int, current: int) -> ApiError:
    """504: a resource version from the future."""
    message = f"Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return ApiError(504, "Timeout", f"Timeout: {message}", {"causes": causes, "retryAfterSeconds": 1})


def unavailable(message: str) -> ApiError:
    """503: a part that is needed does not answer."""
    return ApiError(503, "ServiceUnavailable", message)


def internal(message: str) -> ApiError:
    """500: our own fault."""
    causes = [{"message": message}]
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": causes})
