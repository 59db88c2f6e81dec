"""Tests run on the event loop that the product runs on; asyncio's own TLS has a defect in Debian's Python 3.11.2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


ORDER = ("laws", "unit", "golden", "contract", "system", "e2e")
"""Cheap first; a whole cluster runs last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    top = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(top).parts[0]))
