# SPDX-License-Identifier: Apache-2.0
"""A forward proxy that tunnels (CONNECT) and does nothing else: `connect_proxy.py PORT LOG`, one line a tunnel."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading
from pathlib import Path

HEAD = 16 * 1024


def pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way until that way ends."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Tunnel(socketserver.BaseRequestHandler):
    """One client."""

    def handle(self) -> None:
        """Read the request up to its blank line, connect, carry both ways."""
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD:
            chunk = self.request.recv(4096)
            if not chunk:
                return
            head += chunk
        method, target = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ")[:2]
        with LOG.open("a", encoding="ascii") as log:
            log.write(f"{method} {target}\n")
        host, _, port = target.rpartition(":")
        if method != "CONNECT":
            self.request.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            far = socket.create_connection((host.strip("[]"), int(port)), 10)
        except OSError:
            self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with far:
            far.settimeout(None)
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(far, self.request), daemon=True)
            back.start()
            pump(self.request, far)
            back.join()


class Server(socketserver.ThreadingTCPServer):
    """Listens on all addresses of the host."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    LOG = Path(sys.argv[2])
    with Server(("", int(sys.argv[1])), Tunnel) as server:
        server.serve_forever()
