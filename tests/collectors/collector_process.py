"""A collector that drains while it receives, in a process of its own: something to kill.

Run as ``python -m tests.collectors.collector_process DIRECTORY``; prints its port.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from collectors.otlp_http import otlp_app
from tests.collectors.pipeline import pipeline
from tests.fakes.asgi_server import running_server


def main(directory: Path) -> None:
    with pipeline(directory) as parts, running_server(otlp_app(parts.journal)) as url:
        print(url, flush=True)

        def drain() -> None:
            while True:
                parts.drainer.drain_once()
                time.sleep(0.05)

        threading.Thread(target=drain, daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
