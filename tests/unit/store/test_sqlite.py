"""What only the SQLite backend has: a file, migrations, group commit, and a life after kill -9."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from polder.store import writer
from polder.store.protocol import Delete, FutureRevisionError, Indexer, Key, Prefix, Put, StoreFailedError
from polder.store.schema import MIGRATIONS, StoreFileError, prepare
from polder.store.sqlite import open_sqlite


def key(name):
    return Key("pods", "acme", "default", name)


PODS = Prefix("pods")

WRITER = """
import asyncio, sys
from pathlib import Path
from polder.store.protocol import Key, Put
from polder.store.sqlite import open_sqlite

async def main():
    store = open_sqlite(Path(sys.argv[1]))
    start = await store.revision()

    async def write(worker):
        n = 0
        while True:
            name = f"{start}-{worker}-{n}"
            ops = [Put(Key("pods", "acme", "a", name), name.encode()), Put(Key("pods", "acme", "b", name), b"x" * 3000)]
            revision = await store.commit(ops)
            sys.stdout.write(f"{revision} {name}\\n")
            sys.stdout.flush()
            n += 1

    await asyncio.gather(*(write(w) for w in range(16)))

asyncio.run(main())
"""


def write_and_be_killed(path, lines_to_see):
    """Lets a process write, kills it amid that, and returns what it had been told is durable."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    lines = [child.stdout.readline() for _ in range(lines_to_see)]
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    complete = "".join(lines) + rest[: rest.rfind("\n") + 1]
    return {name: int(revision) for revision, name in (line.split() for line in complete.splitlines())}


async def test_kill_9_in_the_middle_of_writes_loses_nothing_acknowledged(tmp_path):
    path = tmp_path / "db"
    acknowledged = {}
    for round_ in range(4):
        acknowledged |= write_and_be_killed(path, 150 + 70 * round_)
        store = open_sqlite(path)
        found = {e.key.name: e for e in (await store.list(Prefix("pods", "acme", "a"))).entries}
        twins = {e.key.name: e for e in (await store.list(Prefix("pods", "acme", "b"))).entries}
        for name, revision in acknowledged.items():
            assert (found[name].revision, found[name].value) == (revision, name.encode())
        assert {n: e.revision for n, e in found.items()} == {n: e.revision for n, e in twins.items()}
        assert sorted(e.revision for e in found.values()) == list(range(2, len(found) + 2))
        assert await store.revision() == len(found) + 1
        batches = store.watch(PODS, 1)
        seen = []
        while len(seen) < 2 * len(found):
            seen += (await anext(batches)).changes
        assert [c.revision for c in seen] == [r for r in range(2, len(found) + 2) for _ in range(2)]
        await batches.aclose()
        await store.close()
    assert len(acknowledged) > 150 * 4


async def test_everything_is_there_after_a_restart(tmp_path):
    store = open_sqlite(tmp_path / "db")
    for n in range(10):
        await store.commit([Put(key("a"), b"%d" % n), Put(key(f"b{n}"), b"")])
    await store.commit([Delete(key("b3"))])
    before = await store.list(PODS)
    await store.compact(5)
    await store.close()
    store = open_sqlite(tmp_path / "db")
    assert await store.list(PODS) == before
    assert await store.commit([Put(key("c"), b"")]) == 13
    watch = store.watch(PODS, 5)
    seen = (await anext(watch)).changes
    assert [c.revision for c in seen] == [6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 13]
    with pytest.raises(Exception, match="compacted"):
        await anext(store.watch(PODS, 4))
    await watch.aclose()
    await store.close()


async def test_compaction_frees_the_log_and_keeps_the_present(tmp_path):
    store = open_sqlite(tmp_path / "db")
    await asyncio.gather(*(store.commit([Put(key(f"a{n % 10}"), b"")]) for n in range(5000)))
    await store.compact(4990)
    assert len((await store.list(PODS)).entries) == 10
    await store.close()
    with sqlite3.connect(tmp_path / "db") as file:
        assert file.execute("SELECT count(*), min(revision) FROM log").fetchone() == (11, 4991)
    file.close()


async def test_waiting_commits_share_one_transaction_and_one_bad_one_fails_alone(tmp_path, monkeypatch):
    store = open_sqlite(tmp_path / "db")
    transactions = []
    statements = writer.Writer._statements
    monkeypatch.setattr(
        writer.Writer, "_statements", lambda self, g: (transactions.append(len(g)), statements(self, g))
    )
    commits = [store.commit([Put(key(f"p{n}"), b"")]) for n in range(300)]
    await asyncio.gather(*commits)
    assert len(transactions) < 30
    results = await asyncio.gather(
        store.commit([Put(key("good"), b"")]),
        store.commit([Put(key("half"), b""), Put(key("bad\ud800"), b"")]),
        store.commit([Put(key("also good"), b"")]),
        return_exceptions=True,
    )
    assert isinstance(results[1], StoreFailedError)
    assert {type(r) for r in (results[0], results[2])} == {int}
    assert await store.get(key("half")) is None
    assert await store.revision() == 303
    await store.close()


def test_while_several_tenants_write_a_transaction_has_a_few_commits_of_each():
    now = [100.0]
    waiting = writer.Waiting(lambda: now[0])

    def jobs(tenant, number):
        for n in range(number):
            waiting.add(writer.Job(None, [Put(Key("pods", tenant, "d", f"{tenant}{n}"), b"")]))

    def taken():
        return [job.ops[0].key.name for job in waiting.take()]

    jobs("a", 6)
    assert taken() == [f"a{n}" for n in range(6)], "alone it has all"
    jobs("a", 6)
    jobs("b", 1)
    assert taken() == ["a0", "a1", "a2", "a3", "b0"]
    jobs("b", 1)
    assert taken() == ["a4", "a5", "b0"]
    jobs("a", 6)
    assert taken() == ["a0", "a1", "a2", "a3"], "the other wrote a moment ago"
    now[0] += 2
    assert taken() == ["a4", "a5"]
    assert taken() == []


async def test_a_commit_that_the_disk_refuses_is_made_again_and_nothing_is_half_done(tmp_path):
    """The statements were made on the loop, the sync fails in the thread."""
    store = open_sqlite(tmp_path / "db")
    connection, refused = store._writer._connection, []

    class Refusing:
        def execute(self, sql, *values):
            if sql == "COMMIT" and not refused:
                refused.append(sql)
                raise sqlite3.OperationalError("disk I/O error")
            return connection.execute(sql, *values)

        def __getattr__(self, name):
            return getattr(connection, name)

    store._writer._connection = Refusing()
    events = store.watch(PODS, 0)
    assert sorted(await asyncio.gather(*(store.commit([Put(key(name), b"")]) for name in "abc"))) == [2, 3, 4]
    assert refused == ["COMMIT"]
    seen = await anext(events)
    assert [change.revision for change in seen.changes] == [2, 3, 4][: len(seen.changes)]
    assert [entry.revision for entry in (await store.list(PODS)).entries] == [2, 3, 4]
    await events.aclose()
    await store.close()


async def test_a_cancelled_author_does_not_undo_its_commit_or_stop_the_writer(tmp_path):
    store = open_sqlite(tmp_path / "db")
    task = asyncio.ensure_future(store.commit([Put(key("a"), b"")]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.commit([Put(key("b"), b"")])
    assert len((await store.list(PODS)).entries) == 2
    await store.close()


async def test_a_full_disk_is_said_and_passes(tmp_path):
    store = open_sqlite(tmp_path / "db")
    await store.commit([Put(key("a"), b"")])
    connection = store._writer._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreFailedError, match="full"):
        await store.commit([Put(key("big"), bytes(100_000))])
    assert await store.revision() == 2
    connection.execute("PRAGMA max_page_count = 100000")
    assert await store.commit([Put(key("big"), bytes(100_000))]) == 3
    await store.close()


async def test_what_was_handed_in_before_closing_is_written(tmp_path):
    store = open_sqlite(tmp_path / "db")
    commits = [asyncio.ensure_future(store.commit([Put(key(f"p{n}"), b"")])) for n in range(100)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*commits)) == list(range(2, 102))
    with pytest.raises(StoreFailedError, match="closed"):
        await store.list(PODS)


async def test_one_process_at_a_time(tmp_path):
    store = open_sqlite(tmp_path / "db")
    with pytest.raises(StoreFileError, match="in use"):
        open_sqlite(tmp_path / "db")
    await store.close()
    await open_sqlite(tmp_path / "db").close()


async def test_files_are_for_the_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        store = open_sqlite(tmp_path / "db")
        await store.commit([Put(key("a"), b"")])
        assert {stat.S_IMODE(f.stat().st_mode) for f in tmp_path.iterdir()} == {0o600}
        assert len(list(tmp_path.iterdir())) >= 3
    finally:
        os.umask(old)
    await store.close()


def test_a_damaged_or_foreign_file_is_refused_and_released(tmp_path):
    (tmp_path / "db").write_bytes(b"this is no database" * 100)
    for _ in range(2):
        with pytest.raises(StoreFileError, match="cannot be opened"):
            open_sqlite(tmp_path / "db")
    assert (tmp_path / "db").read_bytes().startswith(b"this is no database")


def test_a_newer_schema_is_refused(tmp_path):
    connection = prepare(tmp_path / "db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreFileError, match=r"schema 99.*newer Polder"):
        open_sqlite(tmp_path / "db")


def test_a_migration_leaves_a_backup_and_a_failed_one_changes_nothing(tmp_path):
    prepare(tmp_path / "db", MIGRATIONS[:1]).close()
    assert [p.name for p in tmp_path.glob("*.backup")] == []
    more = (*MIGRATIONS, ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (1)"))
    broken = (*more, ("CREATE TABLE late (x)", "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(StoreFileError, match="nowhere"):
        prepare(tmp_path / "db", broken)
    assert sorted(p.name for p in tmp_path.glob("*.backup")) == [f"db.v{n}.backup" for n in (1, 2, 3)]
    connection = prepare(tmp_path / "db", more)
    assert connection.execute("SELECT x FROM extra").fetchall() == [(1,)]
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'late'").fetchone() == (0,)
    connection.close()
    backup = sqlite3.connect(tmp_path / "db.v1.backup")
    assert backup.execute("PRAGMA user_version").fetchone() == (1,)
    assert backup.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    backup.close()


def by_first_letter(key, value):
    return (f"letter/{value[:1].decode()}",)


async def test_an_old_file_gets_the_terms_of_its_rows(tmp_path):
    connection = prepare(tmp_path / "db", MIGRATIONS[:1])
    rows = [(f"p{n}", n + 2, b"%c" % (97 + n % 3)) for n in range(2500)]
    connection.executemany(
        "INSERT INTO entry (resource, tenant, namespace, name, revision, value) VALUES ('pods', 'acme', 'a', ?, ?, ?)",
        rows,
    )
    connection.execute("UPDATE counter SET value = 2501 WHERE name = 'revision'")
    connection.close()
    store = open_sqlite(tmp_path / "db", indexer=Indexer(1, by_first_letter))
    assert (tmp_path / "db.v1.backup").exists()
    found = await store.by_term("letter/b")
    assert [k.name for k in found] == sorted(f"p{n}" for n in range(1, 2500, 3))
    await store.commit([Put(found[0], b"z", terms=("letter/z",))])
    await store.close()
    # The same version computes nothing anew; another one does.
    store = open_sqlite(tmp_path / "db", indexer=Indexer(1, lambda key, value: ("never",)))
    assert await store.by_term("letter/z") == [found[0]]
    assert await store.by_term("never") == []
    await store.close()
    store = open_sqlite(tmp_path / "db", indexer=Indexer(2, lambda key, value: ("all",)))
    assert (len(await store.by_term("all")), await store.by_term("letter/z")) == (2500, [])
    await store.close()


@pytest.mark.parametrize("prefix", [PODS, Prefix("pods", "acme"), Prefix("pods", "acme", "default")])
async def test_a_range_without_rows_is_answered_at_once(tmp_path, prefix):
    """Admission asks many that have none: not even both readers being at work holds it up."""
    store = open_sqlite(tmp_path / "db")
    begun = await store.commit([Put(Key("nodes", "root", "", "n1"), b"{}")])
    busy, done = threading.Barrier(3), threading.Event()

    def scan(connection):
        busy.wait(5)
        done.wait(5)

    scans = [asyncio.ensure_future(store._read(scan)) for _ in range(2)]
    try:
        await asyncio.to_thread(busy.wait, 5)
        async with asyncio.timeout(2):
            for revision in (None, begun):
                page = await store.list(prefix, limit=10, revision=revision)
                assert (page.entries, page.revision, page.after, page.remaining) == ([], begun, None, 0)
    finally:
        done.set()
        await asyncio.gather(*scans)
    await store.commit([Put(key("a"), b"{}")])
    assert [(e.key.name, e.revision) for e in (await store.list(prefix)).entries] == [("a", begun + 1)]
    await store.commit([Delete(key("a"))])
    assert (await store.list(prefix)).revision == begun + 2
    assert (await store.list(prefix, revision=begun + 1)).entries[0].key == key("a")
    with pytest.raises(FutureRevisionError):
        await store.list(prefix, revision=begun + 3)
    await store.close()
    with pytest.raises(StoreFailedError):
        await store.list(prefix)
