"""One tenant's answers: from its zone, from memory, or after a question to an upstream server."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from polder.dns.bounded import Bounded
from polder.dns.forward import Forwarder, Question, UnansweredError
from polder.dns.message import Held, give, records_of
from polder.dns.wire import (
    BADVERS,
    CD,
    CNAME,
    FORMERR,
    IN,
    LARGEST,
    OPT,
    REFUSED,
    SERVFAIL,
    Labels,
    MalformedError,
    Query,
    parse_query,
    refusal,
)
from polder.dns.writer import Record, Reply, write
from polder.dns.zone import Alias, Zone

ALIASES = 8
"""Services in a chain of names for each other."""
WAITING = 256
"""Clients' questions of one tenant that wait for upstream servers."""
TURNS = 8
"""Orders in which the records of one answer are given, one after the other."""
ENTRY = 350
"""Bytes that an answer in memory costs besides its own."""
META_KINDS = range(249, 256)
"""Transfers, keys and the like: nothing that a resolver answers (RFC 6895, section 3.1)."""
FOREVER = float("inf")
Clock = Callable[[], float]


class Ready:
    """An answer without its id, good until ``until`` (monotonic seconds). ``others`` gives the next order of its records."""

    __slots__ = ("others", "tail", "until")

    def __init__(self, tails: list[bytes], until: float) -> None:
        self.tail = tails[0]
        self.until = until
        self.others: Iterator[bytes] | None = itertools.cycle(tails[1:] + tails[:1]) if len(tails) > 1 else None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A question that an upstream server has to answer; ``chain`` are the aliases that lead to it."""

    query: Query
    question: Question
    chain: tuple[Record, ...]
    limit: int


@dataclass(slots=True)
class Resolver:
    """``ready`` is asked by the bytes of a query without its id, and by nothing else: whatever a client sends alike is answered
    alike. It is emptied with each change of the zone.
    """

    tenant: str
    forwarder: Forwarder
    zone: Zone = field(default_factory=Zone)
    ready: Bounded[bytes, Ready] = field(default_factory=Bounded)
    known: Bounded[Question, tuple[Held, float]] = field(default_factory=Bounded)
    waiting: int = 0

    def answer(self, data: bytes, now: float, *, stream: bool = False) -> bytes | Waiting | None:
        """The answer to a message; None for what deserves none."""
        try:
            query = parse_query(data)
        except MalformedError as error:
            return refusal(data, error.rcode) if error.rcode >= 0 else None
        limit = LARGEST if stream else query.size
        refused = _refused(query)
        if refused is not None:
            return write(query, Reply(refused, authoritative=False), limit)
        found = self._own(query)
        if isinstance(found, Reply):
            return self._give_own(data, query, found, stream)
        labels, chain = found
        question = Question(labels, query.kind, query.klass, bool(query.flags & CD), query.secure)
        held = self._known(question, now)
        waiting = Waiting(query, question, chain, limit)
        if held is not None:
            return self._give_held(waiting, held, now, "" if stream or chain else data)
        return waiting

    def _own(self, query: Query) -> Reply | tuple[Labels, tuple[Record, ...]]:
        """What the zone says; or the name to ask for outside, and the aliases that lead there."""
        labels, chain = query.labels, tuple[Record, ...]()
        for _ in range(ALIASES):
            found = self.zone.find(labels, query.kind)
            if found is None:
                return labels, chain
            if isinstance(found, Alias):
                chain += found.records
                labels = found.target
                continue
            return Reply(found.rcode, (*chain, *found.answers), found.authority, found.additional) if chain else found
        return Reply(SERVFAIL, authoritative=False)

    def _give_own(self, data: bytes, query: Query, reply: Reply, stream: bool) -> bytes:
        count = len(reply.answers)
        if stream:
            return write(query, _turned(reply, random.randrange(count) if count else 0))  # noqa: S311 - spreads load
        turns = 1 if any(record.kind == CNAME for record in reply.answers) else max(1, min(count, TURNS))
        tails = [write(query, _turned(reply, turn * count // turns), query.size)[2:] for turn in range(turns)]
        if reply.rcode != SERVFAIL:
            self.ready.put(data[2:], Ready(tails, FOREVER), len(data) + sum(map(len, tails)) + ENTRY)
        return data[:2] + tails[0]

    # -- what upstream servers said -------------------------------------------------------------------------------

    def _known(self, question: Question, now: float) -> tuple[Held, float] | None:
        found = self.known.held.get(question)
        if found is not None and now >= found[1] + found[0].lifetime:
            self.known.drop(question)
            return None
        return found

    def _give_held(self, waiting: Waiting, found: tuple[Held, float], now: float, data: bytes | str = "") -> bytes:
        """An answer from memory. While its TTLs read the same it is ready for who asks with the same bytes (``data``)."""
        held, came = found
        if waiting.chain:
            try:
                reply = Reply(held.rcode, (*waiting.chain, *records_of(held)), authoritative=False)
            except MalformedError:
                reply = Reply(SERVFAIL, authoritative=False)
            return write(waiting.query, reply, waiting.limit)
        age = int(now - came)
        answer = give(held, waiting.query, age, waiting.limit)
        if isinstance(data, bytes) and held.lifetime:
            until = came + min(age + 1, held.lifetime)
            self.ready.put(data[2:], Ready([answer[2:]], until), len(data) + len(answer) + ENTRY)
        return answer

    async def finish(self, waiting: Waiting, clock: Clock) -> bytes:
        """The answer to what had to wait."""
        if self.waiting >= WAITING:
            return write(waiting.query, Reply(SERVFAIL, authoritative=False), waiting.limit)
        self.waiting += 1
        try:
            held = await self.forwarder.ask(self.tenant, waiting.question)
        except UnansweredError:
            return write(waiting.query, Reply(SERVFAIL, authoritative=False), waiting.limit)
        finally:
            self.waiting -= 1
        now = clock()
        if held.lifetime:
            self.known.put(waiting.question, (held, now), held.weight)
        return self._give_held(waiting, (held, now), now)

    def changed(self) -> None:
        """The zone has changed: no answer of before is given any more."""
        self.ready.clear()

    def limit(self, share: int) -> None:
        """Gives it so many bytes of each memory."""
        self.ready.limit = self.known.limit = share


def _refused(query: Query) -> int | None:
    """The code for what is not answered."""
    if query.version:
        return BADVERS
    if query.kind == OPT:
        return FORMERR
    if query.klass != IN or query.kind in META_KINDS:
        return REFUSED
    return None


def _turned(reply: Reply, by: int) -> Reply:
    if not by:
        return reply
    return Reply(
        reply.rcode, [*reply.answers[by:], *reply.answers[:by]], reply.authority, reply.additional, reply.authoritative
    )
