"""The last words of a container, out of a log in the runtime's format."""

from __future__ import annotations

from pathlib import Path

import pytest

from polder.node.pods.configs import POLICY_ANNOTATION
from polder.node.pods.observe import FALLBACK_BYTES, _last_words
from polder.system.cri_types import ContainerInfo, ContainerState

STAMP = "2026-01-01T00:00:00.000000000Z stdout"


def words(log: Path, text: str, policy: str = "FallbackToLogsOnError", code: int = 1) -> str:
    log.write_text(text)
    return _last_words(
        ContainerInfo(
            "id", "sandbox", "c", 0, ContainerState.EXITED, 0, exit_code=code, log_path=str(log),
            annotations={POLICY_ANNOTATION: policy},
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (f"{STAMP} F DONE\n", "DONE\n"),
        (f"{STAMP} P DONE\n", "DONE"),
        (f"{STAMP} F one\n{STAMP} F two\n", "one\ntwo\n"),
        (f"{STAMP} P one, \n{STAMP} F two\n", "one, two\n"),
        ("", ""),
    ],
)
def test_a_failed_containers_log_is_its_message(tmp_path: Path, log: str, said: str) -> None:
    assert words(tmp_path / "log", log) == said


def test_only_the_end_of_a_long_log_is(tmp_path: Path) -> None:
    said = words(tmp_path / "log", "".join(f"{STAMP} F line {number}\n" for number in range(1000)))
    assert said.endswith("line 998\nline 999\n") and len(said) <= FALLBACK_BYTES
    assert all(line.startswith("line ") for line in said.splitlines()[1:])


def test_a_container_that_succeeded_or_has_another_policy_says_nothing(tmp_path: Path) -> None:
    assert words(tmp_path / "log", f"{STAMP} F DONE\n", code=0) == ""
    assert words(tmp_path / "log", f"{STAMP} F DONE\n", policy="File") == ""
