"""A server of one file on 127.0.0.1, for tests of downloads and of what goes wrong with them."""

import contextlib
import http.server
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

CONTENT = bytes(range(256)) * 1000


@dataclass
class Site:
    """A server of one file, and how it behaves; it notes the headers and the path of each request."""

    content: bytes = CONTENT
    cut: int | None = None  # bytes of an answer, after which the connection breaks
    stall: bool = False  # instead of breaking
    answer: tuple | None = None  # a status, and bytes
    chunked: bool = False
    length: bool = True  # tell it
    url: str = ""
    requests: list = field(default_factory=list)
    paths: list = field(default_factory=list)  # of the requests
    before: Callable = lambda: None  # called before each answer

    def reply(self, request):
        self.requests.append(dict(request.headers))
        self.paths.append(request.path)
        self.before()
        status, body = self.answer or (200, self.content)
        request.send_response(status)
        if self.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        elif self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        sent = body if self.cut is None else body[: self.cut]
        request.wfile.write(b"%x\r\n" % len(body) + sent if self.chunked else sent)
        if self.chunked and self.cut is None:
            request.wfile.write(b"\r\n0\r\n\r\n")
        request.wfile.flush()
        if self.stall:
            self.released.wait(20)


@contextlib.contextmanager
def serving(**behaviour):
    site = Site(**behaviour)
    site.released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.close_connection = True
            with contextlib.suppress(OSError):  # who asked may be gone
                site.reply(self)

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}/a.bin"
        try:
            yield site
        finally:
            site.released.set()
            server.shutdown()
            thread.join()
