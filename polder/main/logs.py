"""How the daemons log: lines for people, or JSON for programs. What a record holds may come from anybody (the name in a
certificate, a path), so that it can neither begin a line of its own nor steer a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "fatal"}
INDENT = "    "
"""What lines of a trace begin with, and no record."""


def _escaped(text: str, form: Callable[[str], str]) -> str:
    """``text`` with what is no printable character (controls, separators of lines, marks of direction) in another form."""
    return text if text.isprintable() else "".join(c if c.isprintable() else form(c) for c in text)


def _python(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json(char: str) -> str:
    return json.dumps(char)[1:-1]


class TextFormatter(logging.Formatter):
    """One line a record: time (local), level, logger, message; the trace of an error follows on lines that are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        head = f"{self.formatTime(record)} {record.levelname:7} {record.name}: {record.getMessage()}"
        trace = self.formatException(record.exc_info).split("\n") if record.exc_info else []
        return "\n".join([_escaped(head, _python), *(INDENT + _escaped(line, _python) for line in trace)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, logger, message, and the error with its trace if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": LEVELS.get(record.levelname, record.levelname),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return _escaped(json.dumps(line, ensure_ascii=False), _json)


def set_up(style: str) -> None:
    """``json`` or ``text``, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
