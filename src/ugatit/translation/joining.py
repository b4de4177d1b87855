"""The last step of a video: translated pieces, and all else that the source has, in one file."""

import heapq
import io
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ugatit.io.errors import package
from ugatit.io.files import atomic_file
from ugatit.translation.frames import (
    HDR,
    LONG_STEP,
    beginning,
    film_of,
    first_frame,
    frame_rate,
    opened,
    time_base,
)

if TYPE_CHECKING:
    import av

FORMATS = {".mkv": "matroska", ".mov": "mov"}  # FFmpeg's names by suffix; others are MP4
LOSSLESS = {"matroska": "flac", "mov": "alac", "mp4": "alac"}  # what sound becomes that a file cannot hold
PLACE = re.compile("location|gps", re.IGNORECASE)  # in the names of what tells where a film was taken
PLAIN = {"420p", "nv12", "nv21", "gray", "pal8"}  # parts of the names of pixel formats that lose no colours


def format_of(target: Path) -> str:
    """FFmpeg's name of the format that a file's suffix names."""
    return FORMATS.get(target.suffix.lower(), "mp4")


def carried(source: "av.container.InputContainer", target: Path) -> dict[int, bool]:
    """Which streams of sound and subtitles a result has, by their index: True as they are, False coded anew."""
    av, kind = package("av", "video"), format_of(target)
    with av.open(io.BytesIO(), "w", format=kind) as empty:
        held = empty.supported_codecs
    as_they_are = {s.index: codec_of(s) in held for s in (*source.streams.audio, *source.streams.subtitles)}
    anew = {s.index for s in source.streams.audio if s.codec_context is not None}
    return {index: kept for index, kept in as_they_are.items() if kept or index in anew}


def codec_of(stream: "av.stream.Stream") -> str:
    """FFmpeg's name of how a stream is coded; nothing where FFmpeg does not know it."""
    return stream.codec_context.codec.name if stream.codec_context else ""


def not_kept(source: Path, target: Path) -> list[str]:
    """What a video has and its translation will not have, as phrases; nothing for what is no video.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        with opened(source) as container:
            lost = lost_streams(container, target) + lost_colours(container)
            if any(map(PLACE.search, container.metadata)):
                lost.append("where it was taken")
            first = first_frame(container)
            if first is not None and first.interlaced_frame:
                lost.append("its interlacing")
            if first is not None and (first.width % 2 or first.height % 2):
                lost.append("its odd size, which grows by a row or a column")
            return lost
    except (ValueError, AttributeError):  # it is told what it is when it is translated
        return []


def lost_streams(container: "av.container.InputContainer", target: Path) -> list[str]:
    """What streams the translation will not have, or have otherwise, as phrases."""
    kept, lost = carried(container, target), []
    for stream in container.streams.audio:
        if not kept.get(stream.index, False):
            name = codec_of(stream) or "an unknown kind"
            what = f"coded anew as {LOSSLESS[format_of(target)]}" if stream.index in kept else "left out"
            lost.append(f"its sound as {name}, which is {what}")
    subtitles = {codec_of(s) or "unknown" for s in container.streams.subtitles if s.index not in kept}
    if subtitles:
        lost.append(f"its subtitles of the kind {', '.join(sorted(subtitles))}")
    chapters = container.chapters()
    others = {
        stream.type
        for stream in container.streams
        if stream.type not in ("video", "audio", "subtitle")
        and not (stream.type == "data" and stream.name == "bin_data" and chapters)  # which are chapters' names
    }
    if others:
        lost.append(f"its streams of the kind {', '.join(sorted(others))}")
    if len(container.streams.video) > 1:
        lost.append("all but the first of its pictures' streams")
    return lost


def lost_colours(container: "av.container.InputContainer") -> list[str]:
    """What of its colours the translation will not have, as phrases."""
    film = film_of(container)
    components, lost = film.format.components, []
    if int(film.codec_context.color_trc) in HDR:
        lost.append("its high dynamic range, which is brought to the usual one")
    if any(component.bits > 8 for component in components):
        lost.append("more than 8 bits of its colours")
    if any(component.is_alpha for component in components):
        lost.append("its transparency, which is laid on white")
    elif film.metadata.get("alpha_mode") == "1":  # beside the pictures, where FFmpeg does not look
        lost.append("its transparency")
    if not any(part in film.format.name for part in PLAIN):
        lost.append(f"the finer colours of {film.format.name}: one colour for four pixels is written")
    return lost


def last_duration(container: "av.container.InputContainer") -> int:
    """How long the last frame of a video is shown, in units of its time base."""
    tick = round(1 / frame_rate(container) / time_base(container))
    packets = container.demux(film_of(container))
    ends = [(packet.pts, packet.duration or tick) for packet in packets if packet.pts is not None]
    return max(ends, default=(0, tick))[1]


def join(pieces: list[Path], source: "av.container.InputContainer", last: int, path: Path) -> None:
    """Write pieces one after the other with the source's sound, subtitles, chapters and names, atomically; pictures are
    not coded again, and sound only where the file cannot hold it.

    Args:
        pieces: in order.
        source: whose sound, subtitles, chapters and names they are.
        last: how long the last frame is shown, in units of the source's time base.
        path: to write.

    Raises:
        av.FFmpegError: the sound does not fit into such a file.
    """
    av, base, film = package("av", "video"), time_base(source), film_of(source)
    kind = format_of(path)
    with atomic_file(path) as temporary, av.open(str(temporary.absolute()), "w", format=kind) as output:
        with av.open(str(pieces[0].absolute())) as first:
            pictures = output.add_stream_from_template(first.streams.video[0])
        pictures.time_base = base
        pictures.codec_context.framerate = frame_rate(source)  # x264's is that of the time base
        made = {film.index: pictures}
        for index, as_it_is in carried(source, path).items():
            made[index] = added(output, source.streams[index], None if as_it_is else LOSSLESS[kind])
        output.metadata.update({name: told for name, told in source.metadata.items() if not PLACE.search(name)})
        for index, stream in made.items():
            stream.metadata.update(names_of(source.streams[index], kind))
            stream.disposition = source.streams[index].disposition
        output.set_chapters(source.chapters())
        copied = [(source.streams[index], stream) for index, stream in made.items() if index != film.index]
        streams = seen(pieces, pictures, base, last), heard(source, copied)
        for _, _, packet in heapq.merge(*streams, key=lambda entry: entry[:2]):  # a muxer waits for what is late
            output.mux(packet)


def names_of(stream: Any, kind: str) -> dict[str, str]:
    """What a stream says of itself, such as its language, as a file of that format takes it."""
    names = dict(stream.metadata)
    if kind != "matroska" and "name" in names:  # as MP4 and MOV are read, where they are written with "title"
        names["title"] = names.pop("name")
    return names


def added(output: "av.container.OutputContainer", stream: Any, codec: str | None) -> Any:
    """A stream of a file for the sound or subtitles of another; coded anew if a codec is given."""
    if codec is None:
        return output.add_stream_from_template(stream)
    new: Any = output.add_stream(codec, rate=stream.codec_context.sample_rate)
    new.layout = stream.codec_context.layout
    return new


def seen(pieces: list[Path], pictures: Any, base: Fraction, last: int) -> Iterator[tuple[float, int, Any]]:
    """When, the place among streams, and the packet of each picture, which lasts until the next one."""
    av = package("av", "video")

    def packets() -> Iterator[Any]:
        for piece in pieces:
            start = int(piece.stem.split("-", 1)[1])
            with av.open(str(piece.absolute())) as container:
                for packet in container.demux(video=0):
                    if packet.pts is not None:
                        packet.pts = packet.dts = start + round(packet.pts * packet.time_base / base)
                        packet.time_base, packet.stream = base, pictures
                        yield packet

    all_packets = packets()
    packet = next(all_packets)
    for following in chain(all_packets, [None]):
        packet.duration = last if following is None else following.pts - packet.pts
        yield float(packet.pts * base), 0, packet
        packet = following


def heard(source: "av.container.InputContainer", copied: list[tuple[Any, Any]]) -> Iterator[tuple[float, int, Any]]:
    """When, the place among streams, and the packet of all sound and subtitles, whose clocks only go on.

    Args:
        source: to read from.
        copied: its streams, and those of the result.
    """
    av = package("av", "video")
    target = {stream.index: new for stream, new in copied}
    zero = beginning(source)
    shifts = {stream.index: -round(zero / stream.time_base) for stream, _ in copied}
    ends: dict[int, int] = {}
    packets = source.demux(*[stream for stream, _ in copied]) if copied else iter(())
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # the rest is cut off, as that of the pictures is
            break
        if packet is None:
            break
        index = packet.stream.index
        new = target[index]
        if packet.dts is not None:
            step = packet.dts + shifts[index] - ends.get(index, packet.dts + shifts[index])
            if step < 0 or step * packet.time_base > LONG_STEP:  # the clock was set
                shifts[index] = ends[index] - packet.dts
            packet.dts += shifts[index]
            packet.pts = packet.dts if packet.pts is None else packet.pts + shifts[index]
            ends[index] = packet.dts + (packet.duration or 0 if packet.stream.type == "audio" else 0)
        coded = new.codec_context is not None and new.codec_context.is_encoder
        for each in encoded(packet, new) if coded else [packet] if packet.dts is not None else []:
            at = float(each.dts * each.time_base)
            each.stream = new
            yield at, 1, each


def encoded(packet: Any, stream: Any) -> list[Any]:
    """A packet of sound coded anew, as the packets that it makes; all that is left for the empty one at the end."""
    av = package("av", "video")
    try:
        sound = packet.decode()
    except av.FFmpegError:  # damaged
        sound = []
    for frame in sound:
        if frame.pts is None:  # the first ones of some codecs
            frame.pts, frame.time_base = packet.pts, packet.time_base
    made = [each for frame in sound for each in stream.encode(frame)]
    return made if packet.size else [*made, *stream.encode(None)]
