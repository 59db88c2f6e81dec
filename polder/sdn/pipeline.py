"""Composes compile, render and apply: the one path by which anything reaches the kernel.

Objects go in by ``put``; a single run at a time compiles what is dirty, renders what depends on it, and applies the
difference in one batch; changes that come meanwhile share the next run. Until ``synced`` nothing is removed on the strength
of objects: the last topology, from disk, is what holds, and only ``expect`` takes away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from polder.api import polder as api
from polder.api.meta import Object
from polder.base.clock import Clock, SystemClock
from polder.base.errors import PermanentError, RetryableError
from polder.base.ref import Ref
from polder.loop.pauses import Pauses
from polder.sdn.apply.linux.failure import ItemFailure
from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.errors import NotReadyError
from polder.sdn.compile.keys import Key
from polder.sdn.drops import drops_of
from polder.sdn.inspection import Inspection
from polder.sdn.kernelport import KernelPort
from polder.sdn.partkeys import compile_key, part_key
from polder.sdn.render.linux.desired import GUARD, Desired, PartKey
from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import Item, PortLink, Transit
from polder.sdn.render.linux.names import router_space
from polder.sdn.render.linux.text import dump
from polder.sdn.render.linux.wanted import Slot, Wanted
from polder.sdn.saved import SavedTopology
from polder.sdn.shares import Shares
from polder.sdn.topology import text as topology_text
from polder.sdn.topology.policies import Policy
from polder.sdn.topology.types import Part, Port, Router
from polder.sdn.troubles import Troubles

log = logging.getLogger(__name__)

LOOK_EVERY = 2.0
"""Seconds between questions whether somebody else changed rules, links or routes."""
LOOK_SHARE = 4.0
"""Rest after a look for such a change, as a multiple of the look's time: whoever goes on costs a fifth of a processor at most."""


class NotAppliedError(PermanentError):
    """A fragment is broken, or the kernel refuses it for good."""


class NotYetError(RetryableError):
    """A fragment is not in the kernel yet; the sentence says what it waits for."""


class Pipeline:
    """One node's network. ``run`` is the only task that changes the kernel."""

    def __init__(
        self,
        kernel: KernelPort,
        facts: NodeFacts,
        saved: SavedTopology,
        clock: Clock | None = None,
        verify_every: float = 120.0,
    ) -> None:
        self.facts = facts
        self._kernel = kernel
        self._saved = saved
        self._clock = clock or SystemClock()
        self._verify_every = verify_every
        self._compiler = Compiler()
        self._desired = Desired(facts)
        self._wanted = Wanted()
        self._actual: dict[Slot, Item] = {}
        self._troubles = Troubles(self._clock)
        self._synced = self._started = self._whole = False
        self._held = frozenset[str]()
        self._local: dict[PartKey, Port] = {}
        self._unsaved: dict[str, list[tuple[PartKey, Part | None]]] = {}
        self._leaving: dict[PartKey, list[Item]] = {}
        self._verify_at = self._look_at = self._seen_until = 0.0
        self._failures = 0
        self._again, self._in_flight, self._dirty = set[Slot](), set[PartKey](), set[PartKey]()
        self._wake = asyncio.Event()
        self._after = asyncio.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._seed()

    # -- input ----------------------------------------------------------------------------------------------------

    def put(self, kind: type[Object], ref: Ref, obj: Object | None) -> None:
        """Take an object (None: gone). Older revisions than the one known are left out."""
        if self._compiler.put(kind, ref, obj):
            self._wake.set()

    def expect(self, port: Ref, status: api.PortStatus | None) -> None:
        """Take ``status`` for the port's until the object says so: this node has attached or detached it, API or no API. None
        takes that back.
        """
        self._compiler.expect(port, status)
        self._wake.set()

    def set_synced(self) -> None:
        """Every object has been put once: what no object wants may go."""
        if not self._synced:
            self._synced = True
            self._compiler.forget_unseen()
            self._whole = True
            self._verify_at = 0.0
            self._wake.set()

    def on_run(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each run."""
        self._listeners.append(listener)

    # -- questions ------------------------------------------------------------------------------------------------

    def knows(self, kind: type[Object], ref: Ref) -> bool:
        """Whether an object has been put and not been taken back."""
        return self._compiler.snapshot.get(kind, ref) is not None

    def unseen(self) -> list[Port]:
        """The ports of this node that are known from disk only, so far."""
        snapshot = self._compiler.snapshot
        keys = {key: compile_key(key).ref for key in self._local}
        return [self._local[key] for key, ref in keys.items() if snapshot.get(api.Port, ref) is None]

    @property
    def synced(self) -> bool:
        """Whether every object has been put once."""
        return self._synced

    def part(self, key: Key) -> Part | None:
        """The compiled part of a fragment."""
        return self._compiler.parts.get(key)

    def problems(self) -> dict[str, str]:
        """What is broken: the fragment, and a sentence."""
        found = {str(key): str(error) for key, error in self._compiler.errors.items()}
        found.update({" ".join(key).strip(): reason for key, reason in self._troubles.reasons().items()})
        return found

    def entries(self) -> dict[str, str]:
        """The spaces of routers that stand here, each with the address of its tenant's ``kubernetes`` service."""
        found: dict[str, str] = {}
        for part in self._compiler.parts.values():
            if isinstance(part, Router) and part.entry and ("space", router_space(part.tenant)) in self._actual:
                found[router_space(part.tenant)] = part.entry
        return found

    async def settle(self, keys: Iterable[Key], *, present: bool = True, timeout: float = 10.0) -> None:
        """Return when the kernel has what these fragments give by what was put before the call; ``present`` asks that they
        give anything. Raises NotAppliedError for what cannot work, NotYetError after ``timeout`` seconds.
        """
        waiting = list(keys)
        reason = ""

        def settled() -> bool:
            nonlocal reason
            reason = next((why for key in waiting if (why := self._waits_for(key, present))), "")
            return not reason

        try:
            async with asyncio.timeout(timeout), self._after:
                await self._after.wait_for(settled)
        except TimeoutError as error:
            raise NotYetError(f"{waiting[0]}: waited {timeout:g} s: {reason}", 1.0) from error

    async def wait_gone(self, key: Key) -> None:
        """Return when the links that a fragment had, and has no more, no longer exist."""
        links = self._leaving.pop(part_key(key), [])
        await self._kernel.wait_gone(links)

    async def missing(self, key: Key) -> list[str]:
        """What the kernel lacks of a fragment, as lines of text."""
        wanted = self._wanted.items_of(part_key(key))
        found = await self._kernel.observe(self._wanted.all_items())
        return dump(wanted - found).splitlines()

    def wanted(self) -> frozenset[Item]:
        """Everything that should stand on this node."""
        return self._wanted.all_items()

    def sandbox_of(self, container: str, interface: str) -> Port | None:
        """The port of this node that a sandbox uses."""
        return next((p for p in self.attached() if (p.sandbox, p.interface) == (container, interface)), None)

    def attached(self) -> list[Port]:
        """The ports of this node that sandboxes use."""
        return [port for port in self._local.values() if port.attached]

    def policed(self) -> frozenset[str]:
        """The tenants that have policies on this node."""
        return frozenset(part.tenant for part in self._compiler.parts.values() if isinstance(part, Policy))

    async def drops(self, tenant: str) -> dict[str, tuple[int, int]]:
        """Packets and bytes that each policy of a tenant has dropped here since its rules were last changed."""
        return await drops_of(self._kernel, self._desired.droppers(tenant))

    async def inspect(self, tenant: str = "") -> Inspection:
        """One tenant, or everything for an empty name."""
        parts = [p for p in self._compiler.parts.values() if not tenant or getattr(p, "tenant", "") == tenant]
        tenants = sorted({getattr(p, "tenant", "") for p in parts} - {""})
        owners = [key for key in self._desired.keys() if not tenant or key.tenant == tenant]  # noqa: SIM118 - no mapping
        wanted = frozenset[Item]().union(*(self._wanted.items_of(key) for key in owners))
        found = await self._kernel.observe(self._wanted.all_items())
        known = self._wanted.all_items()
        spaces = {item.slot[1] for item in wanted}
        surplus = {i for i in found - known if not tenant or i.slot[1] in spaces}
        return Inspection(
            topology="".join(
                topology_text.dump(topology_text.assemble(t, [p for p in parts if getattr(p, "tenant", "") == t]))
                for t in tenants
            ),
            desired=dump(wanted),
            missing=dump((wanted & known) - found),
            surplus=dump(surplus),
            problems=tuple(f"{what}: {why}" for what, why in sorted(self.problems().items())),
        )

    # -- the one task that changes the kernel ---------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: bring the kernel to what is wanted, and look from time to time whether it still is."""
        try:
            await self._run()
        finally:
            self._saved.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
                self._failures = 0
            except Exception as error:
                self._failures += 1
                log.exception("network: a run failed (%s); everything is looked at again", type(error).__name__)
                self._verify_at = 0.0
                await asyncio.sleep(min(0.1 * 2.0**self._failures, 30.0))
                continue
            await self._rest()

    def _seed(self) -> None:
        """Start from the last topology, so that what it gives is neither unknown nor gone."""
        seeds = {compile_key(key): part for key, part in self._saved.parts.items()}
        self._compiler.seed(seeds)
        for key, part in self._saved.parts.items():
            self._desired.put(key, part)
            self._note_local(key, part)
        for owner in self._desired.keys():  # noqa: SIM118 - no mapping
            self._again |= self._wanted.put(owner, self._desired.render(owner))

    async def _turn(self) -> None:
        """One run: compile, render, observe if it is time, apply the difference."""
        self._wake.clear()
        owners = await self._render()
        self._again |= owners.keys() | self._troubles.due()
        if self._clock.monotonic() >= self._verify_at:
            self._again |= await self._observe()
        touched = frozenset(self._again)
        difference = self._wanted.difference(touched, self._actual)
        failed: set[Slot] = set()
        if difference:
            for failure in await self._kernel.apply(difference.remove, difference.add):
                failed.add(failure.item.slot)
                self._note(failure, owners)
        for item in difference.remove:
            if item.slot not in failed:
                self._actual.pop(item.slot, None)
                if isinstance(item, PortLink | Transit) and item.slot in owners:
                    self._leaving.setdefault(owners[item.slot], []).append(item)
        for item in difference.add:
            if item.slot in failed:
                self._actual.pop(item.slot, None)
            else:
                self._actual[item.slot] = item
        for tenant in self._unsaved.keys() - self._held:  # after the kernel, which is waited for
            await self._saved.write(self._unsaved[tenant], Pauses().here)
            del self._unsaved[tenant]
        self._again -= touched
        self._troubles.cleared(touched - failed)
        await self._tell()

    async def _render(self) -> dict[Slot, PartKey]:
        """Bring the wanted items up to date: the slots that were touched, each with the part that touched it. Others get their
        turn in between. Of a tenant nothing goes to the kernel before all is compiled, since ports and policies belong
        together; one whose share of the run is over before that is held until the next, and holds up nobody else. What is put
        while it is rendered is the next run's.
        """
        owners, pauses, shares = dict[Slot, PartKey](), Pauses(), Shares(self._clock, unbounded=self._whole)
        self._take(self._compiler.touched())
        while self._synced and (tenant := shares.next(self._compiler.behind)) is not None:
            with shares.used_by(tenant):
                self._take(self._compiler.recompile_one(tenant))
            await pauses.here()
        self._held = frozenset(self._compiler.behind) if self._synced else frozenset()
        self._whole = False
        if self._held:
            self._wake.set()
        for owner in [one for one in self._dirty if one.tenant not in self._held]:
            self._dirty.discard(owner)
            owners.update(dict.fromkeys(self._wanted.put(owner, self._desired.render(owner)), owner))
            await pauses.here()
        return owners

    def _take(self, changed: Mapping[Key, Part | None]) -> None:
        """Parts that were compiled: who asks for one from here on waits until the kernel has it."""
        for key, part in ((part_key(key), part) for key, part in changed.items()):
            self._unsaved.setdefault(key.tenant, []).append((key, part))
            self._note_local(key, part)
            self._dirty |= (dirty := self._desired.put(key, part))
            self._in_flight |= dirty

    def _note_local(self, key: PartKey, part: Part | None) -> None:
        if isinstance(part, Port) and part.node == self.facts.name:
            self._local[key] = part
        else:
            self._local.pop(key, None)

    async def _observe(self) -> set[Slot]:
        """See what stands. Before all objects were seen, what is not known to be wanted is left alone."""
        begun = self._clock.monotonic()
        found = {item.slot: item for item in await self._kernel.observe(self._wanted.all_items())}
        now = self._clock.monotonic()
        self._seen_until = now + min(LOOK_SHARE * (now - begun), self._verify_every)
        drift = {slot for slot in self._actual.keys() | found.keys() if self._actual.get(slot) != found.get(slot)}
        if self._started and drift:
            log.info("network: %d of %d items are not as they were left; they are put right", len(drift), len(found))
        self._actual = found
        self._started = True
        self._verify_at = now + self._verify_every
        wanted = set(self._wanted.slots())
        return wanted | found.keys() if self._synced else wanted

    def _note(self, failure: ItemFailure, owners: dict[Slot, PartKey]) -> None:
        slot = failure.item.slot
        owner = owners.get(slot) or min(self._wanted.owners(slot), default=GUARD)
        self._troubles.failed(slot, owner, str(failure), failure.retry)
        log.warning("network: %s", failure)

    async def _tell(self) -> None:
        self._in_flight &= self._dirty  # what is held is still on its way
        for listener in self._listeners:
            listener()
        async with self._after:
            self._after.notify_all()

    async def _rest(self) -> None:
        """Until something is put, a trouble is due, it is time to look, or somebody else changed something."""
        due = self._troubles.next_due()
        until = self._verify_at if due is None else min(due, self._verify_at)
        await asyncio.sleep(0)  # somebody may be held for long
        while not self._wake.is_set() and (left := until - self._clock.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_EVERY)):
                    await self._wake.wait()
            if self._clock.monotonic() >= self._look_at:
                self._look_at = self._clock.monotonic() + LOOK_EVERY
                if self._clock.monotonic() >= self._seen_until and await self._kernel.meddled():
                    self._verify_at = 0.0
                    return

    def _waits_for(self, key: Key, present: bool) -> str:
        """What is missing until a fragment is in the kernel; empty when it is. Raises NotAppliedError."""
        owner = part_key(key)
        if not self._started:
            return "the kernel has not been looked at yet"
        if self._compiler.waits(key, seen=self._synced) or owner in self._in_flight:
            return "it is being applied"
        error = self._compiler.errors.get(key)
        if present and isinstance(error, NotReadyError):
            return str(error)
        if present and error is not None:
            raise NotAppliedError(str(error)) from error
        trouble = self._troubles.of(owner)
        if trouble is not None and present and not trouble.passing:
            raise NotAppliedError(f"{key}: {trouble.reason}")
        if trouble is not None:
            return trouble.reason
        if present and not self._wanted.items_of(owner):
            return f"{key} has nothing on this node yet: {self._absence(key)}"
        return ""

    def _absence(self, key: Key) -> str:
        part = self._compiler.parts.get(key)
        if part is None:
            return "its object has not been seen"
        if isinstance(part, Port) and part.node == self.facts.name and not part.attached:
            return "no sandbox uses it"
        return "its network is not ready, or the tenant's router has no address here"
