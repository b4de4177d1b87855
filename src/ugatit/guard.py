"""What stands between a web page and strangers: whom it answers, how much it takes in, and how long it waits.

`Guard` goes around any ASGI application, and `run` serves one behind it. Neither knows what the application does.
"""

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ugatit.errors import UserError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # addresses to listen on that are nobody's name
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
CONNECTIONS = 256  # open at a time
BODIES = 32  # requests with a body at a time, from its first byte to the end of the answer
SILENCE = 10.0  # seconds that a client may keep still in the middle of a request's head or body, or of an answer
WHOLE = 120.0  # seconds that a body may take
LONGEST = 1800.0  # seconds that an answer may take; the page's stream of news lasts as long as its visitor waits
SMALL = 2**16  # bytes of a body that is no upload

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class RefusalError(Exception):
    """A request that is turned away: an HTTP status and a sentence that says why."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class GoneError(Exception):
    """Whoever asked has hung up; there is nobody to answer."""


@dataclass(frozen=True)
class Rules:
    """What a guard lets through."""

    policy: str
    """The content security policy of all answers."""
    names: Collection[str] = ()
    """Names and addresses that the server may be called by, besides those of loopback and the one that is asked."""
    host: str = "127.0.0.1"
    """Address that the server listens on."""
    uploads: Collection[str] = ()
    """Paths that take pictures; all others take `SMALL` bytes."""
    upload: int = SMALL
    """Bytes of the largest body of those paths."""
    together: int = 4
    """Largest uploads that are taken in at a time: so many bytes are held at most."""
    known: re.Pattern[str] = re.compile("")
    """Beginnings of the paths that exist."""


class Guard:
    """ASGI middleware: refuses whom the rules do not name, and holds bodies whole before the application sees them.

    A body is read here, within bounds of its own size, of the size and number of all bodies together, and of time, so
    that the application never waits for a client. Every answer gets the headers that browsers need to be careful.

    Args:
        app: the application.
        rules: what is let through.

    Raises:
        UserError: one of the names is none.
    """

    def __init__(self, app: Application, rules: Rules):
        self.app, self.rules = app, rules
        self.given = {name.lower() for name in rules.names}
        for name in self.given:
            if not HOST.fullmatch(name) or ":" in name:
                raise UserError(f"--names {name} is not the name of a host: give it without scheme, port and path.")
        self.hosts = {*LOOPBACK, *self.given, rules.host.lower()}
        self.bodies = self.bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        started, data = False, None

        async def safer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = with_headers(message.get("headers", []), self.rules.policy)
            await send(message)

        try:
            headers = headers_of(scope)
            self.check_host(scope, headers)
            if not self.rules.known.match(scope["path"]):
                raise RefusalError(404, "There is nothing at this address: begin at the page itself.")
            most = self.rules.upload if scope["path"] in self.rules.uploads else SMALL
            with self.room(headers, most):
                data = await body_of(receive, most)
                async with asyncio.timeout(LONGEST):
                    await self.app(scope, once(data, receive), safer)
        except RefusalError as refusal:
            if data is None:
                await pour_away(receive)
            await answer(safer, refusal)
        except GoneError:
            return None
        except TimeoutError:
            if not started:
                await answer(safer, RefusalError(503, "This takes too long: try again in a while."))
        except Exception as error:
            if started:
                raise
            logging.getLogger(__name__).error("%s %s failed: %r", scope["method"], scope["path"], error)
            await answer(safer, RefusalError(500, "Something went wrong here: try another picture."))
        return None

    def check_host(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        """Raises RefusalError if a request is meant for another server, or comes from another site's page.

        A page of a foreign site can send requests to this machine by a name of its own that leads here (DNS rebinding),
        or simply by our address; browsers tell the name in ``Host`` and the page in ``Origin`` and ``Sec-Fetch-Site``.
        """
        (host, *more) = headers.get("host") or [""]
        found = HOST.fullmatch(host.lower())
        name = found[1].strip("[]") if found else ""
        arrived = (scope.get("server") or ("", 0))[0].removeprefix("::ffff:")
        if more or not name or not (name in self.hosts or name == arrived):
            raise RefusalError(
                403, f"This server is not called {name or 'that'}: use its address, or start it with --names."
            )
        foreign = [origin for origin in headers.get("origin", []) if not self.own(origin.lower(), host.lower())]
        site = headers.get("sec-fetch-site", ["none"])
        visit = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") == ["document"]
        linked = visit and scope["method"] in ("GET", "HEAD")  # somebody follows a link to the page
        if foreign or not (linked or set(site) <= {"same-origin", "none"}):
            raise RefusalError(403, "This request comes from another site's page: open the page of this server itself.")

    def own(self, origin: str, host: str) -> bool:
        """Whether a page at ``origin`` is this server's, which was asked for by the name ``host``."""
        _, _, place = origin.partition("://")
        found = HOST.fullmatch(place)
        return place == host or (found is not None and found[1].strip("[]") in self.given)

    @contextmanager
    def room(self, headers: dict[str, list[str]], most: int) -> Iterator[None]:
        """Room for a request's body until its answer is sent.

        Raises:
            RefusalError: the body is too large, or there are too many.
        """
        if "content-length" not in headers and "transfer-encoding" not in headers:
            yield
            return
        size = most
        if "transfer-encoding" not in headers:
            digits = headers["content-length"][0]
            size = int(digits) if digits.isdecimal() and len(digits) < 16 else most + 1
        check_size(size, most)
        if self.bodies >= BODIES or self.bytes + size > self.rules.together * max(self.rules.upload, SMALL):
            raise RefusalError(503, "Too many uploads are coming in: try again in a while.")
        self.bodies, self.bytes = self.bodies + 1, self.bytes + size
        try:
            yield
        finally:
            self.bodies, self.bytes = self.bodies - 1, self.bytes - size


def check_size(size: int, most: int) -> None:
    """Raises RefusalError if a body of ``size`` bytes is too large."""
    if size > most:
        raise RefusalError(413, f"The upload is larger than {most / 2**20:.3g} MiB: send a smaller file.")


async def body_of(receive: Receive, most: int) -> bytes:
    """A request's body, given up as soon as it is too large or too slow.

    Raises:
        RefusalError: it is.
        GoneError: the client hung up.
    """
    loop = asyncio.get_running_loop()
    data, end, more = bytearray(), loop.time() + WHOLE, True
    while more:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + SILENCE)):
                message = await receive()
        except TimeoutError:
            raise RefusalError(408, "The upload stands still or is too slow: send it again.") from None
        if message["type"] == "http.disconnect":
            raise GoneError
        data += message.get("body", b"")
        check_size(len(data), most)
        more = message.get("more_body", False)
    return bytes(data)


async def pour_away(receive: Receive) -> None:
    """Take in the rest of a refused body for a while and keep nothing: who still sends does not read an answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SILENCE):
            while (await receive()).get("more_body", False):
                pass


def once(data: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then what comes after it."""
    left = [data]

    async def again() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return again


def headers_of(scope: Scope) -> dict[str, list[str]]:
    """A request's headers: all values of each name."""
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def with_headers(headers: Iterable[tuple[bytes, bytes]], policy: str) -> list[tuple[bytes, bytes]]:
    """An answer's headers and ours, which replace others of their names."""
    ours = {name.encode(): value.encode() for name, value in (HEADERS | {"content-security-policy": policy}).items()}
    return [(name, value) for name, value in headers if name.lower() not in ours] + list(ours.items())


async def answer(send: Send, refusal: RefusalError) -> None:
    """Send a refusal as JSON, and hang up: the rest of what was sent is not read."""
    from starlette.responses import JSONResponse

    headers = {"connection": "close"} | ({"retry-after": "10"} if refusal.status == 503 else {})
    response = JSONResponse({"error": refusal.sentence}, refusal.status, headers)
    await response({"type": "http"}, once(b"", asyncio.Event().wait), send)  # type: ignore[arg-type]


# Serving


def patient_protocol() -> type:
    """uvicorn's HTTP protocol with an end to its patience: connections are counted, and none stands still for long."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        """A connection that is closed when its client sends half a head, or does not take its answer."""

        watch: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.since, self.unsent = self.loop.time(), 0
            if len(self.connections) > CONNECTIONS:
                transport.abort()
            else:
                self.look()

        def look(self) -> None:
            """Close the connection if nothing has moved for too long; else look again in a while."""
            unsent = self.transport.get_write_buffer_size()
            answering = self.cycle is not None and not self.cycle.response_complete
            if (answering and not unsent) or unsent < self.unsent:
                self.since = self.loop.time()
            self.unsent = unsent
            if self.loop.time() - self.since > SILENCE:
                self.transport.abort()
            else:
                self.watch = self.loop.call_later(SILENCE / 4, self.look)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.watch is not None:
                self.watch.cancel()
            super().connection_lost(exc)

    return Patient


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        UserError: it is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # whoever comes now waits until the server is there
    except OSError as error:
        found.close()
        raise UserError(f"--host {host} --port {port} cannot be used ({error.strerror}): give another.") from None
    return found


def server(app: Application, rules: Rules) -> Any:
    """A uvicorn server of an application behind a guard.

    Raises:
        UserError: one of the rules' names is none.
    """
    import uvicorn

    config = uvicorn.Config(
        Guard(app, rules),
        http=patient_protocol(),
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=3,  # seconds; a page that is open somewhere never lets go by itself
    )
    return uvicorn.Server(config)


def run(app: Application, rules: Rules, port: int, say: Callable[[str], None]) -> None:
    """Serve an application behind a guard until Ctrl-C.

    Raises:
        UserError: the address cannot be used, or one of the rules' names is none.
    """
    found = server(app, rules)
    with listen(rules.host, port) as bound:
        shown = "127.0.0.1" if rules.host in EVERYWHERE else rules.host
        shown = f"[{shown}]" if ":" in shown else shown
        say(f"http://{shown}:{bound.getsockname()[1]}/  (Ctrl-C ends it)")
        found.run(sockets=[bound])
