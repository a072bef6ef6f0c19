"""What the admin listener answers: /health, /ready, /metrics.

/health: 200 while every worker's event loop turns, else 503. /ready: 200 while new requests should come here. Both say
why as one JSON object. A request whose Host is not this machine's is refused: a web page that has its own name resolve
to 127.0.0.1 must not read the metrics.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastpixel.metrics import Collector, Counts


class KnownHosts:
    """Lets through requests for an address, localhost, this machine's name, or the name it is bound to."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", socket.gethostname().lower(), host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and not self.admits(headers.get(b"host", b"").decode("latin-1")):
            response = PlainTextResponse("unknown Host: ask for an address or for localhost\n", 421)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def admits(self, host: str) -> bool:
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True


def application(counts: Counts, is_ready: Callable[[], bool], host: str) -> Starlette:
    """The ASGI application over the shared page."""
    registry = CollectorRegistry()
    collector = Collector(counts)
    registry.register(collector)

    async def health(_: Request) -> Response:
        parts = counts.workers()
        body = {"workers": [{"state": part.state, "alive": part.is_alive} for part in parts]}
        return JSONResponse(body, 200 if all(part.is_alive for part in parts) else 503)

    async def ready(_: Request) -> Response:
        fine = is_ready()
        workers = [{"state": part.state, "storable": bool(part["storable"])} for part in counts.workers()]
        return JSONResponse({"ready": fine, "workers": workers}, 200 if fine else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
    return Starlette(routes=routes, middleware=[Middleware(KnownHosts, host=host)])
