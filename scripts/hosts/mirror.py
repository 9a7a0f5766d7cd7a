"""What guests install from: the bench's wheels, and Debian as this machine's own apt finds it, by HTTP at 10.0.2.2."""

import html
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hosts.guest import Guest
from hosts.images import archive_uri, machine_codename
from hosts.kinds import Kind


class Mirror:
    """Serves ``wheels`` at /wheels/ and the Debian archive at /debian/ on the loopback, in a thread."""

    def __init__(self, wheels: Path) -> None:
        archive = archive_uri(machine_codename())

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/debian/"):
                    self._relay(archive + self.path.removeprefix("/debian"))
                elif self.path.rstrip("/") == "/wheels":
                    names = sorted(path.name for path in wheels.iterdir())
                    page = "".join(f'<a href="{html.escape(name)}">{html.escape(name)}</a>\n' for name in names)
                    self._answer(200, page.encode(), "text/html")
                else:
                    file = wheels / Path(self.path).name
                    self._answer(200, file.read_bytes()) if file.is_file() else self._answer(404, b"")

            def _relay(self, url: str) -> None:
                try:
                    with urllib.request.urlopen(url, timeout=60) as answer:
                        self._answer(200, answer.read())
                except urllib.error.HTTPError as error:
                    self._answer(error.code, b"")
                except OSError:
                    self._answer(502, b"")

            def _answer(self, code: int, body: bytes, kind: str = "application/octet-stream") -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def files(self, kind: Kind, address: str = "10.0.2.2") -> dict[str, str]:
        """What pip and apt of a host are told: about this mirror, and nothing else. Path → text."""
        base = f"http://{address}:{self.port}"
        return {
            "etc/pip.conf": f"[global]\nno-index = true\nfind-links = {base}/wheels/\ntrusted-host = {address}\n",
            "etc/apt/sources.list": "".join(f"deb {base}/debian {suite} main\n" for suite in (kind.suite, *kind.extra)),
            "etc/apt/preferences.d/bench": "".join(
                f"Package: *\nPin: release n={suite}\nPin-Priority: 100\n\n" for suite in kind.extra
            ),
            "etc/apt/apt.conf.d/90bench": ('Acquire::Check-Valid-Until "false";\nAPT::Install-Recommends "false";\n'),
        }

    def configure(self, guest: Guest, kind: Kind) -> None:
        """Tell a guest that runs where the mirror is now."""
        for path, text in self.files(kind).items():
            guest.must(f"cat > /{path}", stdin=text.encode())
