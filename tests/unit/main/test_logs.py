"""What a log line may hold: one record is one line, whatever names and messages are made of."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from polder.main.logs import JsonFormatter, TextFormatter

FORGED = "eve\n2026-01-01 00:00:00,000 ERROR   polder: all is lost\r\x1b[2J\x85\u2028\u202e\x9b\udc80é"


def record(message: str, *args: object, failed: Exception | None = None) -> logging.LogRecord:
    trace = None
    if failed is not None:
        try:
            raise failed
        except Exception:
            trace = sys.exc_info()
    return logging.LogRecord("polder.test", logging.WARNING, "f", 1, message, args, trace)


def test_text_is_one_line_without_control_characters() -> None:
    line = TextFormatter().format(record("%s may not enter", FORGED))
    assert line.splitlines() == [line]
    assert all(char.isprintable() for char in line)
    assert (
        r"eve\n2026" in line
        and r"\x1b[2J" in line
        and r"\x85" in line
        and r"\u2028" in line
        and line.isascii() is False
    )
    assert "WARNING polder.test: " in line


def test_a_trace_stands_on_lines_that_begin_like_no_record() -> None:
    first, *rest = TextFormatter().format(record("it failed", failed=ValueError(FORGED))).split("\n")
    assert first.endswith("polder.test: it failed") and len(rest) >= 4
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert any("ERROR   polder: all is lost" in line for line in rest)


@pytest.mark.parametrize("failed", [None, ValueError(FORGED)])
def test_json_is_one_line_and_says_the_same(failed: Exception | None) -> None:
    line = JsonFormatter().format(record("%s", FORGED, failed=failed))
    assert all(char.isprintable() for char in line)
    assert json.loads(line)["message"] == FORGED
    assert FORGED in json.loads(line).get("error", FORGED)
