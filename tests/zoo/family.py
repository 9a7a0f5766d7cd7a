"""A large child that does nothing, and a parent that counts and never asks after it."""

import os
import signal
import time

if os.fork() == 0:
    memory = os.urandom(1 << 20) * 200
    while True:
        signal.pause()
for step in range(1, 100_000):
    print("ok", step, flush=True)
    time.sleep(0.05)
