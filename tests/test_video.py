"""Videos: sound, timing and colours stay, memory does too, and a killed run goes on."""

import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import av
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import EMOJI, one_thread, run_here, run_ugatit, tiny_model, write_picture
from ugatit.data.finding import find_files
from ugatit.io.errors import UserError
from ugatit.systems.base import Translation
from ugatit.translation import video
from ugatit.translation.files import is_video
from ugatit.translation.folder import save_model
from ugatit.translation.frames import FrameClock, frames, opened, upright
from ugatit.translation.joining import not_kept
from ugatit.translation.translator import Translator
from ugatit.translation.video import PIECE, beside, translate_video

BT709, BT601, TV, PC = 1, 5, 1, 2  # FFmpeg's numbers


class Same(Translator):
    """Translates nothing, so that what a video loses is seen."""

    def one_way(self, direction, count):
        return lambda x: Translation(x, None)


def film(path, count=20, size=(96, 64), rate=Fraction(25), colours=(BT601, TV), times=None, sound=True):
    """Real pictures that slide by, in colours, with a tone."""
    pictures = [Image.open(file).convert("RGB").resize(size) for file in find_files(EMOJI / "testA")[:3]]
    wide = np.concatenate([np.asarray(picture) for picture in pictures], 1)
    base = Fraction(1, 600)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = (
            colours[0]
        )
        stream.codec_context.color_range = colours[1]
        tone = output.add_stream("aac", rate=16000, layout="mono") if sound else None
        for n in range(count):
            left = n * 3 % (2 * size[0])
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, left : left + size[0]]), "rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=colours[0], dst_color_range=colours[1])
            frame.pts, frame.time_base = times[n] if times else round(n / rate / base), base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if tone:
            wave = (8000 * np.sin(np.arange(int(16000 * count / rate)) / 20)).astype(np.int16)
            for start in range(0, len(wave), 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "s16", "mono")
                piece.sample_rate, piece.pts = 16000, start
                output.mux(tone.encode(piece))
            output.mux(tone.encode(None))
    return path


def content(path) -> dict:
    """Everything that shall stay."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        found = {
            "look": tuple(
                int(getattr(context, n)) for n in ("colorspace", "color_range", "color_primaries", "color_trc")
            ),
            "rate": stream.average_rate,
        }
        frames = list(container.decode(stream))
        found["times"] = [frame.pts * frame.time_base for frame in frames]
        found["pictures"] = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    with av.open(str(path)) as container:
        packets = container.demux(*container.streams.audio) if container.streams.audio else ()
        found["sound"] = [(p.dts * p.time_base, bytes(p)) for p in packets if p.dts is not None]
    return found


def run(translator, source, target, settings=None, size="keep"):
    return list(translate_video(translator, source, target, "a2b", size, 4, settings or {}))


@pytest.fixture
def same():
    return Same(tiny_model("cyclegan"), "cpu")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("colours", [(BT601, TV), (BT709, TV), (BT709, PC)])
def test_sound_timing_and_colours_stay(suffix, colours, same, tmp_path):
    gaps = np.random.default_rng(0).integers(1, 4, PIECE + 6) * 20  # neither even nor in one piece
    source = film(tmp_path / f"in.{suffix}", PIECE + 6, colours=colours, times=np.cumsum(gaps).tolist())
    done = run(same, source, tmp_path / f"out.{suffix}")
    assert [d for d, _ in done] == [0, PIECE, PIECE + 6]
    assert done[0][1] == PIECE + 6 or suffix == "mkv"  # which tells no count, and uneven times none to reckon with
    before, after = content(source), content(tmp_path / f"out.{suffix}")
    assert after["look"] == before["look"]
    assert after["sound"] == before["sound"] and len(after["sound"]) > 10
    tolerance = 0.0006 if suffix == "mkv" else 1e-9  # Matroska counts milliseconds
    assert [float(t) for t in after["times"]] == pytest.approx([float(t) for t in before["times"]], abs=tolerance)
    gap = np.abs(after["pictures"].astype(int) - before["pictures"])
    assert gap.mean() < 4, "of 255, lost to coding again"
    assert np.abs(after["pictures"].mean((0, 1, 2)) - before["pictures"].mean((0, 1, 2))).max() < 1.4
    assert not list(tmp_path.glob(".*")), "no pieces are left"


def test_time_may_begin_before_zero(same, tmp_path):
    source = film(tmp_path / "in.mkv", 4, times=[-48, -24, 0, 24])
    run(same, source, tmp_path / "out.mkv")
    times = [content(tmp_path / name)["times"] for name in ("in.mkv", "out.mkv")]
    assert len(times[0]) == 4 and times[0] == times[1]


@pytest.mark.parametrize("turned", [0, 90, 180, -90])
def test_frames_are_turned_upright(turned):
    """FFmpeg tells by how many degrees players turn a frame, counterclockwise."""

    class Turned:
        rotation, format, side_data = turned, av.VideoFormat("rgb24"), ()
        width, height, colorspace = 6, 4, BT709

        def to_ndarray(self, **_):
            return np.array(Image.fromarray(picture).rotate(-turned, expand=True))

    picture = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    assert np.array_equal(upright(Turned()), picture)


def test_odd_sizes_and_silent_films(same, tmp_path):
    source = film(tmp_path / "in.mkv", 5, sound=False)
    run(same, source, tmp_path / "out.mkv", size="model")  # 32 px: 48 x 32
    after = content(tmp_path / "out.mkv")
    assert after["pictures"].shape == (5, 32, 48, 3) and not after["sound"]
    small = Same(tiny_model("ugatit", light=False), "cpu")
    run(small, film(tmp_path / "odd.mp4", 3, (66, 46)), tmp_path / "odd-out.mp4", size="tiles")
    assert content(tmp_path / "odd-out.mp4")["pictures"].shape == (3, 46, 66, 3)


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    source = film(tmp_path / "film.mp4", 3 * PIECE, (192, 128))
    arguments = ["translate", tmp_path / "model", source, "--size", "keep", "--batch", "1", "-o"]
    assert run_here(*arguments, tmp_path / "whole").returncode == 0
    command = [sys.executable, "-m", "ugatit", *map(str, arguments), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=one_thread())
    pieces = tmp_path / "killed" / ".film.mp4.pieces"
    while not list(pieces.glob("000000-*.mp4")):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "film.mp4").exists()
    (tmp_path / "witness").hardlink_to(next(pieces.glob("000000-*.mp4")))
    written = (tmp_path / "witness").stat()
    assert run_ugatit(*arguments, tmp_path / "killed").returncode == 0
    assert not pieces.exists()
    assert (tmp_path / "witness").stat().st_mtime_ns == written.st_mtime_ns
    assert (tmp_path / "killed" / "film.mp4").read_bytes() == (tmp_path / "whole" / "film.mp4").read_bytes()


def test_pieces_of_other_settings_are_not_used(same, tmp_path):
    source = film(tmp_path / "in.mp4", PIECE + 1)
    begun = translate_video(same, source, tmp_path / "out.mp4", "a2b", "keep", 4, {"style": 1})
    assert [next(begun)[0], next(begun)[0]] == [0, PIECE]
    begun.close()
    assert run(same, source, tmp_path / "out.mp4", {"style": 1})[0][0] == PIECE
    begun = translate_video(same, source, tmp_path / "out.mp4", "a2b", "keep", 4, {"style": 1})
    next(begun), next(begun)
    begun.close()
    assert run(same, source, tmp_path / "out.mp4", {"style": 2})[0][0] == 0


def test_all_frames_have_one_style(tmp_path):
    translator = Translator(tiny_model("munit"), "cpu")
    still = np.zeros((64, 64, 3), np.uint8)
    with av.open(str(tmp_path / "still.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(9):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(still, "rgb24").reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    run(translator, tmp_path / "still.mp4", tmp_path / "out.mp4")
    pictures = content(tmp_path / "out.mp4")["pictures"].astype(int)
    assert np.abs(pictures - pictures[0]).max() <= 3, "a still film stays still"
    drawn = [translator.draw_styles(3) for _ in range(2)]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0][0], drawn[0][2])


def test_films_beside_pictures_and_what_is_no_film(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=0)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    film(tmp_path / "in" / "sub" / "film.ts", 3)
    write_picture(tmp_path / "in" / "one.png", 0)
    (tmp_path / "in" / "damaged.mp4").write_bytes(b"no film")
    done = run_here("translate", tmp_path / "model", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0 and "2 files written" in done.stderr
    assert "damaged.mp4 cannot be read" in done.stderr and "Traceback" not in done.stderr
    assert content(tmp_path / "out" / "sub" / "film.mkv")["pictures"].shape == (3, 32, 48, 3)
    assert (tmp_path / "out" / "one.png").exists()
    film(tmp_path / "short.mp4", 200)
    cut = (tmp_path / "short.mp4").read_bytes()
    (tmp_path / "short.mp4").write_bytes(cut[: len(cut) // 2])
    for options, reason in (([], "short.mp4 cannot be read"), (["--attention"], "so not of")):
        done = run_here("translate", tmp_path / "model", tmp_path / "short.mp4", "-o", tmp_path / "out", *options)
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr


def test_one_film_ends_no_other(same, tmp_path, monkeypatch):
    """Its name may be as long as names may be, or its sound fit into no result."""
    film(tmp_path / "in.mp4", 3)
    long = tmp_path / ("n" * 251 + ".mp4")
    run(same, tmp_path / "in.mp4", long)
    assert content(long)["pictures"].shape[0] == 3 and not list(tmp_path.glob(".*"))
    monkeypatch.setattr(video, "join", Mock(side_effect=ValueError("no such codec")))
    with pytest.raises(ValueError, match=r"cannot be joined with its sound in .* \(no such codec\); its pictures stay"):
        run(same, tmp_path / "in.mp4", tmp_path / "out.mp4")


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {film}\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>{film}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_other_files_are_no_films(kind, tmp_path, monkeypatch):
    film(tmp_path / "secret.ts", 3)
    (tmp_path / "list.mp4").write_text(LISTS[kind].format(film=tmp_path / "secret.ts"))
    with pytest.raises(ValueError, match="cannot be read"), opened(tmp_path / "list.mp4"):
        pass
    monkeypatch.chdir(tmp_path)
    (tmp_path / "concat:secret.ts|secret.ts").write_bytes(b"no film")
    with pytest.raises(ValueError, match="cannot be read"), opened(Path("concat:secret.ts|secret.ts")):
        pass
    film(tmp_path / "http:film.mp4", 3)
    translator = Same(tiny_model(), "cpu")
    list(translate_video(translator, Path("http:film.mp4"), Path("http:made.mp4"), "a2b", "keep", 8, {}))
    assert content(tmp_path / "http:made.mp4")["pictures"].shape[0] == 3


def test_a_film_that_changes_its_size_keeps_the_first(tmp_path):
    """As recordings of a screen do; players scale too."""
    parts = []
    for size in ((96, 64), (192, 128)):
        film(tmp_path / "part.h264", 6, size=size, sound=False)
        parts.append((tmp_path / "part.h264").read_bytes())
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    with opened(tmp_path / "both.h264") as container:
        found = [np.asarray(picture, int) for _, picture in frames(container)]
    assert len(found) >= 11 and {picture.shape for picture in found} == {(64, 96, 3)}
    assert np.abs(found[0] - found[6]).mean() < 12, "the same pictures, larger in the file"
    assert np.abs(found[0] - found[3]).mean() > 12, "unlike the film's others"


def test_pieces_do_not_go_through_a_link(tmp_path):
    film(tmp_path / "in.mp4", 3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.mp4.pieces").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        list(
            translate_video(Same(tiny_model(), "cpu"), tmp_path / "in.mp4", tmp_path / "out.mp4", "a2b", "keep", 8, {})
        )
    assert not list((tmp_path / "elsewhere").iterdir())


CONTAINERS = {  # codec, FFmpeg's name of the container, frames a second, time base, times
    "avi": ("mpeg4", "avi", 25, None, None),
    "mkv": ("libx264", "matroska", 30, None, None),
    "uneven.mkv": ("libx264", "matroska", 25, Fraction(1, 1000), [40 * i + 13 * (i % 3) for i in range(20)]),
    "mov": ("libx264", "mov", 24, Fraction(1, 600), [25 * i for i in range(20)]),
    "mp4": ("libx264", "mp4", Fraction(24000, 1001), None, None),
    "ts": ("libx264", "mpegts", 25, None, None),
    "webm": ("libvpx", "webm", 25, None, None),
    "wmv": ("wmv2", "asf", 25, None, None),
}


def plain_film(path, codec, container, rate, base=None, times=None, aspect=None, pixels="yuv420p", count=20):
    base = base or 1 / Fraction(rate)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        stream.codec_context.time_base = base
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for n in range(count):
            shade = np.full((48, 64, 4), (8 * n, 8 * n, 8 * n, 0), np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, "rgba").reformat(format=pixels)
            frame.pts, frame.time_base = times[n] if times else n, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def shown(path) -> list[tuple[float, float]]:
    """When each frame is shown, and for how long, in seconds."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    return sorted((float(p.pts * p.time_base), float((p.duration or 0) * p.time_base)) for p in packets)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_film_lasts_as_long_as_its_source(kind, same, tmp_path):
    source = plain_film(tmp_path / f"in.{kind}", *CONTAINERS[kind])
    target = tmp_path / ("out." + (kind.split(".")[-1] if kind.endswith(("mkv", "mov", "mp4")) else "mkv"))
    run(same, source, target, size="model")
    before, after = shown(source), shown(target)
    if kind == "ts":  # whose clock begins anywhere
        before = [(start - before[0][0], duration) for start, duration in before]
    assert [start for start, _ in after] == pytest.approx([start for start, _ in before], abs=0.0011)
    ends = [(start + (duration or 0.04)) for start, duration in (before[-1], after[-1])]
    assert ends[1] == pytest.approx(ends[0], abs=0.0011)
    with av.open(str(target)) as container:
        assert container.duration / 1e6 == pytest.approx(ends[0], abs=0.002)


def test_pixels_that_are_not_square_and_transparent_ones(same, tmp_path):
    wide = plain_film(tmp_path / "wide.mp4", "libx264", "mp4", 25, aspect=Fraction(2))
    run(same, wide, tmp_path / "out.mp4", size="keep")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    clear = plain_film(tmp_path / "clear.mov", "qtrle", "mov", 25, pixels="argb")
    with opened(clear) as container:
        _, first = next(frames(container))
    assert set(np.unique(np.asarray(first))) == {255}, "white, as in pictures"
    assert not_kept(clear, tmp_path / "out.mov") == [
        "its transparency, which is laid on white",
        "the finer colours of argb: one colour for four pixels is written",
    ]
    assert not_kept(wide, tmp_path / "out.mp4") == []


def test_chapters_stay(same, tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
             {"id": 2, "start": 400, "end": 800, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}}]
        )  # fmt: skip
        for n in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * n, np.uint8), "rgb24")
            frame.pts = n
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    for target in (tmp_path / "out.mkv", tmp_path / "out.mp4"):
        run(same, source, target, size="model")
        with av.open(str(target)) as container:
            found = [(c["metadata"]["title"], float(c["start"] * c["time_base"])) for c in container.chapters()]
        assert found == [("One", 0.0), ("Two", pytest.approx(0.4))]


def test_a_result_has_the_frame_rate_of_its_source(same, tmp_path):
    """x264 says that of its time base, of which Matroska makes how long a frame lasts."""
    for rate, base in ((25, Fraction(1, 1000)), (Fraction(24000, 1001), None)):
        source = plain_film(tmp_path / "in.mkv", "libx264", "matroska", rate, base and Fraction(1, 25))
        run(same, source, tmp_path / "out.mkv", size="model")
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert float(container.streams.video[0].average_rate) == pytest.approx(float(rate), rel=1e-3)


def test_sound_that_the_result_cannot_hold_is_coded_anew_and_said(same, tmp_path):
    source, target = tmp_path / "in.wmv", tmp_path / "out.mkv"
    with av.open(str(source), "w", format="asf") as output:
        stream = output.add_stream("wmv2", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tone = output.add_stream("wmav2", rate=44100, layout="mono", bit_rate=64_000)
        for n in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * n, np.uint8), "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        wave = (8000 * np.sin(np.arange(35280) / 20)).astype(np.int16)
        piece = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
        piece.sample_rate, piece.pts = 44100, 0
        output.mux([*stream.encode(None), *tone.encode(piece), *tone.encode(None)])
    assert not_kept(source, target) == ["its sound as wmav2, which is coded anew as flac"]
    run(same, source, target, size="model")
    sounds = []
    for path in (source, target):
        with av.open(str(path)) as container:
            sounds.append(np.concatenate([f.to_ndarray().mean(0) for f in container.decode(audio=0)]))
    length = min(map(len, sounds))
    assert length > 12000
    heard = sounds[1][:length] / np.abs(sounds[1]).max(), sounds[0][:length] / np.abs(sounds[0]).max()
    assert np.corrcoef(*heard)[0, 1] > 0.999


def test_no_frame_is_lost_where_times_go_to_and_fro(same, tmp_path):
    source = tmp_path / "in.avi"  # which has no times of showing
    with av.open(str(source), "w", format="avi") as output:
        stream = output.add_stream("libx264", rate=25, options={"bf": "2", "b-adapt": "0", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * n, np.uint8), "rgb24")
            frame.pts = n
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    with opened(source) as container:
        found = list(frames(container))
    levels = [np.asarray(picture).mean() for _, picture in found]
    assert len(found) == 50 and levels == sorted(levels)
    assert all(later > time for (time, _), (later, _) in pairwise(found))


def test_clocks_that_begin_anywhere_or_are_set_back(same, tmp_path):
    """As of two broadcasts that were put together."""
    for name, offset in (("a", 25 * 3000), ("b", 25 * 100)):
        plain_film(tmp_path / f"{name}.ts", "libx264", "mpegts", 25, times=[offset + n for n in range(20)])
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    run(same, both, tmp_path / "out.mkv", size="model")
    after = shown(tmp_path / "out.mkv")
    assert [start for start, _ in after] == pytest.approx([0.04 * n for n in range(40)], abs=0.0011)


def test_mirrored_films_are_read_as_players_show_them():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)

    class Side:
        def __init__(self, *matrix):
            self.type, self.matrix = type("Kind", (), {"name": "DISPLAYMATRIX"}), matrix

        def __bytes__(self):
            return np.array(self.matrix, np.int32).tobytes()

    class Frame:
        format, to_ndarray = av.VideoFormat("rgb24"), lambda self, **_: pixels
        width, height, colorspace = 4, 6, BT709

        def __init__(self, rotation, *matrix):
            self.rotation, self.side_data = rotation, (Side(*matrix),)

    one = 1 << 16
    # The matrix maps (x, y) to (a x + c y, b x + d y); FFmpeg's angle of a matrix that mirrors is that of its columns.
    assert np.array_equal(upright(Frame(0, one, 0, 0, 0, one, 0)), pixels)
    assert np.array_equal(upright(Frame(-180, -one, 0, 0, 0, one, 0)), pixels[:, ::-1])
    assert np.array_equal(upright(Frame(0, one, 0, 0, 0, -one, 0)), pixels[::-1])


def test_names_and_languages_stay(same, tmp_path):
    source = film(tmp_path / "sound.mp4", 10)
    named = tmp_path / "in.mkv"
    with av.open(str(source)) as given, av.open(str(named), "w") as output:
        streams = [output.add_stream_from_template(stream) for stream in given.streams]
        output.metadata.update({"title": "A walk", "location": "+52.5200+013.4050/"})
        streams[1].metadata["language"] = "deu"
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    assert not_kept(named, tmp_path / "out.mkv") == ["where it was taken"], "as of pictures"
    for suffix in ("mkv", "mp4"):
        run(same, named, tmp_path / f"out.{suffix}", size="model")
        with av.open(str(tmp_path / f"out.{suffix}")) as container:
            assert container.metadata["title"] == "A walk"
            assert not [name for name in container.metadata if "location" in name.lower()]
            assert container.streams.audio[0].metadata["language"] in ("deu", "ger")


def test_what_is_lost_of_a_film_is_said(tmp_path):
    odd = plain_film(tmp_path / "a.mkv", "libx264", "matroska", 25, pixels="yuv444p")
    assert not_kept(odd, tmp_path / "out.mkv") == [
        "the finer colours of yuv444p: one colour for four pixels is written"
    ]
    deep = plain_film(tmp_path / "b.mkv", "ffv1", "matroska", 25, pixels="yuv420p10le")
    assert not_kept(deep, tmp_path / "out.mkv") == ["more than 8 bits of its colours"]
    clear = plain_film(tmp_path / "c.webm", "libvpx-vp9", "webm", 25, pixels="yuva420p")
    assert not_kept(clear, tmp_path / "out.mkv") == ["its transparency"]


def test_frames_are_made_beside_the_work_on_others_and_in_order():
    """Also that what goes wrong there is raised here, and that nothing is left running."""
    made = []

    def numbers():
        for n in range(100):
            made.append(n)
            yield n
            if n == 50:
                raise ValueError("damaged")

    before = threading.active_count()
    with beside(numbers(), 3) as taken, pytest.raises(ValueError, match="damaged"):
        first = next(taken)
        deadline = time.monotonic() + 10
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert first == 0 and made == [0, 1, 2, 3, 4], "three wait and one more is being handed over"
        list(taken)
    assert made[-1] == 50
    with beside(numbers(), 3) as taken:
        assert [next(taken), next(taken)] == [0, 1]
    with beside(iter("abc"), 1) as letters:
        assert list(letters) == ["a", "b", "c"]
    assert threading.active_count() == before


def flat_film(path, rgb, size, codec="ffv1", kind="yuv420p", matrix=BT601, tags=(), count=3):
    """Frames of one colour, or one for each column (16 bits a sample), in colours of ``matrix``; ``tags`` are what the
    file says of them."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, kind
        for name, value in tags:
            setattr(stream.codec_context, name, value)
        for _ in range(count):
            pixels = np.empty((size[1], size[0], 3), np.uint16)
            pixels[:] = rgb
            frame = av.VideoFrame.from_ndarray(pixels, "rgb48le").reformat(format=kind, dst_colorspace=matrix)
            for name, value in tags:
                setattr(frame, name, value)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def middle(path) -> np.ndarray:
    """The colour in the middle of a film's first frame, as it is read."""
    with opened(path) as container:
        _, picture = next(frames(container))
        return np.asarray(picture)[picture.height // 2, picture.width // 2].astype(int)


def as_shown(path, matrix) -> np.ndarray:
    """The colour in the middle of a film's first frame, as what takes that matrix shows it."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        values = frame.to_ndarray(format="rgb24", src_colorspace=matrix)
        return values[frame.height // 2, frame.width // 2].astype(int)


def test_a_film_that_does_not_tell_its_matrix_is_read_as_players_take_its_size(same, tmp_path):
    green = np.array([40, 200, 60])
    for size, matrix in (((96, 64), BT601), ((1280, 64), BT709), ((64, 640), BT709)):
        source = flat_film(tmp_path / "in.mkv", green * 257, size, matrix=matrix)
        assert np.abs(middle(source) - green).max() <= 3, size
        run(same, source, tmp_path / "out.mkv")
        assert np.abs(as_shown(tmp_path / "out.mkv", matrix) - green).max() <= 3, size


def test_a_film_in_rgb_gets_a_matrix_and_its_tag(same, tmp_path):
    green = np.array([40, 200, 60])
    for size, matrix, tag in (((96, 64), BT601, 6), ((64, 640), BT709, 1)):
        source = flat_film(tmp_path / "in.mkv", green * 257, size, "libx264rgb", "rgb24", tags=[("colorspace", 0)])
        run(same, source, tmp_path / "out.mkv")
        with av.open(str(tmp_path / "out.mkv")) as container:
            assert int(container.streams.video[0].codec_context.colorspace) == tag
        assert np.abs(as_shown(tmp_path / "out.mkv", matrix) - green).max() <= 3


@pytest.mark.parametrize(("curve", "white", "signals"), [("pq", 0.58, (0.3, 0.4, 0.5)), ("hlg", 0.75, (0.2, 0.4, 0.6))])
def test_a_film_of_high_dynamic_range_is_brought_to_the_usual_one(curve, white, signals, same, tmp_path):
    tags = [("colorspace", 9), ("color_primaries", 9), ("color_trc", {"pq": 16, "hlg": 18}[curve])]
    bands = np.repeat(np.round(np.array([*signals, white]) * 65535), 24)[:, None]  # side by side
    source = flat_film(tmp_path / "in.mkv", bands, (96, 64), kind="yuv420p10le", matrix=9, tags=tags, count=1)
    with opened(source) as container:
        shown = np.asarray(next(frames(container))[1])[32, 12::24].astype(int)
    assert np.ptp(shown, 1).max() <= 2, "grey stays grey"
    levels = shown[:, 0].tolist()
    assert levels == sorted(levels) and 110 < levels[-1] < 256, "what is white in it is bright"
    assert levels[0] < 0.8 * signals[0] * 255, "dark is dark, and not pale as the curve itself"
    assert "its high dynamic range, which is brought to the usual one" in not_kept(source, tmp_path / "out.mkv")
    run(same, source, tmp_path / "out.mkv")
    assert content(tmp_path / "out.mkv")["look"] == (1, TV, 1, 1)
    with av.open(str(tmp_path / "out.mkv")) as container:
        made = next(container.decode(video=0)).to_ndarray(format="rgb24", src_colorspace=BT709)
    assert np.abs(made[32, 12::24].astype(int) - shown).max() <= 4


def test_films_are_known_by_all_their_suffixes():
    for name in ("a.VOB", "b.mxf", "c.nut", "d.f4v", "e.y4m", "f.h264", "g.hevc", "h.mpg", "i.webm", "j.avi", "k.rmvb"):
        assert is_video(Path(name)), name
    assert not is_video(Path("a.png")) and not is_video(Path("b.tif"))


@pytest.mark.parametrize(
    "times", [[0, 100, 200, 300, 10300, 10300, 10400, 10500], [0, 100, 200, 10200, 10190, 10300, 10400, 10500]]
)
def test_a_time_that_stands_there_twice_after_a_long_still_delays_nothing(times):
    """Recordings of screens have such: what follows keeps its times, and the sound with it."""
    clock = FrameClock(1000, 100, 0)
    found = [clock.time(SimpleNamespace(pts=time, dts=None)) for time in times]
    assert all(later > earlier for earlier, later in pairwise(found))
    assert max(abs(a - b) for a, b in zip(found, times, strict=True)) <= 110 and abs(found[-1] - times[-1]) <= 110


def test_a_film_that_another_process_translates_is_left_to_it(same, tmp_path):
    source, target = film(tmp_path / "in.mp4", sound=False), tmp_path / "out.mp4"
    first = translate_video(same, source, target, "a2b", "model", 4, {})
    next(first)
    code = (
        "import sys; from pathlib import Path; from ugatit.translation.video import alone\n"
        "with alone(Path(sys.argv[1]), Path(sys.argv[2])): pass"
    )
    second = subprocess.run([sys.executable, "-c", code, tmp_path / ".out.mp4.pieces", target], capture_output=True)
    assert b"out.mp4 by another process: wait for its end" in second.stderr.splitlines()[-1]
    list(first)
    assert target.exists() and not (tmp_path / ".out.mp4.pieces").exists()
