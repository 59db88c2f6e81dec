"""Which kernel parameters an operator may open to pods."""

from __future__ import annotations

import pytest

from polder.base.errors import PermanentError
from polder.main.agent import allowed_sysctls


@pytest.mark.parametrize("pattern", ["*", "vm.*", "kernel.*", "kernel.panic", "net.*.x", ""])
def test_no_node_lets_pods_reach_further(pattern: str) -> None:
    with pytest.raises(PermanentError, match="not of a pod's own"):
        allowed_sysctls([pattern])
    assert allowed_sysctls(["net.*", "kernel.msgmax", "fs.mqueue.*"])
