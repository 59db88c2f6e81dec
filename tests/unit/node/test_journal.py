"""The journal on a real disk: what was written stands after a crash at any byte, what is known does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.node.journal import Journal, Use


def port(name: str) -> Ref:
    return Ref(TenantName("acme"), "default", name)


def use(name: str, sandbox: str = "sb") -> Use:
    return Use(port(name), sandbox, "/run/netns/x", "p1")


async def test_the_last_use_stands_until_it_is_known(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.write(use("a", "old"))
    await journal.write(use("a", "new"))
    await journal.write(Use(port("b")))
    await journal.write(use("c"))
    journal.forget(port("c"))
    journal.forget(port("never"))
    for seen in (journal, Journal(tmp_path), Journal(tmp_path)):
        assert seen.uses() == [use("a", "new"), Use(port("b"))]
        assert seen.of(port("c")) is None


async def test_a_line_cut_off_anywhere_spoils_none_but_itself(tmp_path: Path) -> None:
    await Journal(tmp_path / "whole").write(use("a"))
    await Journal(tmp_path / "whole").write(use("b"))
    whole = (tmp_path / "whole" / "uses").read_bytes()
    second = whole.rindex(b"\n")
    for end in range(second, len(whole)):
        folder = tmp_path / str(end)
        folder.mkdir()
        (folder / "uses").write_bytes(whole[:end])
        journal = Journal(folder)
        assert journal.uses() == [use("a")]
        await journal.write(use("c"))
        assert Journal(folder).uses() == [use("a"), use("c")]


async def test_writing_goes_on_behind_a_line_in_part(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.write(use("a"))
    with (tmp_path / "uses").open("ab") as file:
        file.write(b'\n{"tenant": "ac')
    await journal.write(use("b"))
    assert Journal(tmp_path).uses() == [use("a"), use("b")]


async def test_a_grown_file_is_written_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path, grown=2000)
    await journal.write(use("stays"))
    for number in range(100):
        await asyncio.gather(journal.write(use(f"x{number}")), journal.write(use(f"y{number}")))
        journal.forget(port(f"x{number}"))
        journal.forget(port(f"y{number}"))
    assert (tmp_path / "uses").stat().st_size < 2500
    assert Journal(tmp_path).uses() == journal.uses() == [use("stays")]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Journal(tmp_path / "file")
