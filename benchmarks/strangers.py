"""What strangers get from a running `ugatit serve`: a table of attacks and answers, and a soak with hostile clients.

    python benchmarks/strangers.py MODEL                         # the table
    python benchmarks/strangers.py MODEL --soak 600 --clients 100

The server is started here, on loopback, and ended afterwards. Every tenth client of the soak is hostile: it stalls
uploads, sends half a head, asks by another name, sends bombs and junk, names files of the server, hangs up in the
middle, or does not read its answer.
"""

import argparse
import asyncio
import io
import json
import random
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

HOST = "127.0.0.1"


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    """A PNG file: noise if it is small, else one colour."""
    if width * height < 10**6:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    else:
        picture = Image.new(mode, (width, height))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def overlapping_tiff() -> bytes:
    """A TIFF file of 16 x 16 pixels, 300 tags of which are the same 4 MB."""
    size, pixels = 4_000_000, bytes(768)
    values = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
              (277, 3, 1, 3), (278, 3, 1, 16), (279, 4, 1, 768)]  # fmt: skip
    values += [(40_000 + i, 3, size // 2, 8) for i in range(300)]
    entries = b"".join(struct.pack("<HHII", *value) for value in values)
    return b"II*\0" + struct.pack("<IH", size + 8, 0)[:4] + pixels.ljust(size, b"\0") + (
        struct.pack("<H", len(values)) + entries + bytes(4)
    )  # fmt: skip


async def ask(port: int, method: str, path: str, body: bytes = b"", cut: int = 0, **headers: str) -> tuple[str, bytes]:
    """One request on a connection of its own, ``cut`` bytes of whose body are never sent; status and body."""
    headers = {"Host": f"{HOST}:{port}", "Content-Length": str(len(body))} | headers
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError as error:
        return type(error).__name__, b""
    try:
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body[: len(body) - cut])
        async with asyncio.timeout(120):
            answer = await reader.read()
    except TimeoutError:
        return "still open after 120 s", b""
    except OSError:
        answer = b""
    finally:
        writer.close()
    head_of, _, content = answer.partition(b"\r\n\r\n")
    return (head_of.split(b" ", 2)[1].decode() if head_of else "hung up"), content


async def upload(port: int, data: bytes) -> str:
    """A picture put on the page; its path."""
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + data + b"\r\n--x--\r\n"
    _, found = await ask(port, "POST", "/gradio_api/upload", form, Content_Type="multipart/form-data; boundary=x")
    return json.loads(found)[0]


def join(*values: object) -> bytes:
    """The body of a call of the page's function."""
    return json.dumps({"data": values, "fn_index": 0, "session_hash": "s", "trigger_id": 1}).encode()


def file_data(path: object) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


async def table(port: int, pid: int) -> None:
    """Print what was tried and what came back."""
    fine, mine = png(64, 64), await upload(port, png(64, 64))
    large = png(5000, 5000)
    queue, picture = "/gradio_api/queue/join", "/api/translate"
    as_json = {"Content_Type": "application/json"}
    half = 19 * 2**20
    rows: list[tuple[str, str, str, bytes, int, dict[str, str]]] = [
        ("a picture", "POST", picture, fine, 0, {}),
        ("the page's own upload", "POST", queue, join(file_data(mine), "A to B", 0), 0, as_json),
        *[
            (f"path {path!r} as input {place + 1}", "POST", queue, join(*values), 0, as_json)
            for path in ("/etc/passwd", "file:///etc/passwd", f"{mine}/../../../etc/passwd", "http://127.0.0.1:1/", [])
            for place, values in enumerate([[file_data(path), "A to B", 0], [None, file_data(path), 0]])
        ],
        *[
            (f"GET {path}", "GET", path, b"", 0, {})
            for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=..%2f..%2fetc%2fpasswd",
                         "/static/../../etc/passwd", "/gradio_api/proxy=http://127.0.0.1:1/", "/monitoring",
                         "/gradio_api/run/predict", "/docs")
        ],
        *[
            (f"Host: {host}", "GET", "/api/models", b"", 0, {"Host": host})
            for host in ("localhost", "[::1]", "evil.example", "127.0.0.1.evil.example", "a@127.0.0.1", "0.0.0.0", "")
        ],
        *[
            (f"Origin: {origin}", "POST", picture, fine, 0, {"Origin": origin, "Content_Type": "text/plain"})
            for origin in (f"http://{HOST}:{port}", f"http://localhost:{port}", "https://evil.example", "null")
        ],
        ("Sec-Fetch-Site: cross-site", "GET", "/api/models", b"", 0, {"Sec_Fetch_Site": "cross-site"}),
        ("25 megapixels, size=keep", "POST", f"{picture}?size=keep", large, 0, {}),
        ("25 megapixels, size=tiles", "POST", f"{picture}?size=tiles", large, 0, {}),
        ("25 megapixels, size=model", "POST", picture, large, 0, {}),
        ("900 megapixels", "POST", picture, png(30_000, 30_000, "1"), 0, {}),
        ("20000 x 20 pixels", "POST", picture, png(20_000, 20), 0, {}),
        ("16 x 16 TIFF, 1.2 GB of tags in 4 MB", "POST", picture, overlapping_tiff(), 0, {}),
        ("half a PNG", "POST", picture, fine[:2000], 0, {}),
        ("text", "POST", picture, b"no picture", 0, {}),
        ("21 MiB", "POST", picture, bytes(21 * 2**20), 0, {}),
        ("19 MiB less 100 bytes, then nothing", "POST", picture, bytes(half), 100, {}),
        ("30,000 brackets", "POST", queue, b"[" * 30_000, 0, as_json),
    ]  # fmt: skip
    print("| tried | status | seconds | answer | server's memory |\n| --- | --- | --- | --- | --- |")
    for what, method, path, body, cut, headers in rows:
        began = time.monotonic()
        status, found = await ask(port, method, path, body, cut, **headers)
        text = found[:90].decode("utf-8", "replace").strip() if found[:1] == b"{" else f"{len(found)} bytes"
        print(f"| {what} | {status} | {time.monotonic() - began:.1f} | {text} | {memory(pid):.0f} MiB |", flush=True)
    began, before = time.monotonic(), memory(pid)
    stalled = [asyncio.ensure_future(ask(port, "POST", picture, bytes(half), 100)) for _ in range(40)]
    await asyncio.sleep(5)
    during = memory(pid)
    statuses = Counter(status for status, _ in await asyncio.gather(*stalled))
    memories = f"{before:.0f}, {during:.0f}, then {memory(pid):.0f} MiB"
    print(f"| 40 such uploads at once | {dict(statuses)} | {time.monotonic() - began:.1f} | | {memories} |")


def memory(pid: int) -> float:
    """What a process holds, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 2**10


async def honest(port: int, end: float, seen: Counter[str], seconds: list[float]) -> None:
    """A client that sends a picture every few seconds, and comes again when it is told to."""
    data = png(random.randint(60, 400), random.randint(60, 400))
    while time.monotonic() < end:
        began = time.monotonic()
        status, _ = await ask(port, "POST", "/api/translate", data)
        seen[f"honest: {status}"] += 1
        if status == "200":
            seconds.append(time.monotonic() - began)
        await asyncio.sleep(random.uniform(2, 8))


def weapons() -> dict[str, bytes]:
    """What hostile clients send."""
    return {
        "bomb": png(20_000, 20_000, "1"),
        "tiff": overlapping_tiff(),
        "keep": png(5000, 5000),
        "junk": random.randbytes(10**6),
        "leave": png(64, 64),
        "deaf": png(1200, 1200),
        "head": b"",
    }


async def hostile(port: int, end: float, seen: Counter[str], bodies: dict[str, bytes]) -> None:
    """A client that does one bad thing after the other."""
    while time.monotonic() < end:
        kind = random.choice(["stall", "head", "host", "bomb", "tiff", "keep", "path", "leave", "deaf", "junk"])
        if kind == "stall":
            status, _ = await ask(port, "POST", "/api/translate", bytes(random.randint(10**6, 19 * 2**20)), 100)
        elif kind == "host":
            status, _ = await ask(port, "GET", "/api/models", Host="evil.example")
        elif kind == "path":
            status, _ = await ask(port, "POST", "/gradio_api/queue/join", join(file_data("/etc/passwd"), "A to B", 0))
        elif kind in ("bomb", "tiff", "junk", "keep"):
            status, _ = await ask(
                port, "POST", f"/api/translate?size={'keep' if kind == 'keep' else 'model'}", bodies[kind]
            )
        else:
            status = await rude(port, kind, bodies[kind])
        seen[f"{kind}: {status}"] += 1


async def rude(port: int, kind: str, data: bytes) -> str:
    """Send half a head, hang up in the middle, or do not read the answer."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, limit=1)
        if kind == "head":
            writer.write(b"POST /api/translate HTTP/1.1\r\nHost: local")
            async with asyncio.timeout(60):
                await reader.read()
        else:
            head = f"POST /api/translate?size=tiles HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            await writer.drain()
            await asyncio.sleep(20 if kind == "deaf" else 0.02)
        writer.close()
    except TimeoutError:
        return "still open after 60 s"
    except OSError as error:
        return type(error).__name__
    return "closed"


async def soak(port: int, pid: int, clients: int, seconds: float) -> None:
    """Honest and hostile clients for a while; prints the server's memory and what they got."""
    bodies = weapons()
    for body in bodies.values():  # the first of each takes memory that is kept for the next
        await ask(port, "POST", "/api/translate", body)
    seen, taken, end = Counter[str](), list[float](), time.monotonic() + seconds
    start = memory(pid)
    tasks = [
        asyncio.ensure_future(hostile(port, end, seen, bodies) if i % 10 == 0 else honest(port, end, seen, taken))
        for i in range(clients)
    ]
    while time.monotonic() < end:
        await asyncio.sleep(min(30, max(0.1, end - time.monotonic())))
        print(f"{seconds - end + time.monotonic():5.0f} s: {memory(pid):.0f} MiB, {len(taken)} translated", flush=True)
    await asyncio.gather(*tasks)
    await asyncio.sleep(15)  # what stands still is closed by then
    print(f"memory: {start:.0f} MiB at the start, {memory(pid):.0f} MiB at the end")
    parts = statistics.quantiles(taken, n=100)
    print(f"honest answers in {parts[49]:.2f} s (median), {parts[94]:.2f} s (95 %), {max(taken):.2f} s (longest)")
    for what, count in sorted(seen.items()):
        print(f"| {what} | {count} |")
    status, _ = await ask(port, "POST", "/api/translate", png(64, 64))
    print(f"one more picture: {status}")


def main() -> None:
    """Start the server, do what was asked, and end it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--soak", type=float, default=0, help="seconds; the table if not given")
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    command = [sys.executable, "-m", "ugatit", "serve", options.model, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        line = next(line for line in server.stderr if "http://" in line)
        port = int(line.split("/  ")[0].rsplit(":", 1)[1])
        asyncio.run(ask(port, "POST", "/api/translate", png(64, 64)))  # the first takes memory of its own
        if options.soak:
            asyncio.run(soak(port, server.pid, options.clients, options.soak))
        else:
            asyncio.run(table(port, server.pid))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main()
