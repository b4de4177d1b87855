"""Fixtures: small pictures, small runs, and the shared data where it is there."""

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads: several test processes share the cores

import numpy as np
import pytest
import torch
from PIL import Image

import ugatit
from ugatit.cli import main
from ugatit.systems import REGISTRY
from ugatit.systems.base import System

EMOJI = Path(ugatit.__file__).parent / "emoji"  # pictures of one name are the same emoji in two styles
SHARED = Path(__file__).resolve().parents[2] / "shared"

TINY = ["--preset", "quick", "--size", "32", "--width", "2", "--blocks", "1", "--batch", "1", "--workers", "0"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that nothing is left in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws does not depend on which tests ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("../shared is missing: it holds the recorded numbers and the real pictures")
    return SHARED


def write_picture(path: Path, seed: int, size: int = 48) -> Path:
    """A smooth random RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder: 6 + 5 training pictures, 2 + 2 test pictures."""
    for i, (name, count) in enumerate({"trainA": 6, "trainB": 5, "testA": 2, "testB": 2}.items()):
        for k in range(count):
            write_picture(tmp_path / "data" / name / f"{k}.png", 10 * i + k)
    return tmp_path / "data"


def one_thread() -> dict[str, str]:
    """The environment with one thread for torch."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run_ugatit(*arguments: object, **options) -> subprocess.CompletedProcess:
    """A real process."""
    command = [sys.executable, "-m", "ugatit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=one_thread(), timeout=300, **options)


def run_here(*arguments: object) -> subprocess.CompletedProcess:
    """The same within this process, which spares the start, for what needs no process of its own."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run_torchrun(processes: int, *arguments: object) -> subprocess.CompletedProcess:
    """Several real processes that know each other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "ugatit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=one_thread(), timeout=300)


CHROMIUM = ["chromium", "chromium-browser", "google-chrome", "chrome"]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield launched
        launched.close()


@contextmanager
def served(*arguments: object) -> Iterator[str]:
    """A ``ugatit`` process that serves a page; its address."""
    command = [sys.executable, "-m", "ugatit", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=one_thread())
    assert process.stderr
    try:
        line = next(line for line in process.stderr if "http://" in line)
        yield next(word for word in line.split() if word.startswith("http://"))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def least_side(system: str) -> int:
    """Of the pictures that a system takes."""
    return 64 if system in ("unit", "munit", "drit") else 32


def tiny_model(name: str = "ugatit", **options) -> System:
    """A small random model of a system."""
    torch.manual_seed(0)
    kind = REGISTRY[name]
    system = kind(replace(kind.presets["quick"].model, size=least_side(name), width=2, blocks=1, **options))
    system.init_weights()
    return system.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The npm package onnxruntime-web, downloaded once for all test runs."""
    from ugatit.apps.page import runtime
    from ugatit.io.errors import UserError

    try:
        return runtime(None)
    except UserError as error:
        pytest.skip(str(error))
