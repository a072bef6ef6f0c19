"""What a Python team would write instead: the constant GIF on uvicorn, granian and socketify. Nothing is stored.

One application for each server's fastest interface: ASGI without a framework, RSGI, and socketify's own. A server
finds its application here by name; socketify has no launcher of its own: `python bench/constant.py PORT`.
"""

import sys

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"image/gif"), (b"content-length", b"43")],
}
BODY = {"type": "http.response.body", "body": GIF}
HEADERS = [("content-type", "image/gif")]  # the server itself adds the length


async def asgi(_scope, _receive, send) -> None:
    await send(START)
    await send(BODY)


async def rsgi(_scope, protocol) -> None:
    protocol.response_bytes(200, HEADERS, GIF)


def gif(response, _request) -> None:
    response.write_header("Content-Type", "image/gif")
    response.end(GIF)


def socketify(port: int) -> None:
    from socketify import App, AppListenOptions

    app = App(lifespan=False)
    app.get("/*", gif)
    app.listen(AppListenOptions(port, "127.0.0.1"), lambda _: None)
    app.run()


if __name__ == "__main__":
    socketify(int(sys.argv[1]))
