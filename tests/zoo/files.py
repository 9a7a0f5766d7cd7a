# ruff: noqa: SIM115
"""Files of every sort: deleted but open, appended, locked, a deleted file of the image, links, a fifo, extended
attributes.
"""

import fcntl
import os
import tempfile
import time

os.unlink("/work/train.py")
ghost = tempfile.TemporaryFile(dir="/work")
lasting = open("/work/append.txt", "a+b")
fcntl.flock(lasting, fcntl.LOCK_EX)
os.mkfifo("/work/fifo")
fifo = os.open("/work/fifo", os.O_RDWR)
os.mkdir("/work/tree")
os.symlink("append.txt", "/work/link")
os.link("/work/append.txt", "/work/hard")
kept = open("/checkpoint/state.txt", "a+b")
for step in range(1, 100_000):
    line = f"{step:09d}\n".encode()
    for file in (ghost, lasting, kept):
        file.seek(0, 2)
        file.write(line)
        file.flush()
        file.seek(0)
        assert file.read() == b"".join(f"{n:09d}\n".encode() for n in range(1, step + 1)), file.name
    os.write(fifo, line)
    assert os.read(fifo, 100) == line
    os.rename("/work/tree", "/work/tree2")
    os.rename("/work/tree2", "/work/tree")
    with open(f"/work/tree/{step % 7}", "wb") as small:
        small.write(line)
    assert not os.path.exists("/work/train.py")
    assert os.stat("/work/hard").st_ino == os.fstat(lasting.fileno()).st_ino == os.stat("/work/link").st_ino
    print("ok", step, flush=True)
    time.sleep(0.05)
