"""A web page that translates in the visitor's browser: no server, and nothing leaves the browser.

``index.html`` has all in one file. On a web site the files beside it let browsers install it as an app, and open it
without a connection.
"""

import base64
import gzip
import hashlib
import html
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from ugatit.io.errors import UserError
from ugatit.io.files import atomic_file, write_text
from ugatit.io.sheet import png
from ugatit.systems.base import Direction, samples_of
from ugatit.translation.folder import configured

VERSION = "1.30.0"  # of onnxruntime-web
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
PARTS = {"ort": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
ICONS = (192, 512)  # pixels
PAGE_FILES = ["index.html", "app.webmanifest", "sw.js", *(f"icon-{side}.png" for side in ICONS)]
LARGEST = 300  # MiB of ONNX files that a browser is asked to open at once
TEMPLATE = Path(__file__).with_name("page.html")
WORKER = Path(__file__).with_name("page-worker.js")


def runtime(given: Path | None) -> Path:
    """The npm package onnxruntime-web as a file: the one given, or downloaded once.

    Raises:
        UserError: it cannot be had, or is not this version's.
    """
    path = given or Path(torch.hub.get_dir()) / URL.rsplit("/", 1)[1]
    if given is None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_file(path) as temporary:
                torch.hub.download_url_to_file(URL, str(temporary), progress=False)
        except OSError as error:
            raise UserError(f"{URL} cannot be downloaded ({error}): give the file with --runtime.") from None
    try:
        found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    except OSError as error:
        raise UserError(f"--runtime {path} cannot be read ({error.strerror}): give the file that {URL} is.") from None
    if found != SHA512 and given is None:
        path.unlink()  # it is downloaded again the next time
        raise UserError(f"What came from {URL} is not onnxruntime-web {VERSION}: try again, or give it with --runtime.")
    if found != SHA512:
        raise UserError(f"--runtime {path} is not onnxruntime-web {VERSION}: give the file that {URL} is.")
    return path


def packed(data: bytes) -> str:
    """Bytes as the page holds them."""
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def browser_samples(config: Any, direction: Direction) -> dict[str, Any]:
    """How the page makes a tensor of a picture, of which a browser knows 8 bits in colour.

    Raises:
        UserError: that are no pictures for a browser.
    """
    samples = [samples_of(config, domain) for domain in direction.split("2")]
    if odd := {each.channels for each in samples} - {1, 3}:
        raise UserError(f"--page: a browser has no pictures of {odd.pop()} channels: export without --page.")
    return {"channels": samples[0].channels, "range": samples[0].range or (0, 255)}


def icon(side: int) -> bytes:
    """A picture becoming another, as a PNG of that many pixels a side."""
    picture = Image.new("RGB", (side, side), "white")
    pen, unit = ImageDraw.Draw(picture), side // 16
    pen.rounded_rectangle([2 * unit, 2 * unit, 10 * unit, 10 * unit], unit, fill="#93c5fd")
    pen.rounded_rectangle([6 * unit, 6 * unit, 14 * unit, 14 * unit], unit, fill="#f97316")
    return png(picture)


def write_app(folder: Path, name: str) -> None:
    """Write the files that make an app of ``index.html``: a manifest, icons, and what answers without a connection.

    Raises:
        OSError: they cannot be written.
    """
    icons = {f"icon-{side}.png": icon(side) for side in ICONS}
    shown = [
        {"src": file, "sizes": file[5:-4] + "x" + file[5:-4], "type": "image/png", "purpose": "any"} for file in icons
    ]
    manifest = {
        "name": name,
        "short_name": name[:12],
        "start_url": "./index.html",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#f97316",
        "icons": shown,
    }
    kept = ["./", "index.html", "app.webmanifest", *icons]
    version = hashlib.sha256((folder / "index.html").read_bytes()).hexdigest()[:16]
    worker = WORKER.read_text("utf-8").replace("VERSION", json.dumps(version)).replace("FILES", json.dumps(kept))
    files = {"app.webmanifest": json.dumps(manifest, indent=2).encode(), "sw.js": worker.encode(), **icons}
    for file, data in files.items():
        with atomic_file(folder / file) as temporary:
            temporary.write_bytes(data)


def example(path: Path) -> str:
    """A picture to be clicked, within the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    kind = "jpeg" if path.suffix == ".jpg" else path.suffix[1:]
    label = html.escape(path.stem.replace("_", " "))
    return f'<button><img src="data:image/{kind};base64,{data}" alt="{label}"></button>'


def write_page(folder: Path, given: Path | None, name: str = "ugatit", examples: Sequence[Path] = ()) -> Path:
    """Write ``index.html`` into a folder that `ugatit.translation.export.export` made, and what makes an app of it.

    Args:
        folder: of the ONNX files.
        given: the npm package onnxruntime-web, if it shall not be downloaded.
        name: what the app is called.
        examples: JPEG or PNG files to be clicked.

    Raises:
        UserError: the model is too large for a browser or of other pictures, or onnxruntime-web cannot be had.
        OSError: the page cannot be written.
    """
    system = configured(folder)
    models = {direction: (folder / f"{direction}.onnx").read_bytes() for direction in system.directions}
    size = sum(map(len, models.values())) // 2**20
    if size > LARGEST:
        raise UserError(f"--page: the model has {size} MiB, a page at most {LARGEST}: export a light model.")
    with tarfile.open(runtime(given)) as archive:
        files = {name: archive.extractfile(f"package/dist/{file}") for name, file in PARTS.items()}
        parts = {name: file.read() for name, file in files.items() if file}
    settings = {
        "size": system.config.size,
        "samples": {direction: browser_samples(system.config, direction) for direction in system.directions},
        "anySize": system.any_size,
        "styles": system.styles,
        "directions": system.directions,
    }
    blocks = [
        f'<script type="application/octet-stream" id="{name}">{packed(data)}</script>'
        for name, data in (parts | models).items()
    ]
    install = '<link rel="manifest" href="app.webmanifest"><link rel="icon" href="icon-192.png">'
    filled = {"INSTALL": install, "SETTINGS": json.dumps(settings), "EXAMPLES": "".join(map(example, examples))}
    page = TEMPLATE.read_text("utf-8")
    for place, text in (filled | {"BLOCKS": "\n".join(blocks)}).items():
        page = page.replace(place, text, 1)
    path = folder / "index.html"
    write_text(path, page)
    write_app(folder, name)
    return path
