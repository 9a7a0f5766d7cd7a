"""Two connections to a server outside, named in argv; one talks, one only listens. After a move both must see an
error, then dial again.
"""

import socket
import sys
import threading
import time

address = (sys.argv[1], int(sys.argv[2]))
cut = {"talker": 0, "listener": 0}
asked = threading.Event()


def dial():
    while True:
        try:
            return socket.create_connection(address, timeout=5)
        except OSError:
            time.sleep(0.1)


def listen():
    while True:
        with dial() as link:
            link.settimeout(None)
            try:
                while link.recv(100):
                    pass
            except OSError:
                pass
        cut["listener"] += 1


threading.Thread(target=listen, daemon=True).start()
talker = dial()
for step in range(1, 100_000):
    message = f"step-{step}".encode()
    while True:
        try:
            talker.sendall(message)
            assert talker.recv(100) == message
            break
        except OSError:
            cut["talker"] += 1
            talker = dial()
    print("ok", step, cut["talker"], cut["listener"], flush=True)
    time.sleep(0.05)
