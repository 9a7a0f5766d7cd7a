"""Four threads in step with a barrier; each keeps its own count in thread-local state."""

import threading
import time

WORKERS = 4
barrier = threading.Barrier(WORKERS + 1)
counts = [0] * WORKERS
local = threading.local()


def work(index):
    local.count = 0
    while True:
        local.count += 1
        counts[index] = local.count
        barrier.wait()
        barrier.wait()


for index in range(WORKERS):
    threading.Thread(target=work, args=(index,), daemon=True).start()
for step in range(1, 100_000):
    barrier.wait()
    assert counts == [step] * WORKERS, counts
    print("ok", step, flush=True)
    time.sleep(0.05)
    barrier.wait()
