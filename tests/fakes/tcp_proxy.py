"""A network that goes away: passes TCP connections on while up, refuses them while down.

``python -m tests.fakes.tcp_proxy http://HOST:PORT`` prints its port, then does as it is told on its
standard input (``up``, ``down``), answering each word with the same.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress


class Proxy:
    """Passes connections on to the store while it is up, and refuses them while it is down."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.up()

    def up(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """As when the store's machine goes: nothing listens, and open connections end."""
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                store = socket.create_connection(self._target)
                for source, sink in ((client, store), (store, client)):
                    self._open.add(source)
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


def main(endpoint: str) -> None:
    proxy = Proxy(endpoint)
    print(proxy.port, flush=True)
    for line in sys.stdin:
        if line.strip() == "down":
            proxy.down()
        else:
            proxy.up()
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
