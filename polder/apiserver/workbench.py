"""The other end of ``workshop``: a process that reads pieces of work from its input and writes their answers.

It knows ``polder.api`` alone and holds nothing of anybody's but schemas that it saw before.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import orjson

from polder.api.crd import PROBLEMS_SHOWN, CustomVersion
from polder.api.errors import ApiError, FieldError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.scale import ScalePaths
from polder.api.validation.crds import validate_crd, validate_crd_update

MEMORY: Final = 1 << 30
"""Bytes of address space that a piece of work may take."""


def _row(problem: FieldError) -> list[Any]:
    return [problem.type.name, problem.field, problem.value, problem.detail]


def _object(job: Raw) -> Raw:
    paths = [tuple(path) for path in job["scale"] or ()]
    scale = ScalePaths(paths[0], paths[1], paths[2], textual=True) if paths else None
    version = CustomVersion(Kind(*job["kind"]), job["text"].encode(), scale=scale)
    verdict = version.validate(job["obj"], job["old"], job["subresource"])
    return {"problems": [_row(p) for p in verdict.problems], "warnings": list(verdict.warnings)}


def _prune(job: Raw) -> Raw:
    obj, unknown = CustomVersion(Kind("", "", "", "", ""), job["text"].encode()).prune(job["obj"])
    return {"obj": obj, "unknown": unknown}


def _definition(job: Raw) -> Raw:
    new, old = job["new"], job["old"]
    found = validate_crd(new) if old is None else validate_crd_update(new, old)
    return {"problems": [_row(problem) for _, problem in zip(range(PROBLEMS_SHOWN), found, strict=False)]}


_JOBS: Final[dict[str, Callable[[Raw], Raw]]] = {"object": _object, "prune": _prune, "definition": _definition}


def answer(body: bytes) -> bytes:
    """The answer to one piece of work."""
    job: Raw = orjson.loads(body)
    try:
        made = _JOBS[job["job"]](job)
    except ApiError as refused:
        said = {"code": refused.code, "reason": refused.reason, "message": refused.message, "details": refused.details}
        made = {"error": said}
    except MemoryError:
        why = "checking the object against its definition takes too much memory"
        made = {"error": {"code": 422, "reason": "Invalid", "message": why, "details": {}}}
    return orjson.dumps(made, default=str)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Works until the input ends."""
    while len(head := source.read(4)) == 4:
        found = answer(source.read(int.from_bytes(head, "big")))
        sink.write(len(found).to_bytes(4, "big") + found)
        sink.flush()


def main() -> None:
    """The process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
