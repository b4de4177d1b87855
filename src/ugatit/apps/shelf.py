"""The pictures of the page of `ugatit serve`, on a shelf of their own instead of gradio's cache."""

import json
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from ugatit.apps.guard import SMALL, Receive, RefusalError, Scope, Send, body_of, once

ENTRY = 4096  # bytes of the disk that a file takes at least
API = "/gradio_api"
JOIN = f"{API}/queue/join"


class Shelf:
    """The page's pictures, as files that only this user can read, under names that nobody can guess.

    A name is known to the page that sent or was sent the picture, and to nobody else. The oldest pictures make room.

    Args:
        most: bytes that all files have together.
    """

    def __init__(self, most: int):
        self.most = most
        self.temporary = tempfile.TemporaryDirectory(prefix="ugatit-")  # readable by its owner only
        self.sizes: dict[str, int] = {}  # by path, the oldest first
        self.kept: set[str] = set()  # paths of what stays
        self.bytes = 0
        self.lock = threading.Lock()

    def keep(self, data: bytes, name: str) -> str:
        """Keep a file for good, which is no visitor's; returns its path."""
        folder = Path(self.temporary.name) / secrets.token_hex(20)
        folder.mkdir(mode=0o700)
        (folder / name).write_bytes(data)
        self.kept.add(str(folder / name))
        return str(folder / name)

    def put(self, data: bytes, name: str) -> str:
        """Keep a file while there is room; returns its path.

        Raises:
            RefusalError: it is empty.
        """
        if not data:
            raise RefusalError(422, "The file is empty: send another.")
        folder = Path(self.temporary.name) / secrets.token_hex(20)
        with self.lock:
            size = len(data) + ENTRY
            while self.sizes and self.bytes + size > self.most:
                oldest = next(iter(self.sizes))
                self.bytes -= self.sizes.pop(oldest)
                shutil.rmtree(Path(oldest).parent, ignore_errors=True)
            folder.mkdir(mode=0o700)
            (folder / name).write_bytes(data)
            self.sizes[str(folder / name)] = size
            self.bytes += size
        return str(folder / name)

    def get(self, path: Any) -> bytes:
        """The contents of a file that was put here.

        Raises:
            RefusalError: that path was never given out, or its file made room.
        """
        with self.lock:
            self.check(path)
            return Path(path).read_bytes()

    def check(self, path: Any) -> None:
        """Raises RefusalError if a path was never given out, or its file made room."""
        if not isinstance(path, str) or (path not in self.sizes and path not in self.kept):
            raise RefusalError(404, "There is no such picture here any more: send it again.")


def add_files(app: Any, shelf: Shelf) -> None:
    """Serve the page's pictures from the shelf, at the addresses where gradio would serve its own cache."""
    from fastapi import Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response

    @app.post(f"{API}/upload", include_in_schema=False)
    async def upload(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=0) as form:
            for sent in form.values():
                if not isinstance(sent, str):
                    data = await sent.read()
                    return JSONResponse([await run_in_threadpool(shelf.put, data, "picture")])
            raise RefusalError(422, "The form holds no file: send one.")

    @app.get(f"{API}/upload_progress", include_in_schema=False)
    def progress() -> Response:
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    @app.api_route(f"{API}/file={{path:path}}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(path: str) -> Response:
        shelf.check(path)
        kind = "image/png" if path.endswith(".png") else "application/octet-stream"
        return FileResponse(path, media_type=kind, headers={"cache-control": "private, max-age=3600"})


class OnlyShelf:
    """ASGI middleware: of the files that the page's requests name, only those on the shelf reach gradio.

    Args:
        app: the application.
        shelf: the files.
    """

    def __init__(self, app: Any, shelf: Shelf):
        self.app, self.shelf = app, shelf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] == JOIN:
            data = await body_of(receive, SMALL)
            self.check(data)
            receive = once(data, receive)
        await self.app(scope, receive, send)

    def check(self, data: bytes) -> None:
        """Raises RefusalError if a request names a file that is not on the shelf, or is no JSON."""
        try:
            left = [json.loads(data)]
        except (ValueError, RecursionError):
            raise RefusalError(422, "The request is not JSON: reload the page.") from None
        while left:
            part = left.pop()
            if isinstance(part, dict):
                if "path" in part:
                    self.shelf.check(part["path"])
                left += part.values()
            elif isinstance(part, list):
                left += part
