"""Nothing but a counter, as fast as it prints: shows that no step runs after a last checkpoint."""

import time

for step in range(1, 10_000_000):
    print("ok", step, flush=True)
    time.sleep(0.002)
