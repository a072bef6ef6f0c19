"""Runs the admin application: uvicorn in a thread of the supervisor, so that a slow scrape delays nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable

import uvicorn

from fastpixel import sockets
from fastpixel.admin.app import application
from fastpixel.config import Config
from fastpixel.metrics import Counts


class AdminListener:
    """Bound when made (an address in use is an error at start), serving from `start` to `stop`."""

    def __init__(self, config: Config, counts: Counts, is_ready: Callable[[], bool]) -> None:
        self.url = ""
        self._thread: threading.Thread | None = None
        bind = config.admin_bind
        if bind is None:
            return
        self._sock = sockets.listen(bind, 1, "--admin-bind")[0]
        self.url = sockets.url(self._sock)
        app = application(counts, is_ready, bind.host)
        # Signals are the supervisor's: uvicorn leaves them alone outside the main thread.
        settings = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, args=([self._sock],), name="admin", daemon=True)

    def start(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
