"""The chain of authentication as it is configured now: another one takes its place whole, while requests go on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from polder.apiserver.authn import Authenticator
from polder.apiserver.authn_build import AuthnSettings, Known
from polder.apiserver.authn_method import Closable, Method

log = logging.getLogger(__name__)

GRACE: Final = 30.0
"""Seconds after which the connections of a method that left are ended: requests may still be with it."""
_NAME: Final = "apiserver_authentication_config_controller_automatic_reload"


class Authentication:
    """Holds the one ``authenticator`` that everybody asks, and exchanges what it asks."""

    def __init__(self, known: Known, settings: AuthnSettings) -> None:
        self._known = known
        self._settings = settings
        self._methods = [known.method(use) for use in settings.methods]
        self.authenticator = Authenticator(self._methods, settings.anonymous)
        self._leaving: dict[asyncio.Task[None], Closable] = {}
        self._counts: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def take_over(self, settings: AuthnSettings) -> None:
        """From the next request on. Methods that are configured as before stay, with what they remember."""
        if settings == self._settings:
            return
        before = list(zip(self._settings.methods, self._methods, strict=True))
        methods = [self._kept(use, before) or self._known.method(use) for use in settings.methods]
        gone = [method for method in self._methods if all(method is not kept for kept in methods)]
        self.authenticator.take_over(methods, settings.anonymous)
        self._settings, self._methods = settings, methods
        for method in gone:
            if isinstance(method, Closable):
                task = asyncio.ensure_future(_closed(method))
                self._leaving[task] = method
                task.add_done_callback(lambda done: self._leaving.pop(done, None))
        self._note("success")

    def _kept(self, use: object, before: Sequence[tuple[object, Method]]) -> Method | None:
        return next((method for known, method in before if known == use), None)

    def refused(self) -> None:
        """Counts a configuration that could not be taken over."""
        self._note("failure")

    def _note(self, status: str) -> None:
        self._counts[status] += 1
        self._last[status] = self._known.clock.now().timestamp()

    def metrics(self) -> list[str]:
        """Lines of Prometheus text, by upstream's names."""
        if not self._counts:
            return []
        lines = [f"# TYPE {_NAME}s_total counter"]
        lines += [f'{_NAME}s_total{{status="{status}"}} {count}' for status, count in sorted(self._counts.items())]
        lines.append(f"# TYPE {_NAME}_last_timestamp_seconds gauge")
        stamps = sorted(self._last.items())
        return lines + [f'{_NAME}_last_timestamp_seconds{{status="{status}"}} {at:.3f}' for status, at in stamps]

    async def close(self) -> None:
        """Ends the connections that methods keep, those that left among them."""
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        for method in leaving.values():
            await method.close()
        await self.authenticator.close()


async def _closed(method: Closable) -> None:
    await asyncio.sleep(GRACE)
    await method.close()
