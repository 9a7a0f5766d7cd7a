"""A child, a grandchild in a session of its own, and pipes between them; pids must stay."""

import os
import struct
import time


def relay(source, sink, *, leave_session):
    if leave_session:
        os.setsid()
    born = os.getpid()
    while True:
        (value,) = struct.unpack("q", os.read(source, 8))
        assert os.getpid() == born
        os.write(sink, struct.pack("q", value * 2))


def spawn(leave_session):
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        relay(down[0], up[1], leave_session=leave_session)
    return pid, down[1], up[0]


children = [spawn(False), spawn(True)]
for step in range(1, 100_000):
    value = step
    for pid, to_child, from_child in children:
        os.write(to_child, struct.pack("q", value))
        (value,) = struct.unpack("q", os.read(from_child, 8))
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    assert value == 4 * step, value
    print("ok", step, flush=True)
    time.sleep(0.05)
