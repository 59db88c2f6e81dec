"""What a person sees: tables, progress lines, colours on a terminal only; and JSON for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TextIO

import msgspec


class Style(Enum):
    """The few styles that are used, as SGR parameters (ECMA-48)."""

    PLAIN = ""
    DIM = "2"
    BOLD = "1"
    GOOD = "32"
    BAD = "31"
    WARN = "33"


class Output:
    """Writes results to ``out`` and progress to ``err``."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    def paint(self, text: str, style: Style) -> str:
        """The text in a style, if the output is a terminal."""
        if style is Style.PLAIN or not self._out.isatty():
            return text
        return f"\x1b[{style.value}m{text}\x1b[0m"

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """One line of result."""
        print(self.paint(text, style), file=self._out, flush=True)

    def heading(self, text: str) -> None:
        """A title above a table."""
        self.line()
        self.line(text, Style.BOLD)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], mark: int | None = None) -> None:
        """Columns padded to their widest cell; ``mark`` is the column painted good (ok, yes) or bad."""
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        self.line("  ".join(h.upper().ljust(w) for h, w in zip(header, widths, strict=True)).rstrip(), Style.DIM)
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            if mark is not None:
                good = row[mark] in {"ok", "yes", "Ready", "Active", "running"}
                cells[mark] = self.paint(cells[mark], Style.GOOD if good else Style.BAD)
            self.line("  ".join(cells).rstrip())

    def json(self, value: object) -> None:
        """One JSON document."""
        self.line(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

    def note(self, text: str) -> None:
        """Progress or advice, beside the result."""
        self._say(text)

    def _say(self, text: str, end: str = "\n") -> None:
        with suppress(BrokenPipeError):  # nobody watches any more (`polder up 2>&1 | head`): the work goes on, whole
            print(text, end=end, file=self._err, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A line of progress that ends with the time it took."""
        begun = time.monotonic()
        terminal = self._err.isatty()
        if terminal:
            self._say(f"  … {text}", end="")
        try:
            yield
        except BaseException:
            self._say(f"\r  ✗ {text}" if terminal else f"  failed: {text}")
            raise
        took = time.monotonic() - begun
        self._say(f"{chr(13) if terminal else ''}  ✓ {text} ({took:.1f} s)")
