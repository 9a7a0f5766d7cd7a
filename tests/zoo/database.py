"""An SQLite file in WAL mode: a writer with a transaction open across the sleep, a lasting reader and new ones in
other processes.

Readers are processes of their own: SQLite tells the connections of one process apart by inode, and inodes change with
the host,
so one process must not open a second connection after a move while it still holds one from before (docs: limits).
"""

import os
import sqlite3
import time

PATH = "/work/zoo.db"


def count(db):
    return db.execute("SELECT count(*) + max(n) FROM steps").fetchone()[0]


db = sqlite3.connect(PATH, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS steps (n INTEGER PRIMARY KEY, text TEXT)")
ask, answer = os.pipe(), os.pipe()
if os.fork() == 0:
    reader = sqlite3.connect(PATH)
    while os.read(ask[0], 1):
        os.write(answer[1], f"{count(reader)}\n".encode())
for step in range(1, 100_000):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO steps VALUES (?, ?)", (step, "x" * 500))
    time.sleep(0.05)
    db.execute("COMMIT")
    os.write(ask[1], b"?")
    assert os.read(answer[0], 100) == f"{2 * step}\n".encode()
    if step % 5 == 0:
        child = os.fork()
        if child == 0:
            fresh = sqlite3.connect(PATH)
            os._exit(0 if count(fresh) == 2 * step else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    print("ok", step, flush=True)
