"""Speech Commands in its folders and formats, and broken twins of them; log-mel energies by their formula."""

import math
import os
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainers
from trainers.inputs import call
from trainers.tasks import DataError, tasks
from trainers.tasks.keywords import NOISE, RATE, WORDS, log_mel, mel_filters, read_wav

SPEAKERS = ("0a7c2a8d", "1b2c3d4e", "2f00aa11")  # for training, validation and test


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, channels: int = 1, bits: int = 16) -> None:
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(bits // 8)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2" if bits == 16 else "u1").tobytes())


def tone(frequency: float, count: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * math.pi * frequency * np.arange(count) / RATE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten words and two others by three speakers, two clips each; two noises."""
    for number, word in enumerate([*WORDS, "bed", "cat"]):
        for speaker in SPEAKERS:
            for n in range(2):
                write_wav(
                    tmp_path / word / f"{speaker}_nohash_{n}.wav", tone(200 * (number + 1), 12000 + 8000 * n)
                )
    generator = np.random.default_rng(0)
    for name in ("hiss", "hum"):
        write_wav(tmp_path / NOISE / f"{name}.wav", generator.uniform(-0.5, 0.5, 12 * RATE))
    (tmp_path / NOISE / "README.md").write_text("noise")
    for name, speaker in (("validation", SPEAKERS[1]), ("testing", SPEAKERS[2])):
        clips = [f"{word}/{speaker}_nohash_{n}.wav\n" for word in [*WORDS, "bed", "cat"] for n in range(2)]
        (tmp_path / f"{name}_list.txt").write_text("".join(clips))
    (tmp_path / "LICENSE").write_text("CC BY 4.0")
    return tmp_path


def test_the_twelve_classes(folder: Path) -> None:
    task = tasks["speech_commands"](folder)
    assert task.splits == {"train": 24, "validation": 24, "test": 24}, "20, and a tenth twice"
    assert task.sizes == {"num_classes": 12, "features": 32, "frames": 32}
    inputs, labels = task.batch("test", range(24))
    assert labels.tolist() == [n // 2 for n in range(20)] + [10, 10, 11, 11]
    assert (inputs.shape, inputs.dtype) == ((24, 1, 32, 32), torch.float32)
    assert torch.equal(inputs[3:4], task.batch("test", [3])[0])
    assert task.example_inputs[0].shape == inputs[:1].shape
    outputs = call(trainers.create_model("dfsmn@small", **task.sizes), inputs)
    assert outputs.shape == (24, 12) and task.loss(outputs, labels).requires_grad
    metrics = task.metrics()
    metrics.update(torch.eye(12)[[0, 0, 1, 2]], labels[:4])
    assert metrics.compute()[task.metric].item() == 0.75


def test_speakers_and_noises_are_in_one_split(folder: Path) -> None:
    task = tasks["speech_commands"](folder)
    for split, speaker in zip(("train", "validation", "test"), SPEAKERS, strict=True):
        names = [name for name, label in task.files[split] if label < 11]
        assert len(names) == 22 and all(speaker in name for name in names)
    hiss = task.noises[0]
    for split, (first, last) in {"train": (0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1)}.items():
        heard = task.sound(split, f"{NOISE}/0")
        places = (hiss.unfold(0, 16, 1) == heard[:16]).all(1).nonzero()
        assert first * len(hiss) <= places.item() and places.item() + len(heard) <= last * len(hiss)


def test_the_generator_augments(folder: Path) -> None:
    task = tasks["speech_commands"](folder)
    before = torch.get_rng_state()
    first, again, other = (
        task.batch("train", range(24), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    click = torch.zeros(RATE)
    click[8000] = 1
    generator = torch.Generator().manual_seed(0)
    heard = torch.stack([task._augment(click, generator) for _ in range(200)])
    places = heard.argmax(1) - 8000
    assert -1600 <= places.min() < -1400 and 1400 < places.max() <= 1600
    quiet = (heard.sum(1) == 1).float().mean()
    assert 0.1 < quiet < 0.3, "a fifth without noise"


def test_the_identity_is_of_clips_and_lists(folder: Path) -> None:
    found = {tasks["speech_commands"](folder).identity}
    write_wav(folder / "up" / f"{SPEAKERS[0]}_nohash_0.wav", tone(1, 12000))
    found.add(tasks["speech_commands"](folder).identity)
    names = (folder / "testing_list.txt").read_text().splitlines()
    (folder / "testing_list.txt").write_text("\n".join(names[:-1]))
    found.add(tasks["speech_commands"](folder).identity)
    write_wav(folder / NOISE / "hum.wav", tone(50, 12 * RATE))
    found.add(tasks["speech_commands"](folder).identity)
    assert len(found) == 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def as_float(path: Path) -> None:
    samples = tone(100).astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(data), b"WAVE") + form + data)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "is not a wav file of PCM samples"),
        (lambda path: path.write_bytes(b"RIFF"), "is not a wav file of PCM samples"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com"),
            "is not a wav file of PCM samples",
        ),
        (cut, "should hold 12000 samples, but ends after 11000"),
        (as_float, "is not a wav file of PCM samples"),
        (lambda path: write_wav(path, tone(1), rate=8000), ".* and has 1 of 16 bits at 8000 Hz"),
        (lambda path: write_wav(path, tone(1), channels=2), ".* and has 2 of 16 bits at 16000 Hz"),
        (lambda path: write_wav(path, tone(1), bits=8), ".* and has 1 of 8 bits at 16000 Hz"),
        (lambda path: write_wav(path, np.zeros(0)), "should hold some samples, but ends after 0"),
        (Path.unlink, "cannot be read as a wav file"),
    ],
    ids=["empty", "header", "pointer", "cut", "float", "8 kHz", "stereo", "8 bits", "none", "gone"],
)
def test_broken_clips_are_named_and_left_out(
    folder: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    task = tasks["speech_commands"](folder)
    path = folder / task.files["train"][2][0]
    damage(path)
    with pytest.warns(UserWarning, match=f"{path} {sentence}.*left out"):
        inputs, labels = task.batch("train", [0, 2, 4])
    assert len(inputs) == 2 and labels.tolist() == [0, 2]
    with pytest.warns(UserWarning, match="left out"):
        inputs, labels = task.batch("train", [2])
    assert (inputs.shape, labels.shape) == ((0, 1, 32, 32), (0,))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.wav", "../up/x.wav", "up/../x.wav", "/etc/x.wav", "up/x", "x.wav", "../x.wav"]
)
def test_lists_that_name_other_files(folder: Path, name: str) -> None:
    (folder / "validation_list.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match="validation_list.txt should name clips such as .*, and not"):
        tasks["speech_commands"](folder)


def test_any_name_of_a_file(folder: Path) -> None:
    for name in (b"\xff_nohash_0.wav", b"._x_nohash_0.wav", b"a b.wav"):
        target = os.fsencode(folder / "up") + b"/" + name
        os.rename(os.fsencode(folder / "bed" / f"{SPEAKERS[0]}_nohash_0.wav"), target)
        write_wav(folder / "bed" / f"{SPEAKERS[0]}_nohash_0.wav", tone(50))
    assert tasks["speech_commands"](folder).splits["train"] == 23 + 2 * 3


def test_missing_and_damaged_files(folder: Path, tmp_path: Path) -> None:
    def refused(sentence: str) -> None:
        with pytest.raises(DataError, match=sentence):
            tasks["speech_commands"](folder)

    lists = (folder / "testing_list.txt").read_text()
    (folder / "testing_list.txt").write_text(f"{lists}up/3_nohash_0.wav\n")
    refused("testing_list.txt names up/3_nohash_0.wav, which is not there. Unpack http://download.tensorflow")
    (folder / "testing_list.txt").write_bytes(b"caf\xe9/x.wav\n")
    refused("testing_list.txt should be UTF-8 text, but its line 1 is not")
    (folder / "testing_list.txt").write_text("")
    refused("testing_list.txt is empty")
    (folder / "testing_list.txt").unlink()
    refused("There is no .*testing_list.txt. Unpack http://download.tensorflow")
    (folder / "testing_list.txt").write_text(lists)
    (folder / NOISE / "hum.wav").unlink()
    (folder / NOISE / "hiss.wav").write_bytes(b"")
    with pytest.warns(UserWarning, match="hiss.wav is not a wav file of PCM samples. It is left out"):
        refused(f"no noise in .*{NOISE}. Unpack")
    for path in (folder / "go").iterdir():
        path.unlink()
    refused("has no clips of the word 'go'. Unpack")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="There is no .*validation_list.txt. Unpack http://download.tensorflow"
    ):
        tasks["speech_commands"](tmp_path / "nothing")


def test_a_clip_of_many_samples_is_read_to_its_first_second(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", tone(100, 3 * RATE))
    assert torch.equal(read_wav(tmp_path / "x.wav", RATE), read_wav(tmp_path / "x.wav")[:RATE])
    np.testing.assert_allclose(read_wav(tmp_path / "x.wav"), tone(100, 3 * RATE), atol=1e-4)


def test_log_mel_is_its_formula() -> None:
    sounds = torch.from_numpy(np.stack([tone(440), tone(3000) + tone(250)])).float()
    expected = []
    for sound in sounds.double().numpy():
        padded = np.pad(sound, 512, mode="reflect")
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
        frames = [
            np.abs(np.fft.rfft(hann * padded[start : start + 1024])) ** 2 for start in range(0, RATE, 512)
        ]
        mel = [2595 * math.log10(1 + bin * RATE / 1024 / 700) for bin in range(513)]
        points = [n / 33 * 2595 * math.log10(1 + 8000 / 700) for n in range(34)]
        hertz = [700 * (10 ** (point / 2595) - 1) for point in points]
        bands = np.zeros((32, len(frames)))
        for band in range(32):
            left, centre, right = hertz[band : band + 3]
            for bin in range(513):
                frequency = bin * RATE / 1024
                if left < frequency <= centre:
                    weight = (frequency - left) / (centre - left)
                elif centre < frequency < right:
                    weight = (right - frequency) / (right - centre)
                else:
                    continue
                assert points[band] - 1e-9 < mel[bin] < points[band + 2] + 1e-9
                bands[band] += [weight * frame[bin] for frame in frames]
        logs = np.log(bands + 1e-6)
        expected.append((logs - logs.mean()) / logs.std(ddof=1))
    np.testing.assert_allclose(log_mel(sounds), np.stack(expected), atol=1e-3)
    assert torch.isfinite(log_mel(torch.zeros(1, RATE))).all(), "silence"


def test_the_filters_add_up_to_one_between_the_outer_centres() -> None:
    total = mel_filters().sum(0)
    first, last = mel_filters().argmax(1)[[0, -1]]
    torch.testing.assert_close(total[first + 1 : last], torch.ones(last - first - 1))
