"""distill/audio/safe_decode.py, containers, mpeg, ffmpeg: sound comes whole or is refused."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from distill.audio import safe_decode
from distill.audio.containers import tell
from distill.audio.mpeg import frame_header
from distill.audio.safe_decode import Decoder, Limits, Promise, decode, decode_safely, promise
from distill.errors import AudioError, SettingsError

RATE = 22050
ENDINGS = ("wav", "flac", "ogg", "opus", "mp3")
EXACT = {"wav": 4e-5, "flac": 4e-5, "ogg": 0.05, "opus": 0.2, "mp3": 0.05}


def melody(seconds: float = 2.0, rate: int = RATE, channels: int = 1) -> NDArray[np.float32]:
    """A gliding tone and a little noise, wave_WC: no two moments alike."""
    t = np.arange(int(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(0).standard_normal((len(t), channels))
    return (0.4 * np.sin(2 * np.pi * (220 * t + 40 * t * t))[:, None] + noise).astype(np.float32)


def write(path: Path, wave_WC: NDArray[np.float32], rate: int = RATE, **more: object) -> Path:
    if path.suffix == ".opus":
        rate, more = 24000, {"format": "OGG", "subtype": "OPUS"}
    soundfile.write(str(path), wave_WC, rate, **more)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def decoder():
    with Decoder(Limits(wall_seconds=20)) as worker:
        yield worker


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_container_comes_out_as_it_went_in(
    tmp_path: Path, decoder: Decoder, ending: str, channels: int
) -> None:
    wave_WC = melody(channels=channels)
    path = write(tmp_path / f"a.{ending}", wave_WC)
    here, there = decode(path), decoder.decode(path)
    assert here.sample_rate == there.sample_rate == (24000 if ending == "opus" else RATE)
    assert here.wave_CW.dtype == np.float32 and here.wave_CW.shape == (channels, len(wave_WC))
    assert np.array_equal(here.wave_CW, there.wave_CW)
    assert np.abs(here.wave_CW.T - wave_WC)[2000:-2000].max() < EXACT[ending]
    assert (
        decoder.promise(path) == promise(path) == Promise(len(wave_WC), channels, here.sample_rate)
    )
    assert here.seconds == promise(path).seconds and here.mono().shape == (len(wave_WC),)


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM"]
)
def test_kinds_of_wav(tmp_path: Path, subtype: str) -> None:
    wave_WC = melody(channels=2)
    path = write(tmp_path / "a.wav", wave_WC, subtype=subtype)
    assert np.array_equal(
        decode(path).wave_CW[:, : len(wave_WC)].T,
        soundfile.read(path, dtype="float32")[0][: len(wave_WC)],
    )


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_a_flac_is_held_against_its_md5(tmp_path: Path, subtype: str) -> None:
    path = write(tmp_path / "a.flac", melody(channels=2), subtype=subtype)
    assert np.array_equal(decode(path).wave_CW.T, soundfile.read(path, dtype="float32")[0])
    data = bytearray(path.read_bytes())
    data[26] ^= 1  # in the MD5 itself
    path.write_bytes(data)
    with pytest.raises(AudioError, match="MD5"):
        decode(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_cut_anywhere_it_is_refused_and_never_short(tmp_path: Path, ending: str) -> None:
    data = write(tmp_path / f"a.{ending}", melody()).read_bytes()
    cuts = np.random.default_rng(1).integers(1, len(data), 40).tolist()
    for length in [*cuts, len(data) - 1, len(data) - 2, 1, 0]:
        (tmp_path / f"cut.{ending}").write_bytes(data[:length])
        with pytest.raises(AudioError, match=f"cut.{ending}: "):
            decode(tmp_path / f"cut.{ending}")


def test_an_mp3_cut_between_two_frames_is_missed_by_its_count(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp3", melody()).read_bytes()
    at = 0
    for _ in range(20):
        frame = frame_header(data[at : at + 4])
        assert frame is not None
        at += frame.bytes
    (tmp_path / "cut.mp3").write_bytes(data[:at])
    with pytest.raises(AudioError, match="truncated, 19 of"):
        promise(tmp_path / "cut.mp3")
    (tmp_path / "twice.mp3").write_bytes(data + data)
    with pytest.raises(AudioError, match="several files"):
        promise(tmp_path / "twice.mp3")


def test_an_mp3_of_variable_rate_without_a_count_is_read_to_its_end(tmp_path: Path) -> None:
    """libsndfile guesses 129,719 of 531,072 samples for such a file, and stops there."""
    wave_WC = melody(12.0, 44100)
    wave_WC[: 6 * 44100] *= 1e-4
    noise_WC = np.random.default_rng(0).standard_normal((6 * 44100, 1)).astype(np.float32)
    wave_WC[6 * 44100 :] += 0.2 * noise_WC
    data = write(
        tmp_path / "a.mp3", wave_WC, 44100, bitrate_mode="VARIABLE", compression_level=0.5
    ).read_bytes()
    first = frame_header(data[:4])
    assert first is not None and b"Xing" in data[: first.bytes]
    (tmp_path / "bare.mp3").write_bytes(data[first.bytes :])
    assert soundfile.info(tmp_path / "bare.mp3").frames < 0.5 * len(wave_WC)  # what this is about
    whole, bare = decode(tmp_path / "a.mp3"), decode(tmp_path / "bare.mp3")
    assert whole.wave_CW.shape == (1, len(wave_WC))
    assert bare.wave_CW.shape[1] >= len(wave_WC)
    late = slice(10 * 44100, 11 * 44100)
    assert np.abs(bare.wave_CW[0, 576:][late] - whole.wave_CW[0, late]).max() < 1e-3


def test_tags_around_the_sound_are_no_damage(tmp_path: Path) -> None:
    """ID3 around an MP3 and a FLAC, APE behind an MP3, LIST and ID3 behind a WAV's sound."""
    front = b"ID3\x04\0\0" + bytes([0, 0, 1, 10]) + bytes(138)
    for ending, head, tail in (
        ("mp3", front, b"TAG" + bytes(125)),
        ("mp3", b"", b"APETAGEX" + bytes(80)),
        ("mp3", front, b"\0" * 500),
        ("flac", front, b""),
        ("wav", b"", b"LIST\x04\0\0\0INFO"),
        ("wav", b"", b"TAG" + bytes(125)),
        ("ogg", b"", b"\0" * 100),
    ):
        data = write(tmp_path / f"a.{ending}", melody()).read_bytes()
        (tmp_path / f"b.{ending}").write_bytes(head + data + tail)
        assert np.array_equal(
            decode(tmp_path / f"b.{ending}").wave_CW, decode(tmp_path / f"a.{ending}").wave_CW
        )


def test_a_wav_that_announces_too_little_is_refused(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.wav", melody()).read_bytes())
    at = data.index(b"data") + 4
    for size in (0, 1000, 88_198):
        data[at : at + 4] = struct.pack("<I", size)
        (tmp_path / "a.wav").write_bytes(data)
        with pytest.raises(AudioError, match="follow the end"):
            promise(tmp_path / "a.wav")


def test_pages_missing_damaged_or_of_another_ogg(tmp_path: Path) -> None:
    data = write(tmp_path / "a.ogg", melody(12.0)).read_bytes()
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    assert len(pages) > 5
    for content, reason in (
        (b"".join(pages[:3] + pages[4:]), "missing"),
        (b"".join(pages[:-1]), "truncated"),
        (data[:-100] + bytes([data[-100] ^ 4]) + data[-99:], "checksum"),
        (data + data, "several streams"),
    ):
        (tmp_path / "b.ogg").write_bytes(content)
        with pytest.raises(AudioError, match=reason):
            promise(tmp_path / "b.ogg")


def test_not_audio(tmp_path: Path, decoder: Decoder) -> None:
    contents = {
        "empty": b"",
        "text": b"la la la " * 500,
        "zero": bytes(5000),
        "riff": b"RIFF\x04\0\0\0WAVE",
    }
    contents |= {
        "aiff": b"FORM\0\0\0\x04AIFF",
        "flac": b"fLaC" + bytes(100),
        "ogg": b"OggS" + bytes(100),
    }
    contents |= {"mp4": b"\0\0\0\x10ftypM4A \0\0\0\0", "id3": b"ID3\x04\0\0\x7f\x7f\x7f\x7f"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=f"{name}: "):
            promise(tmp_path / name)
        with pytest.raises(AudioError, match=f"{name}: "):
            decoder.decode(tmp_path / name)
    for path in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(AudioError, match="no such audio file"):
            decoder.decode(path)


def test_a_name_that_is_no_text(tmp_path: Path, decoder: Decoder) -> None:
    path = tmp_path / os.fsdecode("f\u00fcr Elise \n\U0001f3b5".encode() + b"\xff.wav")
    path.write_bytes(write(tmp_path / "a.wav", melody()).read_bytes())
    assert decoder.decode(path).wave_CW.shape == decode(path).wave_CW.shape == (1, 2 * RATE)


# -- limits ----------------------------------------------------------------------------------------


def promising_flac(path: Path, rate: int, channels: int, frames: int) -> Path:
    """A FLAC of one second whose STREAMINFO promises `frames`."""
    data = bytearray(write(path, np.zeros((1000, channels), np.float32), 48000).read_bytes())
    packed = int.from_bytes(data[18:26], "big")
    bits = packed >> 36 & 31
    data[18:26] = (rate << 44 | (channels - 1) << 41 | bits << 36 | frames).to_bytes(8, "big")
    path.write_bytes(data)
    return path


GROWTH = """
import resource, sys
from distill.audio.safe_decode import Decoder, decode
from distill.errors import AudioError
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
path, small = sys.argv[1:]
decode(small)
with Decoder() as worker:
    worker.decode(small)
    pid, before = worker._worker.pid, peak()
    def theirs():
        peak = next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    worker_before = theirs()
    for refuse in (decode, worker.decode):
        try:
            refuse(path)
        except AudioError as problem:
            print(problem)
    assert worker._worker.pid == pid
    print(peak() - before, theirs() - worker_before)
"""


@pytest.mark.parametrize("kind", ["gigabytes", "three hours"])
def test_what_is_over_the_limits_is_refused_before_it_is_allocated(
    tmp_path: Path, kind: str
) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the worker's peak memory is read from /proc, which this system lacks")
    small, path = write(tmp_path / "small.flac", melody()), tmp_path / "big.flac"
    if kind == "gigabytes":
        promising_flac(path, 655_350, 8, 655_350 * 1000)
    else:  # a true one: 10,800 s of silence
        with soundfile.SoundFile(path, "w", 2000, 1, "PCM_16") as file:
            for _ in range(12):
                file.write(np.zeros(900 * 2000, np.int16))
    assert path.stat().st_size < 200_000
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(path), str(small)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    *reasons, growth = done.stdout.splitlines()
    wanted = (
        "decodes to 20,000 MiB, the limit is 2,048 MiB"
        if kind == "gigabytes"
        else "lasts 10,800 s, the limit is 1,200"
    )
    assert len(reasons) == 2 and all(wanted in reason for reason in reasons), done.stdout
    assert all(float(number) < 8 for number in growth.split()), (
        f"MiB grown, here and in the worker: {growth}"
    )


def test_a_header_that_lies_within_the_limits_breaks_off(tmp_path: Path, decoder: Decoder) -> None:
    path = promising_flac(tmp_path / "a.flac", 48000, 2, 48000 * 60)
    for take in (decode, decoder.decode):
        with pytest.raises(AudioError, match=r"a.flac: .*(breaks off|truncated|several)"):
            take(path)


def test_limits_hold_for_the_worker_and_here(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", melody(channels=2))
    exact = 2 * RATE * 2 * 4
    assert decode(path, Limits(seconds=2, bytes=exact)).seconds == 2
    for limits in (Limits(bytes=exact - 1), Limits(seconds=1.99)):
        for take in (decode, decode_safely):
            with pytest.raises(AudioError, match="limit"):
                take(path, limits)
    for wrong in ({"seconds": 0}, {"bytes": -1}, {"wall_seconds": float("nan")}):
        with pytest.raises(SettingsError):
            Limits(**wrong)  # type: ignore[arg-type]


# -- the worker ------------------------------------------------------------------------------------


def test_the_worker_imports_nothing_heavy() -> None:
    code = (
        "import sys, distill.audio.safe_decode\n"
        "print({'torch', 'scipy', 'transformers', 'soxr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_worker_lives_for_many_files_and_is_replaced_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_decode, "FILES_PER_WORKER", 3)
    path = write(tmp_path / "a.wav", melody())
    with Decoder() as worker:
        seen = []
        for _ in range(7):
            worker.decode(path)
            assert worker._worker is not None
            seen.append(worker._worker.pid)
        assert len(set(seen)) == 3 and seen[0] == seen[2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_at_work_costs_one_file(tmp_path: Path, number: signal.Signals) -> None:
    path = write(tmp_path / "a.wav", melody())
    with Decoder() as worker:
        worker.decode(path)
        assert worker._worker is not None
        pid = worker._worker.pid
        os.kill(pid, signal.SIGSTOP)  # so that it is surely at work when it is struck
        strike = threading.Timer(0.3, lambda: (os.kill(pid, number), os.kill(pid, signal.SIGCONT)))
        strike.start()
        with pytest.raises(AudioError, match=f"a.wav: its decoder died .signal {number.name}"):
            worker.decode(path)
        strike.join()
        assert worker.decode(path).seconds == 2
        os.kill(worker._worker.pid, signal.SIGKILL)  # and between two files it costs none
        worker._worker.wait()
        assert worker.decode(path).seconds == 2


def test_a_worker_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", melody())
    with Decoder(Limits(wall_seconds=5)) as worker:
        worker.decode(path)
        assert worker._worker is not None
        pid = worker._worker.pid
        worker.limits = Limits(wall_seconds=0.5)
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(AudioError, match=r"a.wav: took more than 0.5 s"):
            worker.decode(path)
        assert time.monotonic() - start < 5
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        worker.limits = Limits()
        assert worker.decode(path).seconds == 2


def test_memory_is_capped(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is capped on Linux only")
    path = write(tmp_path / "a.ogg", melody(60.0))
    small = write(tmp_path / "a.wav", melody(0.1))
    with Decoder(Limits(memory=2**20)) as worker:
        with pytest.raises(AudioError, match=r"a.ogg: "):
            worker.decode(path)
        worker.limits = Limits()
        worker.close()
        assert worker.decode(small).seconds == pytest.approx(0.1)
        assert worker.decode(path).seconds == 60


def test_an_orphan_does_not_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", melody())
    code = (
        "import os, signal, sys; from distill.audio import safe_decode; "
        "safe_decode.decode_safely(sys.argv[1])\n"
        "print([d._worker.pid for d in safe_decode._OWN.values()][0], flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if "\tZ" in Path(f"/proc/{pid}/status").read_text().partition("State:")[2][:3]:
            return  # dead, and only waiting to be counted
        time.sleep(0.05)
    pytest.fail(f"worker {pid} is still there")


def test_an_interrupted_answer_is_not_taken_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        write(tmp_path / "a.wav", melody(20.0)),
        write(tmp_path / "b.wav", melody(1.0, 8000), 8000),
    )
    read = safe_decode._Pipe.read

    def interrupted(self: safe_decode._Pipe, size: int) -> bytearray:
        if size > 1000:
            raise KeyboardInterrupt
        return read(self, size)

    with Decoder() as worker:
        monkeypatch.setattr(safe_decode._Pipe, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.decode(first)
        monkeypatch.undo()
        assert worker.decode(second).sample_rate == 8000


# -- M4A -------------------------------------------------------------------------------------------


def box(name: bytes, *content: bytes) -> bytes:
    inside = b"".join(content)
    return struct.pack(">I4s", 8 + len(inside), name) + inside


def m4a(path: Path, frames: int, rate: int, tracks: int = 1) -> Path:
    """The boxes of an MP4 with nothing in them but the length."""
    length = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, rate, frames, 0))
    moov = box(b"moov", box(b"mvhd", bytes(100)), *[box(b"trak", box(b"mdia", length))] * tracks)
    path.write_bytes(box(b"ftyp", b"M4A \0\0\0\0") + moov + box(b"mdat", bytes(500)))
    return path


def stand_in_ffmpeg(folder: Path, frames: int, status: int = 0) -> Path:
    """A program of that name that writes stereo samples 0, 1/2**20, ..., whatever it is asked."""
    folder.mkdir(exist_ok=True)
    program = folder / "ffmpeg"
    code = (
        "import array, sys; "
        "sys.stdout.buffer.write(array.array('f', [n / 2**20 for n in range(2 * "
        f"{frames})]).tobytes()); sys.exit({status})"
    )
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def test_m4a_through_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = m4a(tmp_path / "a.m4a", 50_000, 44100)
    assert tell(path).frames == 50_000
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(AudioError, match="needs the program ffmpeg"):
        decode(path)
    cases = (
        (50_000, 0, 50_000),
        (48_976, 0, 48_976),
        (60_000, 0, 50_000),
        (30_000, 0, 0),
        (49_000, 1, 0),
    )
    with Decoder() as worker:
        for given, status, wanted in cases:
            stand_in_ffmpeg(tmp_path / "bin", given, status)
            for take in (decode, worker.decode):
                if not wanted:
                    with pytest.raises(AudioError, match=r"a.m4a: .*ffmpeg gave"):
                        take(path)
                    continue
                sound = take(path)
                assert sound.wave_CW.shape == (2, wanted) and sound.sample_rate == 44100
                assert sound.wave_CW[1, 1000] == np.float32(2001 / 2**20)


def test_m4a_that_is_cut_or_holds_more_than_one_track(tmp_path: Path) -> None:
    path = m4a(tmp_path / "a.m4a", 50_000, 44100)
    (tmp_path / "cut.m4a").write_bytes(path.read_bytes()[:-1])
    for wrong in (
        tmp_path / "cut.m4a",
        m4a(tmp_path / "two.m4a", 50_000, 44100, 2),
        m4a(tmp_path / "none.m4a", 0, 0),
    ):
        with pytest.raises(AudioError, match=wrong.name):
            promise(wrong)
