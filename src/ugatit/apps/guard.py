"""What stands between a web page and strangers: whom it answers, how much it takes in, and how long it waits.

`Guard` goes around any ASGI application, and `run` serves one behind it. Neither knows what the application does.
"""

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ugatit.io.errors import UserError
from ugatit.io.terminal import say

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
SHARE = 4  # the part of connections and bodies that one address of another machine may have
SILENCE = 10.0  # seconds that a client may keep still in the middle of a request's head or body, or of an answer
RATE = 2**15  # bytes a second that a body or an answer moves at least, after that
PIECE = 2**16  # bytes of an answer that are sent at a time
WHOLE = 120.0  # seconds that a body may take
LONGEST = 1800.0  # seconds that an answer may take; the page's stream of news lasts as long as its visitor waits
SMALL = 2**16  # bytes of a body that is no upload
FAILED = "Something went wrong here: try again, or something else."

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
    framed: bool = False
    """Whether other sites may show the page within theirs; the policy says which."""


class Guard:
    """ASGI middleware: refuses whom the rules do not name, and holds bodies whole before the application sees them.

    A body is read here, within bounds of its own size, of the size and number of all bodies together, and of time, so
    that the application never waits for a client; one address of another machine gets a share. Every answer gets the
    headers that browsers need to be careful.

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
        self.bytes = 0  # that all bodies have or may come to
        self.holders = Counter[str]()  # bodies by the address that sent them
        self.open = Counter[str]()  # requests that are not answered yet, by the address that asks, a proxy's left aside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        reply = Reply(send, self.rules.policy)
        waiting = True  # for the body, or its end
        try:
            headers = headers_of(scope)
            self.check_host(scope, headers)
            self.check_path(scope)
            with self.counted(scope), self.room(scope, headers) as body:
                data = await body_of(receive, body.most)
                waiting = False
                self.bytes -= body.size - len(data)  # the room that it did not need
                body.size = len(data)
                # A proxy's word on names and schemes was heard by the server already, if it is to be heard.
                scope["headers"] = [(name, value) for name, value in scope["headers"] if not name.startswith(b"x-")]
                async with asyncio.timeout(LONGEST):
                    await self.app(scope, once(data, receive), reply)
            if reply.failed:
                raise RefusalError(500, FAILED)
        except RefusalError as refusal:
            if waiting and refusal.status != 408:
                await pour_away(receive)
            await reply.refuse(refusal)
        except (GoneError, TimeoutError):
            await reply.refuse(RefusalError(503, "This takes too long: try again in a while."))
        except Exception as error:
            logging.getLogger(__name__).error("%s %.200s failed: %r", scope["method"], scope["path"], error)
            await reply.refuse(RefusalError(500, FAILED))
        return None

    @contextmanager
    def counted(self, scope: Scope) -> Iterator[None]:
        """Within this block a request counts among the open ones of its address.

        Raises:
            RefusalError: that has its share already.
        """
        who = address_of(scope)
        if who and self.open[who] >= CONNECTIONS // SHARE:
            raise RefusalError(503, "Too many requests come from your address: try again in a while.")
        self.open[who] += 1
        try:
            yield
        finally:
            self.open[who] -= 1
            if not self.open[who]:
                del self.open[who]

    def check_path(self, scope: Scope) -> None:
        """Raises RefusalError if there is nothing at a request's path, or nothing to do there."""
        if not scope["path"].isprintable() or not self.rules.known.match(scope["path"]):
            raise RefusalError(404, "There is nothing at this address: begin at the page itself.")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            raise RefusalError(405, "Addresses here are read (GET) or sent to (POST): use one of these.")

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
                403, f"This server is not called {name[:80] or 'that'}: use its address, or start it with --names."
            )
        foreign = [origin for origin in headers.get("origin", []) if not self.own(origin.lower(), host.lower())]
        site = headers.get("sec-fetch-site", ["none"])
        places = ["document"], *([["iframe"]] if self.rules.framed and scope["path"] == "/" else [])
        visit = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") in places
        linked = visit and scope["method"] in ("GET", "HEAD")  # somebody follows a link to the page, or a site shows it
        if foreign or not (linked or set(site) <= {"same-origin", "none"}):
            raise RefusalError(403, "This request comes from another site's page: open the page of this server itself.")

    def own(self, origin: str, host: str) -> bool:
        """Whether a page at ``origin`` is this server's, which was asked for by the name ``host``."""
        _, _, place = origin.partition("://")
        return place == host or place in self.given

    @contextmanager
    def room(self, scope: Scope, headers: dict[str, list[str]]) -> Iterator["Body"]:
        """Room for a request's body until its answer is sent.

        Raises:
            RefusalError: the body is too large, or there are too many.
        """
        upload = scope["path"] in self.rules.uploads
        body = Body(self.rules.upload if upload else SMALL)
        lengths, coded = headers.get("content-length", []), "transfer-encoding" in headers
        if not lengths and not coded:
            yield body
            return
        if coded and lengths:
            raise RefusalError(400, "The request says in two ways how long it is: leave out one.")
        if lengths:
            check_size(int(lengths[0]) if lengths[0].isdecimal() and len(lengths[0]) < 16 else body.most + 1, body.most)
        body.size = int(lengths[0]) if lengths else body.most
        who = address_of(scope)
        many = self.holders.total() >= (BODIES if upload else 2 * BODIES)  # small ones fit in where uploads do not
        large = upload and self.bytes + body.size > self.rules.together * self.rules.upload
        if many or large or (who and self.holders[who] >= BODIES // SHARE):
            raise RefusalError(503, "Too many uploads are coming in: try again in a while.")
        self.holders[who] += 1
        self.bytes += body.size
        try:
            yield body
        finally:
            self.holders -= Counter([who])
            self.bytes -= body.size


@dataclass
class Body:
    """The body of a request: the bytes that it may have, and those that are kept free for it."""

    most: int
    size: int = 0


def address(host: str | None) -> str:
    """What tells clients apart by the host they ask from; empty for this machine.

    Whoever has one address of IPv6 has all that share its first half. One of IPv4 is the same by either name.
    """
    try:
        found = ipaddress.ip_address(host or "")
    except ValueError:  # a socket of this machine
        return ""
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return ""
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def address_of(scope: Scope) -> str:
    """The `address` of a request's client; behind a proxy the one that it names."""
    return address((scope.get("client") or [None])[0])


class Reply:
    """Sends an answer: with the headers that browsers need to be careful, in pieces, and only while they are taken.

    Args:
        send: of the server.
        policy: the content security policy.
    """

    def __init__(self, send: Send, policy: str):
        self.send, self.policy = send, policy
        self.started = self.failed = False
        self.sent, self.waited = 0, 0.0

    async def __call__(self, message: Message) -> None:
        """Send a part of the application's answer; a failed one's words are left to `refuse`.

        Raises:
            GoneError: the client takes it too slowly.
        """
        if message["type"] == "http.response.start":
            self.failed = message["status"] == 500
            message["headers"] = with_headers(message.get("headers", []), self.policy)
        if self.failed:
            return
        self.started = True
        body = message.get("body", b"")
        for place in range(0, max(1, len(body)), PIECE):
            last = place + PIECE >= len(body)
            part = {"body": body[place : place + PIECE], "more_body": not last or message.get("more_body", False)}
            await self.part(message if message["type"] == "http.response.start" else dict(message) | part)

    async def part(self, message: Message) -> None:
        """Send a message, which waits until most of those before it are taken."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE + self.sent / RATE - self.waited):
                await self.send(message)
        except TimeoutError:
            raise GoneError from None
        self.waited += time.monotonic() - began
        self.sent += len(message.get("body", b""))

    async def refuse(self, refusal: RefusalError) -> None:
        """Send a refusal as JSON, if nothing was sent yet, and hang up: the rest of what was sent is not read."""
        from starlette.responses import JSONResponse

        if self.started:
            return
        headers = {"connection": "close"} | ({"retry-after": "10"} if refusal.status == 503 else {})
        response = JSONResponse({"error": refusal.sentence}, refusal.status, headers)
        fields = with_headers(response.raw_headers, self.policy)
        self.started = True
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": fields})
        await self.send({"type": "http.response.body", "body": response.body})


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
    data, began, more = bytearray(), loop.time(), True
    while more:
        enough = min(WHOLE, SILENCE + len(data) / RATE)
        try:
            async with asyncio.timeout_at(min(began + enough, loop.time() + SILENCE)):
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


# Serving


def patient_protocol() -> type:
    """uvicorn's HTTP protocol with an end to its patience: connections are counted, and none stands still for long."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Patient(H11Protocol):
        """A connection that is closed when its client sends half a head, or does not take its answer."""

        watch: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.idle = self.stuck = self.loop.time()  # since when it waits for a head, or for its answer to be taken
            self.unsent = 0
            who = self.who = address((self.client or [None])[0])
            same = sum(getattr(other, "who", "") == who for other in self.connections)
            if len(self.connections) > CONNECTIONS or (who and same > CONNECTIONS // SHARE):
                transport.abort()
            else:
                self.look()

        def on_response_complete(self) -> None:
            self.idle = self.loop.time()
            super().on_response_complete()

        def look(self) -> None:
            """Close the connection if nothing has moved for too long; else look again in a while."""
            now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
            if self.cycle is not None and not self.cycle.response_complete:
                self.idle = now
            if not unsent or unsent < self.unsent:
                self.stuck = now
            self.unsent = unsent
            if now - min(self.idle, self.stuck) > SILENCE:
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


def run(app: Application, rules: Rules, port: int) -> None:
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
