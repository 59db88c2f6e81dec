from __future__ import annotations

import io

import pytest

from polder.cli.output import Output, Style


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_line_up_and_nothing_is_coloured_in_a_file() -> None:
    out = io.StringIO()
    Output(out).table(["name", "state"], [["a", "ok"], ["longer", "WRONG"]], mark=1)
    assert out.getvalue() == "NAME    STATE\na       ok\nlonger  WRONG\n"


def test_a_terminal_gets_colours() -> None:
    assert Output(Terminal()).paint("x", Style.GOOD) == "\x1b[32mx\x1b[0m"
    assert Output(io.StringIO()).paint("x", Style.GOOD) == "x"


def test_a_step_says_how_it_ended() -> None:
    err = io.StringIO()
    out = Output(io.StringIO(), err)
    with out.step("good"):
        pass
    with pytest.raises(ValueError, match="no"), out.step("bad"):
        raise ValueError("no")
    assert "✓ good" in err.getvalue()
    assert "failed: bad" in err.getvalue()


def test_work_goes_on_when_nobody_reads_its_progress() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    done = []
    with Output(io.StringIO(), Gone()).step("work"):
        done.append("work")
    Output(io.StringIO(), Gone()).note("advice")
    assert done == ["work"]
