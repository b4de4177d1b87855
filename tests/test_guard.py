"""Nobody gets in where they don't belong: the page, the endpoint and the study, tried as a stranger would."""

import asyncio
import contextlib
import http.client
import io
import json
import resource
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from conftest import one_thread, run_ugatit, served, tiny_model, write_picture
from ugatit.apps import guard, serve, study
from ugatit.apps.desk import Desk, Rates, ServeConfig
from ugatit.apps.guard import Guard, RefusalError, Rules
from ugatit.apps.serve import endpoint
from ugatit.apps.shelf import ENTRY, Shelf
from ugatit.io.errors import UserError
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


FINE = encoded(noise(40, 30))


class Client:
    """Sends what a browser or an attacker would, byte for byte."""

    def __init__(self, port: int):
        self.port = port

    def ask(
        self, method: str, path: str, body: bytes | None = None, host: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}

    def upload(self, data: bytes) -> str:
        """A file put on the page as gradio's own script does; its path."""
        form = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
        )
        status, found, _ = self.ask("POST", "/gradio_api/upload", form, content_type="multipart/form-data; boundary=x")
        assert status == 200, found
        return json.loads(found)[0]

    def queue(self, *values: object) -> tuple[int, str]:
        """The page's function called through gradio's queue; the status, and all that comes of it."""
        body = json.dumps({"data": values, "fn_index": 0, "session_hash": "s", "trigger_id": 1}).encode()
        status, found, _ = self.ask("POST", "/gradio_api/queue/join", body, content_type="application/json")
        if status != 200:
            return status, found.decode()
        status, found, _ = self.ask("GET", "/gradio_api/queue/data?session_hash=s")
        return status, found.decode()

    def open(self, sent: bytes) -> socket.socket:
        """A connection on which only that was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        made.sendall(sent)
        return made


@contextlib.contextmanager
def running(app, rules: Rules) -> Iterator[Client]:
    """An application behind its guard in a thread, on a port of its own."""
    with guard.listen("127.0.0.1", 0) as bound:
        server = guard.server(app, rules)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield Client(bound.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model(tiny_model(), folder, step=0)
    return folder


@pytest.fixture(scope="module")
def client(model):
    config = ServeConfig([str(model)], max_mib=1, names=["pictures.example"])
    with running(serve.application(config), serve.rules(config)) as found:
        yield found


# Files of the server (1)


def file_data(path: object, **more: object) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def test_only_what_was_uploaded_is_opened(client, tmp_path):
    secret = write_picture(tmp_path / "secret.png", 1, 64)
    (tmp_path / "secret.txt").write_text("a secret text")
    mine = client.upload(FINE)
    status, found = client.queue(file_data(mine), "A to B", 0, "The picture")
    assert status == 200 and '"success":true' in found and "image.png" in found
    assert client.ask("GET", f"/gradio_api/file={mine}")[:2] == (200, FINE)
    folder = mine.rsplit("/", 2)[0]
    paths: list[object] = [
        str(secret),
        str(tmp_path / "secret.txt"),
        f"file://{secret}",
        f"{mine}/../../../..{secret}",
        f"{folder}/../{secret.name}",
        f"{folder}/",
        mine.upper(),
        f"{mine}\0.png",
        mine.replace("/picture", "//picture"),
        f"http://127.0.0.1:{client.port}/api/models",
        "",
        [str(secret)],
        {"path": str(secret)},
        7,
        None,
    ]
    for path in paths:
        for values in (
            [file_data(path), "A to B", 0, "The picture"],
            [{"path": path}, "A to B", 0, "The picture"],
            [None, file_data(path), 0, "The picture"],
            [None, "A to B", file_data(path), "The picture"],
            [None, "A to B", 0, file_data(path)],
            [{"value": [file_data(path)]}, "A to B", 0, "The picture"],
            [file_data(mine, url=file_data(path)), "A to B", 0, "The picture"],
        ):
            status, found = client.queue(*values)
            assert status == 404, (values, status, found)
            assert json.loads(found) == {"error": "There is no such picture here any more: send it again."}
    for path in (str(secret), str(tmp_path / "secret.txt"), "/etc/passwd", folder, f"{folder}/..{secret}"):
        for route in ("file=", "file/", "proxy=file://", "static/", "assets/", "custom_component/", "stream/"):
            for prefix in ("/gradio_api/", "/"):
                status, found, _ = client.ask("GET", f"{prefix}{route}{path}")
                assert status in (403, 404) and b"secret" not in found and b"root:" not in found, (prefix, route, path)


def test_what_the_page_refuses_ends_as_a_request_that_went_well(client):
    """After one that failed, gradio's script drops what the visitor has changed meanwhile."""
    _, found = client.queue(file_data(client.upload(encoded(noise(8, 8)))), "A to B", 0, "The picture")
    messages = [json.loads(line.removeprefix("data: ")) for line in found.splitlines() if line.startswith("data: ")]
    (told,) = [message for message in messages if message["msg"] == "log"]
    assert "the least is 16 x 16" in told["log"] and told["title"] == "Not translated"
    (last,) = [message for message in messages if message["msg"] == "process_completed"]
    assert last["success"] and last["output"]["data"][0] is None, "and no earlier translation stays"


@pytest.mark.parametrize("end", ["%0A", "%0D", "%00", "%0A%0A", "/", "%20", ";", "%2F"])
def test_no_spelling_of_the_queue_s_address_goes_past_the_check(end, client):
    body = json.dumps(
        {"data": [file_data("http://127.0.0.1:1/x"), "A to B", 0, "The picture"], "fn_index": 0, "session_hash": "s"}
    )
    for path in (f"/gradio_api/queue/join{end}", f"/gradio_api/queue/join{end}?a=b", "//gradio_api/queue/join",
                 "/gradio_api//queue/join", "/gradio_api/queue/../queue/join", "/GRADIO_API/queue/join"):  # fmt: skip
        found = client.ask("POST", path, body.encode(), content_type="application/json", X_Forwarded_Host="127.0.0.1")
        assert found[0] in (404, 405), (path, found)
    for method, path in (("GET", "/api/translate"), ("POST", "/api/models"), ("GET", "/api/none")):
        status, answer, _ = client.ask(method, path)
        assert status in (404, 405) and "error" in json.loads(answer), path
    for path in ("/config%0A", "/api/models%0A", "/openapi.json%0A", "/api/translate%0A"):
        assert client.ask("GET", path)[0] == 404


def test_files_are_asked_for_by_every_method_through_the_shelf(client):
    mine = client.upload(FINE)
    for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405)):
        assert client.ask(method, f"/gradio_api/file={mine}")[0] == status
        for path in ("/etc/passwd", "http://127.0.0.1:1/"):
            found = client.ask(method, f"/gradio_api/file={path}")
            assert found[0] == (404 if method in ("GET", "HEAD") else 405), (method, path, found)
    for method in ("TRACE", "PATCH", "PROPFIND"):
        assert client.ask(method, "/")[0] == 405


def test_an_upload_s_address_cannot_be_guessed(client):
    first, second = client.upload(FINE), client.upload(FINE)
    assert first != second and len(first.split("/")[-2]) == 40
    assert (
        status := client.queue(file_data(first.replace("/picture", "/other")), "A to B", 0, "The picture")[0]
    ) == 404, status


@pytest.mark.parametrize(
    "path",
    ["run/predict", "run/translate", "call/translate", "api/translate", "process_recording", "stream/x",
     "stream/x/close", "component_server", "vibe-edit", "login", "upload/", "queue/push", "mcp"],
)  # fmt: skip
def test_parts_of_gradio_that_the_page_does_not_need_are_not_there(path, client):
    for method in ("GET", "POST"):
        status, found, _ = client.ask(method, f"/gradio_api/{path}", b"{}" if method == "POST" else None)
        assert status == 404 and b"Traceback" not in found, (method, path, status)


def test_the_page_keeps_a_bounded_number_of_bytes_that_only_its_owner_reads():
    shelf = Shelf(most=2 * (100 + ENTRY) + 50)
    paths = [shelf.put(bytes([i]) * 100, "picture") for i in range(4)]
    with pytest.raises(RefusalError, match="no such picture"):
        shelf.get(paths[1])
    assert [shelf.get(path)[0] for path in paths[2:]] == [2, 3]
    with pytest.raises(RefusalError, match="is empty"):
        shelf.put(b"", "picture")
    folder = Path(shelf.temporary.name)
    assert folder.stat().st_mode & 0o077 == 0 and len(list(folder.iterdir())) == 2


# Other sites (2)

OWN = "127.0.0.1"


@pytest.mark.parametrize(
    ("status", "host"),
    [
        (200, "127.0.0.1"), (200, "127.0.0.1:1"), (200, "localhost:PORT"), (200, "LOCALHOST"), (200, "[::1]:80"),
        (200, "pictures.example"), (200, "Pictures.Example:443"),
        (403, "evil.example"), (403, "127.0.0.1.evil.example"), (403, "localhost.evil.example"), (403, "localhost."),
        (403, "evil.example@127.0.0.1"), (403, "127.0.0.1@evil.example"), (403, "127.0.0.1:PORT:1"), (403, "127.1"),
        (403, "2130706433"), (403, "[::ffff:7f00:1]"), (403, "10.0.0.1"), (403, " "), (403, "localhost evil.example"),
        (403, "xn--localhost"), (403, "localhost/evil"), (403, "0.0.0.0"),
    ],
)  # fmt: skip
def test_only_the_server_s_own_names_are_answered(status, host, client):
    for method, path, body in (("GET", "/api/models", None), ("GET", "/", None), ("POST", "/api/translate", FINE)):
        found = client.ask(method, path, body, host=host.replace("PORT", str(client.port)))
        assert found[0] == status, (method, path, found)
        if status == 403:
            assert json.loads(found[1])["error"].endswith(".")


def test_a_request_names_one_host(client):
    for head in (
        b"GET /api/models HTTP/1.0\r\n\r\n",
        b"GET /api/models HTTP/1.1\r\nHost: localhost\r\nHost: a\r\n\r\n",
    ):
        with client.open(head) as connection:
            assert connection.recv(4096).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"Origin": "http://127.0.0.1:PORT", "Sec_Fetch_Site": "same-origin"}),
        (200, {"Origin": "https://pictures.example"}),
        (200, {"Sec_Fetch_Site": "none"}),
        (403, {"Origin": "https://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (403, {"Origin": "http://localhost:PORT"}),  # another origin than the host that is asked
        (403, {"Origin": "http://127.0.0.1:PORT.evil.example"}),
        (403, {"Origin": "https://pictures.example.evil.example"}),
        (403, {"Origin": "http://127.0.0.1:PORT", "Sec_Fetch_Site": "cross-site"}),
        (403, {"Sec_Fetch_Site": "cross-site"}),
        (403, {"Sec_Fetch_Site": "same-site"}),
        (403, {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}),
        (403, {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}),
    ],
)
def test_other_sites_pages_are_refused(status, headers, client):
    headers = {name: value.replace("PORT", str(client.port)) for name, value in headers.items()}
    for method, path, body in (("GET", "/api/models", None), ("POST", "/api/translate", FINE)):
        found = client.ask(method, path, body, content_type="text/plain", **headers)
        assert found[0] == status, (method, path, found)


def test_a_link_to_the_page_is_followed_but_no_form_is_sent(client):
    visit = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert client.ask("GET", "/", **visit)[0] == 200
    assert client.ask("POST", "/api/translate", FINE, **visit)[0] == 403
    assert client.ask("OPTIONS", "/api/translate", Origin="https://evil.example")[0] == 403


def test_browsers_are_told_to_be_careful(client):
    for path in ("/", "/api/models", "/nothing"):
        _, _, headers = client.ask("GET", path)
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers and "access-control-allow-origin" not in headers
    assert client.ask("GET", "/docs")[0] == 404, "FastAPI's own page loads from other servers"


def test_names_are_names(model):
    for name in ("https://pictures.example", "a b", "pictures.example:80"):
        with pytest.raises(UserError, match="is not the name of a host"):
            Guard(endpoint, Rules("", names=[name]))
    done = run_ugatit("serve", model, "--port", "0", "--names", "http://pictures.example")
    assert done.returncode == 2 and "--names http://pictures.example" in done.stderr


# Bodies and connections that never end (3)


@pytest.fixture
def impatient(monkeypatch, model):
    """The page of an application whose guard waits for half a second instead of ten."""
    monkeypatch.setattr(guard, "SILENCE", 0.5)
    config = ServeConfig([str(model)], max_mib=19)
    with running(serve.application(config), serve.rules(config)) as found:
        yield found


def closed_within(connections: list[socket.socket], seconds: float) -> bool:
    """Whether the other side closes all connections in that time."""
    end = time.monotonic() + seconds
    for connection in connections:
        connection.settimeout(max(0.01, end - time.monotonic()))
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        connection.close()
    return True


def test_stalled_uploads_take_bounded_memory_and_time(impatient):
    size = 19 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    head = f"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    payload, stalled = b"x" * (size - 100), []
    for _ in range(12):
        connection = impatient.open(head)
        with contextlib.suppress(OSError):  # refused ones do not take it all
            connection.sendall(payload)
        stalled.append(connection)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    assert grown < 9 * 19, f"{grown} MiB: four uploads at a time, each perhaps twice while it grows"
    assert closed_within(stalled, 5)
    assert impatient.ask("POST", "/api/translate", FINE)[0] == 200


def test_all_bodies_together_are_bounded(impatient):
    size = 19 * 2**20
    head = f"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
    held = [impatient.open(head) for _ in range(4)]
    time.sleep(0.1)
    status, found, headers = impatient.ask("POST", "/api/translate", content_length=str(size))
    assert (status, headers["retry-after"]) == (503, "10") and "Too many uploads" in json.loads(found)["error"]
    assert closed_within(held, 5)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le"],
)  # fmt: skip
def test_half_sent_heads_and_idle_connections_are_closed(sent, impatient):
    assert closed_within([impatient.open(sent) for _ in range(20)], 5)


def test_a_body_in_drops_is_given_up(impatient, monkeypatch):
    monkeypatch.setattr(guard, "WHOLE", 1.0)
    connection = impatient.open(b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for _ in range(50):
            connection.sendall(b"x")
            time.sleep(0.1)
    answer = connection.recv(4096)
    assert b" 408 " in answer and b"too slow" in answer and time.monotonic() - began < 10


def test_a_chunked_body_without_end_is_cut_off(client):
    connection = client.open(b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    with contextlib.suppress(OSError):
        for _ in range(200):
            connection.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            sent += 1
    assert sent < 100 or b" 413 " in connection.recv(4096)


def test_connections_are_counted(client, monkeypatch):
    monkeypatch.setattr(guard, "CONNECTIONS", 5)
    many = [client.open(b"") for _ in range(12)]
    time.sleep(0.3)
    assert closed_within(many[6:], 1), "closed at once"
    for connection in many:
        connection.close()
    time.sleep(0.3)
    assert client.ask("GET", "/api/models")[0] == 200


def test_a_connection_that_is_used_stays_open(impatient):
    connection = http.client.HTTPConnection("127.0.0.1", impatient.port, timeout=10)
    for _ in range(15):
        connection.request("GET", "/api/models")
        assert connection.getresponse().read()
        time.sleep(0.1)
    connection.close()


def test_who_does_not_take_an_answer_is_left(model, monkeypatch):
    """Sixty connections that ask for 8 MiB and read nothing, or a little."""
    monkeypatch.setattr(guard, "SILENCE", 0.5)
    config = ServeConfig([str(model)], max_mib=9)
    with running(serve.application(config), serve.rules(config)) as client:
        mine = client.upload(FINE + bytes(8 * 2**20))
        before = high("VmRSS")
        many = []
        for number in range(60):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", client.port))
            connection.sendall(f"GET /gradio_api/file={mine} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            many.append(connection)
            if number % 2:
                connection.recv(1000)
        time.sleep(2.5)
        for connection in many:
            connection.settimeout(5)
            taken = 0
            with contextlib.suppress(OSError):
                while part := connection.recv(2**20):
                    taken += len(part)
            assert taken < 2**22, "the connection was closed before all was sent"
            connection.close()
        assert high("VmRSS") - before < 60
        assert client.ask("GET", f"/gradio_api/file={mine}")[0] == 200


def high(name: str) -> float:
    """A figure of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def test_room_is_kept_for_what_a_body_is_and_not_for_what_it_might_be(model):
    desk = Desk({"one": Translator.load(model, "cpu")}, ServeConfig([], queue=20))
    rules = Rules("", uploads=["/api/translate"], upload=20 * 2**20)
    with running(endpoint(desk), rules) as client:
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(FINE), FINE)
        head = b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with desk.working:
            waiting = [client.open(head + chunk) for _ in range(8)]
            time.sleep(0.5)
            late = client.open(head + chunk)
            time.sleep(0.3)
        assert all(connection.recv(4096).split()[1] == b"200" for connection in [*waiting, late])
    big = b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20971520\r\n\r\n"
    with running(endpoint(desk), rules) as client:
        held = [client.open(big) for _ in range(4)]
        time.sleep(0.2)
        assert client.ask("POST", "/api/models", b"{}")[0] == 405, "small bodies have room of their own"
        for connection in held:
            connection.close()


def test_one_address_of_another_machine_has_a_share(model):
    """As ASGI scopes: there is no other machine here."""
    from ugatit.apps.guard import BODIES, SHARE

    one = Guard(endpoint, Rules("", uploads=["/u"], upload=2**20))
    headers = {"content-length": ["10"]}

    def scope(host: str) -> dict:
        return {"path": "/u", "client": (host, 1)}

    with contextlib.ExitStack() as stack:
        for _ in range(BODIES // SHARE):
            stack.enter_context(one.room(scope("203.0.113.7"), headers))
        with pytest.raises(RefusalError, match="Too many uploads"):
            stack.enter_context(one.room(scope("203.0.113.7"), headers))
        stack.enter_context(one.room(scope("203.0.113.8"), headers))
        for _ in range(BODIES // SHARE + 1):
            stack.enter_context(one.room(scope("127.0.0.1"), headers))
    assert not one.bytes and not one.holders


def test_a_request_tells_its_length_in_one_way(client):
    head = b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    second = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with client.open(head + b"0\r\n\r\n" + second) as connection:
        answer = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(4096):
                answer += part
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1


def test_failures_are_a_sentence_and_a_line_in_the_log(client, model, caplog):
    desk = Desk({"one": Translator.load(model, "cpu")}, ServeConfig([]))
    desk.translate = lambda *_: 1 / 0
    with running(endpoint(desk), Rules("", uploads=["/api/translate"])) as broken:
        status, found, _ = broken.ask("POST", "/api/translate", FINE)
        assert status == 500 and json.loads(found)["error"].startswith("Something went wrong")
    for path in ("queue/data?session_hash=zz", "cancel", "reset"):
        body = None if "?" in path else b'{"session_hash": NaN, "fn_index": 1e999, "event_id": "\\ud800"}'
        with contextlib.suppress(http.client.IncompleteRead):  # a stream that breaks off
            method, kind = "POST" if body else "GET", "application/json"
            _, found, _ = client.ask(method, f"/gradio_api/{path}", body, content_type=kind)
            assert b"Traceback" not in found and b"/site-packages" not in found
    assert not any(record.exc_info for record in caplog.records), "no traceback fills the log"


def test_small_requests_have_small_bodies(client):
    for path in ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"):
        assert client.ask("POST", path, b"{}" + b" " * 2**16, content_type="application/json")[0] == 413
    deep = b'{"data":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    for body in (deep, b"", b"[", b"7", b'{"data": NaN', b"\xff"):
        status, found, _ = client.ask("POST", "/gradio_api/queue/join", body, content_type="application/json")
        assert status in (400, 404, 422) and b"Traceback" not in found, (body[:20], status, found)


# One picture's memory and time (4)


@pytest.fixture(scope="module")
def large():
    """A desk whose model would take gigabytes for a large picture."""
    torch.manual_seed(0)
    return Desk({"one": Translator(tiny_model(), "cpu")}, ServeConfig([], max_megapixels=26))


@pytest.mark.parametrize("size", ["keep", "tiles"])
def test_a_translation_s_cost_is_computed_before_the_picture_is_decoded(size, large):
    data = encoded(Image.new("RGB", (5000, 5000)))
    large.rates["one"] = Rates(layer=64 * 4 * 3, seconds=1e-5)  # as of a network of 64 channels
    began = time.monotonic()
    with pytest.raises(RefusalError, match=r"5000 x 5000 pixels would take .* the most is (4|60)") as refused:
        large.translate(data, ["one"], "a2b", size)
    assert refused.value.status == 413 and time.monotonic() - began < 1
    made = large.translate(encoded(noise(64, 48)), ["one"], "a2b", size)
    assert made[0].picture.size == (64, 48)


def test_the_cost_of_several_models_adds_up(large):
    large.rates["one"] = Rates(layer=1, seconds=1e-5)
    large.check_cost(["one"], "keep", 2000, 2000)
    with pytest.raises(RefusalError, match="would take 80 s"):
        large.check_cost(["one", "one"], "keep", 2000, 2000)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize("name", ["ugatit", "munit"])
def test_the_computed_memory_is_not_less_than_the_measured(name):
    """In a process of its own, whose peak nothing else has raised."""
    code = f"""
from dataclasses import replace
from pathlib import Path
import numpy as np
from PIL import Image
from ugatit.apps.guard import RefusalError
from ugatit.systems import REGISTRY
from ugatit.translation.translator import Translator
from ugatit.apps.serve import Desk, ServeConfig, png
def high(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**20
kind = REGISTRY["{name}"]
system = kind(replace(kind.presets["quick"].model, size=64, width=16))
system.init_weights()
desk = Desk({{"one": Translator(system, "cpu")}}, ServeConfig([], max_gib=1e-9))
data = png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 900, 3), np.uint8)))
try:
    desk.translate(data, ["one"], "a2b", "keep")
except RefusalError as refusal:
    computed = float(str(refusal).split("would take ")[1].split(" GiB")[0])
desk.config = ServeConfig([])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = high("VmRSS")
desk.translate(data, ["one"], "a2b", "keep")
print(high("VmHWM") - before, computed)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=one_thread(), timeout=120)
    assert done.returncode == 0, done.stderr
    measured, computed = map(float, done.stdout.split())
    assert 0.05 < measured < computed + 0.05 < 5 * measured


def test_a_translation_that_takes_too_long_ends(large, monkeypatch):
    monkeypatch.setattr(large, "config", ServeConfig([], max_seconds=0.2))
    large.rates["one"] = Rates(layer=1, seconds=0)  # believed to be quick
    began = time.monotonic()
    with pytest.raises(RefusalError, match=r"longer than 0\.2 s"):
        large.translate(encoded(noise(1500, 1500)), ["one"], "a2b", "tiles")
    assert time.monotonic() - began < 5


def test_who_hangs_up_ends_the_work(model):
    desk = Desk({"one": Translator.load(model, "cpu")}, ServeConfig([], max_megapixels=30, queue=3))
    desk.rates["one"] = Rates(layer=1, seconds=0)
    data = encoded(noise(2500, 2500))
    with running(endpoint(desk), Rules("", uploads=["/api/translate"], upload=2**26)) as client:
        head = f"POST /api/translate?size=tiles HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        connection = client.open(head.encode() + data)
        deadline = time.monotonic() + 20
        while not desk.working.locked() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
        assert desk.working.locked(), "it is at work"
        assert client.ask("GET", "/api/models")[0] == 200, "which keeps nobody else waiting"
        connection.close()
        began = time.monotonic()
        while desk.working.locked() and time.monotonic() < began + 20:
            time.sleep(0.01)
        assert time.monotonic() - began < 3


def test_many_that_wait_keep_nobody_else_from_an_answer(model):
    desk = Desk({"one": Translator.load(model, "cpu")}, ServeConfig([], queue=60))
    with running(endpoint(desk), Rules("", uploads=["/api/translate"], upload=2**20, together=100)) as client:
        head = f"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(FINE)}\r\n\r\n"
        with desk.working:
            waiting = [client.open(head.encode() + FINE) for _ in range(30)]
            time.sleep(0.5)
            began = time.monotonic()
            assert client.ask("GET", "/api/models")[0] == 200
            assert time.monotonic() - began < 1
        assert all(connection.recv(4096).split()[1] == b"200" for connection in waiting)


def test_too_little_memory_is_an_answer(large, monkeypatch):
    def fails(*_):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")

    large.rates_of("one")  # which translates too
    monkeypatch.setattr(large.translators["one"], "translate", fails)
    with pytest.raises(RefusalError, match="not enough memory") as refused:
        large.translate(FINE, ["one"], "a2b")
    assert refused.value.status == 413


# The study (5)


@pytest.fixture
def pictures(tmp_path):
    for m, method in enumerate(("source", "alpha", "beta", "gamma")):
        for i in range(5):
            write_picture(tmp_path / "pictures" / method / f"{i}.png", 10 * m + i, 32)
    return tmp_path / "pictures"


def application(pictures, tmp_path, **options):
    return study.application(study.StudyConfig([pictures], db=tmp_path / "s.sqlite", **options))


def test_the_study_is_guarded_too(pictures, tmp_path):
    with served("study", pictures, "--db", tmp_path / "s.sqlite") as address:
        client = Client(int(address.rsplit(":", 1)[1].strip("/")))
        assert client.ask("POST", "/api/participants", b"{}")[0] == 200
        assert client.ask("POST", "/api/participants", b"{}", host="evil.example")[0] == 403
        assert client.ask("POST", "/api/participants", b"{}", Origin="https://evil.example")[0] == 403
        assert client.ask("POST", "/api/participants", b" " * 70_000)[0] == 413
        _, _, headers = client.ask("GET", "/")
        assert "unsafe" not in headers["content-security-policy"]


def test_participants_are_limited_by_address_and_in_all(pictures, tmp_path, monkeypatch):
    app = application(pictures, tmp_path, participants=study.HOURLY + 2)
    there, other, here = (TestClient(app, client=(host, 1)) for host in ("203.0.113.7", "203.0.113.8", "127.0.0.1"))
    answers = [there.post("/api/participants") for _ in range(study.HOURLY + 1)]
    assert [a.status_code for a in answers] == [200] * study.HOURLY + [429]
    assert "in an hour" in answers[-1].json()["detail"]
    assert other.post("/api/participants").status_code == here.post("/api/participants").status_code == 200
    assert here.post("/api/participants").status_code == 409, "the study is full"
    code = answers[0].json()["code"]
    assert there.get(f"/api/participants/{code}").status_code == 200, "who is in stays in"
    guesses = [other.get(f"/api/participants/AAAA{i:04d}").status_code for i in range(study.HOURLY + 1)]
    assert guesses == [404] * study.HOURLY + [429]
    assert other.get(f"/api/participants/{code}").status_code == 200, "a classroom's other visitors go on"
    assert [here.get("/api/participants/AAAA").status_code for _ in range(2 * study.HOURLY)][-1] == 404


def test_one_address_behind_a_proxy_keeps_no_more_than_its_share_open():
    """Whose connections are all the proxy's; others are still answered."""
    sent: dict[str, list[int]] = {}

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask(host: str) -> None:
        async def send(message):
            if message["type"] == "http.response.start":
                sent.setdefault(host, []).append(message["status"])

        scope = {"type": "http", "method": "GET", "path": "/", "client": (host, 1), "query_string": b""}
        await front(scope | {"headers": [(b"host", b"localhost")], "raw_path": b"/"}, receive, send)

    async def never(scope, receive, send):
        if scope["client"][0] == "203.0.113.9":
            await send({"type": "http.response.start", "status": 200})
        else:
            await asyncio.sleep(60)

    async def crowd() -> None:
        waiting = [asyncio.create_task(ask("203.0.113.7")) for _ in range(guard.CONNECTIONS // guard.SHARE + 3)]
        await asyncio.sleep(0.1)
        await ask("203.0.113.9")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    front = Guard(never, Rules("default-src 'none'"))
    with ThreadPoolExecutor(1) as pool:  # a browser of other tests may have a loop in this thread
        pool.submit(lambda: asyncio.run(crowd())).result()
    assert sent == {"203.0.113.7": [503] * 3, "203.0.113.9": [200]}
    assert not front.open


def test_examples_go_to_visitors_without_what_cameras_note(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "A Camera"
    Image.open(io.BytesIO(FINE)).convert("RGB").save(tmp_path / "e.jpg", exif=exif)
    data, name = serve.without_words(tmp_path / "e.jpg")
    assert name == "example.png" and b"A Camera" in (tmp_path / "e.jpg").read_bytes() and b"A Camera" not in data


def test_addresses_of_one_network_count_as_one():
    assert guard.address("2001:db8::1") == guard.address("2001:db8::ffff") != guard.address("2001:db9::1")
    assert guard.address("::ffff:203.0.113.7") == guard.address("203.0.113.7") == "203.0.113.7"
    here = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "", None)
    assert [guard.address(host) for host in here] == [""] * 5
    from fastapi import HTTPException

    pace = study.Pace(2)
    visits = [types.SimpleNamespace(host=f"2001:db8::{i}") for i in range(3)]
    for visit in visits[:2]:
        pace.check(visit)
    with pytest.raises(HTTPException):
        pace.check(visits[2])
    pace.check(types.SimpleNamespace(host="2001:db9::2"))


def test_nothing_that_is_served_tells_the_methods_apart(pictures, tmp_path):
    picture = Image.open(pictures / "alpha" / "0.png")
    (pictures / "alpha" / "0.png").unlink()
    picture.save(pictures / "alpha" / "0.webp", lossless=True)
    picture.save(pictures / "beta" / "0.png", pnginfo=commented("made by beta"))
    client = TestClient(application(pictures, tmp_path))
    state = client.post("/api/participants").json()
    answers = [client.get(f"/api/pictures/{state['code']}/{n}/{i}") for n in range(1, 6) for i in range(3)]
    assert len({frozenset(set(a.headers) | {a.headers["content-type"]}) for a in answers}) == 1
    assert not {"last-modified", "etag", "content-disposition"} & set(answers[0].headers)
    assert not any(b"beta" in a.content for a in answers)


def commented(text: str):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", text)
    return info


def test_a_code_does_not_tell_its_order(pictures, tmp_path):
    orders = []
    for name in ("a", "b"):
        found = study.find_questions(study.StudyConfig([pictures]))
        answers = study.Answers(tmp_path / f"{name}.sqlite")
        answers.begin(found)
        one = study.Study(found, answers, None, {}, {})
        orders.append([one.methods("ABCDEFGH", number) for number in range(1, 6)])
        assert orders[-1] == [study.Study(found, answers, None, {}, {}).methods("ABCDEFGH", n) for n in range(1, 6)]
    assert orders[0] != orders[1], "it depends on what only the database knows"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"question": NaN, "choice": 0}', 422),
        (b'{"question": ' + b"9" * 5000 + b', "choice": 0}', (400, 422)),
        (b'{"question": 1e400, "choice": 0}', 422),
        (b'{"question": 1, "choice": ' + b"9" * 4000 + b"}", 422),
        (b"[" * 5000, (400, 422)),
        (b'{"question": true, "choice": {}}', 422),
        (b"\xff\xfe", (400, 422)),
        (b"", 422),
    ],
)
def test_odd_answers_are_no_server_errors(body, status, pictures, tmp_path):
    client = TestClient(application(pictures, tmp_path), raise_server_exceptions=False)
    code = client.post("/api/participants").json()["code"]
    found = client.post(f"/api/participants/{code}/answers", content=body, headers={"content-type": "application/json"})
    assert found.status_code in (status if isinstance(status, tuple) else (status,)), found.text
    assert isinstance(found.json()["detail"], str) and str(tmp_path) not in found.text
    for path in ("9" * 5000 + "/0", "1/" + "9" * 5000, "1/٣", "1/source%00", "-1/source", "1.5/0"):
        assert client.get(f"/api/pictures/{code}/{path}").status_code in (404, 422)


def test_a_database_that_is_gone_is_an_answer_without_paths(pictures, tmp_path):
    client = TestClient(application(pictures, tmp_path), raise_server_exceptions=False)
    code = client.post("/api/participants").json()["code"]
    for file in tmp_path.glob("s.sqlite*"):
        file.unlink()
    for found in (client.get(f"/api/participants/{code}"), client.post("/api/participants")):
        assert found.status_code == 503 and str(tmp_path) not in found.text and "cannot be kept" in found.text
    assert not (tmp_path / "s.sqlite").exists(), "no empty file is begun in its place"


def test_names_inject_nothing_into_the_report(tmp_path):
    names = ("[light]m[/light]", "[bold]m", "=1+1", "-2", "@a", "+1")
    for m, method in enumerate(("source", *names)):
        write_picture(tmp_path / "pictures" / method.replace("/", "∕") / "0.png", m, 32)
    found = study.find_questions(study.StudyConfig([tmp_path / "pictures"]))
    study.Answers(tmp_path / "s.sqlite").begin(found)
    done = run_ugatit("study", "report", tmp_path / "s.sqlite", "--csv", tmp_path / "s.csv")
    assert done.returncode == 0 and "[bold]m" in done.stderr and "[light]m" in done.stderr
    cells = [line.split(",")[1] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert {"'=1+1", "'-2", "'@a", "'+1", "[bold]m"} <= set(cells)
