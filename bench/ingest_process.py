"""The collector that ``bench_ingest`` measures: receives and drains in one process."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import uvicorn

from collectors.drainer import Drainer, DrainReport
from collectors.journal import Journal
from collectors.otlp_http import otlp_app
from loop.lake import Lake
from loop.ledger.prices import load_price_book


def main(directory: Path) -> None:
    lake = Lake.open(str(directory / "lake"))
    with (
        Journal(directory / "journal") as journal,
        Drainer(journal, lake, load_price_book()) as drainer,
    ):
        config = uvicorn.Config(
            otlp_app(journal), host="127.0.0.1", port=0, log_level="critical", http="httptools"
        )
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.01)
        print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
        reports: list[DrainReport] = []
        finish = threading.Event()

        def drain() -> None:
            while not finish.wait(0.5):
                reports.append(drainer.drain_once())

        thread = threading.Thread(target=drain)
        cpu_before = time.process_time()
        thread.start()
        sys.stdin.readline()
        finish.set()
        thread.join()
        while not drainer.is_drained():
            reports.append(drainer.drain_once())
        result = {
            "stored": sum(report.stored for report in reports),
            "turns": lake.query("SELECT count(*) AS n FROM turns")[0]["n"],
            "cpu_seconds": round(time.process_time() - cpu_before, 2),
        }
        print(json.dumps(result), flush=True)
        sys.stdin.read()
        server.should_exit = True


if __name__ == "__main__":
    main(Path(sys.argv[1]))
