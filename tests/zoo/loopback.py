"""A server and its client in one container: the connection made first must live on, the listener must take new ones."""

import os
import socket
import threading
import time

server = socket.create_server(("0.0.0.0", 7000))


def serve():
    while True:
        peer, _ = server.accept()
        threading.Thread(target=echo, args=(peer,), daemon=True).start()


def echo(peer):
    while data := peer.recv(100):
        peer.sendall(data[::-1])


threading.Thread(target=serve, daemon=True).start()
own = socket.gethostbyname(socket.gethostname())
lasting = [socket.create_connection(("127.0.0.1", 7000)), socket.create_connection((own, 7000))]
left, right = socket.socketpair()
host = socket.gethostname()
for step in range(1, 100_000):
    message = f"step-{step}".encode()
    with socket.create_connection((own, 7000)) as fresh:
        for link in (*lasting, fresh):
            link.sendall(message)
            assert link.recv(100) == message[::-1]
    left.sendall(message)
    assert right.recv(100) == message
    assert (socket.gethostname(), socket.gethostbyname(host)) == (host, own), os.uname()
    print("ok", step, flush=True)
    time.sleep(0.05)
