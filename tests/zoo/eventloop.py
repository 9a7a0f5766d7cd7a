"""An event loop: epoll, a timer, a signal handler, a child process, monotonic time that never jumps."""

import asyncio
import os
import signal
import time


async def main():
    ticks = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ticks.put_nowait, "tick")
    child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    before = time.monotonic()
    for step in range(1, 100_000):
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(30):
            assert await ticks.get() == "tick"
        child.stdin.write(f"{step}\n".encode())
        await child.stdin.drain()
        async with asyncio.timeout(30):
            assert await child.stdout.readline() == f"{step}\n".encode()
        now = time.monotonic()
        assert before < now < before + 60, (before, now)
        before = now
        print("ok", step, flush=True)
        await asyncio.sleep(0.05)


asyncio.run(main())
