"""Shared memory between two processes: /dev/shm, an anonymous mapping, a memfd, a file on tmpfs."""

import mmap
import os
import struct
import time

size = 1 << 20
named = os.open("/dev/shm/zoo", os.O_RDWR | os.O_CREAT)
os.ftruncate(named, size)
memfd = os.memfd_create("zoo")
os.ftruncate(memfd, size)
regions = [mmap.mmap(named, size), mmap.mmap(memfd, size), mmap.mmap(-1, size)]
ping, pong = os.pipe(), os.pipe()
if os.fork() == 0:
    while os.read(ping[0], 1):
        for region in regions:
            (value,) = struct.unpack_from("q", region, 4096)
            struct.pack_into("q", region, size - 8, value + 1)
        os.write(pong[1], b"x")
for step in range(1, 100_000):
    for region in regions:
        struct.pack_into("q", region, 4096, step)
    os.write(ping[1], b"x")
    os.read(pong[0], 1)
    for region in regions:
        assert struct.unpack_from("q", region, size - 8) == (step + 1,)
    if step > 1:
        with open("/dev/shm/text") as text:
            assert text.read() == str(step - 1)
    with open("/dev/shm/text", "w") as text:
        text.write(str(step))
    print("ok", step, flush=True)
    time.sleep(0.05)
