"""Pages of a customer's web server: another origin than the collector's, and another site if the name says so.

Chromium takes every name below `.localhost` for this machine, so `shop.localhost` and `data.shop.localhost` are one
site, and `localhost` or `127.0.0.1` is another. A page may have headers of its own; a folder is served as it is.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript"}


class Page(NamedTuple):
    body: bytes
    type: str = TYPES[".html"]
    headers: tuple = ()


class Site:
    """`with Site() as site:`; pages may be added while it runs, and `requests` are the targets that were asked for."""

    def __init__(self, folders=None):
        self.pages, self.folders, self.requests = {}, folders or {}, []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.requests.append(self.path)
                found = site.find(self.path.partition("?")[0])
                self.send_response(200 if found else 404)
                page = found or Page(b"not found", "text/plain")
                for name, value in (("Content-Type", page.type), ("Content-Length", len(page.body)), *page.headers):
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(page.body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def url(self, path="/", host="127.0.0.1"):
        return f"http://{host}:{self.server.server_port}{path}"

    def page(self, body, path="/page", host="127.0.0.1", headers=()):
        """Adds a page with this in its body; gives its address."""
        head = '<meta charset="utf-8"><link rel="icon" href="data:,"><title>A page</title>'
        text = f"<!doctype html>{head}<body>{body}</body>"
        self.pages[path] = Page(text.encode(), headers=tuple(headers))
        return self.url(path, host)

    def find(self, path):
        if path in self.pages:
            return self.pages[path]
        folder, _, name = path.strip("/").rpartition("/")
        file = Path(self.folders.get(folder, "")) / name
        return Page(file.read_bytes(), TYPES[file.suffix]) if folder in self.folders and file.is_file() else None
