"""The clips are made whole, and the same every time; a small script takes the place of espeak-ng."""

import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers import fetch
from trainers.tasks import DataError, data_folder, standin_speech, tasks
from trainers.tasks.keywords import NOISE, RATE, WORDS, read_wav
from trainers.tasks.standin_speech import synthesise


def stream(samples: np.ndarray) -> bytes:
    """As espeak-ng writes a wav file that goes nowhere in particular: its header knows no length."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(samples.astype("<i2").tobytes())
    content = bytearray(buffer.getvalue())
    content[4:8] = content[40:44] = (0x7FFFF000).to_bytes(4, "little")
    return bytes(content)


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three speakers, and a program that says half a second of 3 kHz, and notes how it was called."""
    tone = 9000 * np.sin(2 * np.pi * 3000 * np.arange(11025) / 22050)
    (tmp_path / "said.wav").write_bytes(stream(np.concatenate([np.zeros(3000), tone, np.zeros(9000)])))
    say(tmp_path, f'echo "$@" >>{tmp_path}/calls; cat {tmp_path}/said.wav')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    monkeypatch.setenv("BIBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(standin_speech, "ACCENTS", ("en-gb",))
    monkeypatch.setattr(standin_speech, "VOICES", {"validation": ("m6",), "test": ("f4",), "train": ("m1",)})
    return tmp_path


def say(folder: Path, line: str) -> None:
    program = folder / "bin" / "espeak-ng"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)


def test_what_is_made_is_what_is_read(speech: Path) -> None:
    fetch.main(["speech"])
    assert data_folder("standin_speech") == speech / "data" / "standin_speech"
    assert [path.name for path in (speech / "data").iterdir()] == ["standin_speech"]
    calls = (speech / "calls").read_text().splitlines()
    assert len(calls) == len(set(calls)) == 240
    assert "-v en-gb+f4 -s 150 -p 65 --stdout -- stop" in calls
    task = tasks["standin_speech"]()
    assert task.splits == {"train": 80, "validation": 80, "test": 80}
    assert task.sizes["num_classes"] == 10
    inputs, labels = task.batch("test", range(80), torch.Generator().manual_seed(0))
    assert inputs.shape == (80, 1, 32, 32) and labels.bincount().tolist() == [8] * 10
    assert all("+f4_" in name for name, _ in task.files["test"])
    assert sorted(path.name for path in (speech / "data/standin_speech" / NOISE).iterdir()) == [
        "brown.wav",
        "pink.wav",
        "white.wav",
    ]
    fetch.main(["speech"])
    assert len((speech / "calls").read_text().splitlines()) == 240, "what is there stays"


def test_a_clip_is_the_word_in_noise_and_follows_from_its_name(speech: Path) -> None:
    name = "up/en-gb+m1_nohash_3.wav"
    clip = synthesise(name)
    assert clip.shape == (RATE,) and 0.2 <= np.abs(clip).max() <= 0.9
    np.testing.assert_array_equal(clip, synthesise(name))
    assert not np.array_equal(clip, synthesise("up/en-gb+m1_nohash_4.wav"))
    for number in range(8):
        clip = synthesise(f"up/en-gb+m1_nohash_{number}.wav")
        power = np.abs(np.fft.rfft(clip)) ** 2
        word = power[2990:3011].sum()  # 3 kHz, and half a second of it
        ratio = 10 * np.log10(2 * word / (power.sum() - word))
        assert -1.5 < ratio < 21, "0 to 20 dB, while it is said"


def test_an_interrupted_call_is_gone_on_with(speech: Path) -> None:
    say(speech, f'case "$*" in *go) exit 1;; esac; cat {speech}/said.wav')
    with pytest.raises(DataError, match="espeak-ng could not say 'go' as en-gb"):
        fetch.main(["speech"])
    part = speech / "data" / "standin_speech.part"
    assert [path.name for path in (speech / "data").iterdir()] == [part.name]
    with pytest.raises(DataError, match="There is no .*standin_speech.*Type: ./install.sh data"):
        tasks["standin_speech"]()
    done = {path.relative_to(part): path.stat().st_mtime_ns for path in part.glob("[!_]*/*.wav")}
    assert len(done) >= 72, "a speaker's other words"
    (part / "go" / "en-gb+m1_nohash_0.part").write_bytes(b"RIFF")  # as after kill -9
    say(speech, f"cat {speech}/said.wav")
    fetch.main(["speech"])
    folder = data_folder("standin_speech")
    assert {name: (folder / name).stat().st_mtime_ns for name in done} == done
    assert len(list(folder.glob("[!_]*/*"))) == 240 and not part.exists()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("exit 1", "could not say 'up' as en-gb"),
        ("echo no sound", "could not say 'up' as en-gb"),
        ("cat SILENCE", "said nothing for 'up' as en-gb"),
    ],
)
def test_an_espeak_that_does_not_work(speech: Path, line: str, sentence: str) -> None:
    (speech / "silence.wav").write_bytes(stream(np.zeros(2000)))
    say(speech, line.replace("SILENCE", str(speech / "silence.wav")))
    with pytest.raises(DataError, match=sentence):
        synthesise("up/en-gb+m1_nohash_0.wav")


def test_without_espeak(speech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(speech))
    with pytest.raises(DataError, match="There is no espeak-ng.*install.sh data"):
        synthesise("up/en-gb+m1_nohash_0.wav")


def test_the_wavs_are_those_of_speech_commands(speech: Path) -> None:
    standin_speech._write(speech / "x.wav", np.array([0, 0.5, -2.0, 1]))
    np.testing.assert_allclose(read_wav(speech / "x.wav"), [0, 0.5, -1, 1], atol=1e-4)
    assert len(WORDS) == len(set(WORDS)) == 10
