"""What becomes of a log when the runtime does not follow."""

from __future__ import annotations

import pytest

from polder.node.logrotate import LogRotation
from polder.system.cri import UID_LABEL
from polder.system.cri_types import RuntimeFailureError
from tests.unit.node.podkit import container


class Runtime:
    """Two containers run; one of them cannot be told to begin a new log."""

    def __init__(self, deaf: str) -> None:
        self.deaf = deaf

    async def list_containers(self):
        return [container(name, labels={UID_LABEL: "u-1"}) for name in ("a", "b")]

    async def reopen_log(self, found):
        if found.startswith(self.deaf):
            raise RuntimeFailureError("it does not answer")


@pytest.mark.parametrize("deaf", ["a", "b"])
async def test_a_log_that_the_runtime_goes_on_writing_keeps_its_name(tmp_path, deaf):
    for name in ("a", "b"):
        (tmp_path / "acme_ns_p_u-1" / name).mkdir(parents=True)
        (tmp_path / "acme_ns_p_u-1" / name / "0.log").write_text("x" * 100)
    assert await LogRotation(tmp_path, Runtime(deaf), size=10).rotate() == 1
    for name in ("a", "b"):
        names = [path.name for path in (tmp_path / "acme_ns_p_u-1" / name).iterdir()]
        assert names == (["0.log"] if name == deaf else ["0.log.1"])
