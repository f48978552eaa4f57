"""Shows a folder in the browser, to this machine only."""

from __future__ import annotations

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kdbench.base.errors import UserError


def serve(folder: Path, port: int = 8000) -> None:
    """Serve ``folder`` at http://127.0.0.1:<port>/ until interrupted; port 0 takes a free one and prints it.

    Raises:
        UserError: no site there, or the port is taken.
    """
    if not (folder / "index.html").is_file():
        raise UserError(f"{folder} holds no site; `kdbench site build` makes one")
    try:
        server = server_for(folder, port)
    except OSError as error:
        raise UserError(f"cannot listen on port {port}: {error.strerror}; name another with --port") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ shows {folder}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def server_for(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the folder's files, bound to this machine."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Quiet, directory=str(folder)))


class _Quiet(SimpleHTTPRequestHandler):
    """No line a request."""

    def log_message(self, format: str, *args: object) -> None:
        pass
