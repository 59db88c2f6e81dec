"""What a killed agent leaves behind of pods."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from polder.base.errors import PermanentError
from polder.node.pods.configs import Places
from polder.node.pods.context import Context
from polder.node.pods.sweep import sweep


async def test_one_that_cannot_be_removed_keeps_none_of_the_others(tmp_path: Path) -> None:
    """Each of them ends in its time; the agent does not end with it."""
    removed = []

    async def remove(uid: str) -> None:
        if uid == "a":
            raise PermanentError("mounts below a cannot be taken away")
        removed.append(uid)

    for uid in ("a", "b", "live"):
        (tmp_path / "pods" / uid).mkdir(parents=True)
    ctx = SimpleNamespace(
        places=Places(tmp_path / "pods", tmp_path / "logs", "polder/n"),
        cgroups=SimpleNamespace(children=lambda group: [], remove=lambda group: None),
        volumes=SimpleNamespace(remove=remove),
    )
    await sweep(cast(Context, ctx), {"live"})
    assert removed == ["b"]
