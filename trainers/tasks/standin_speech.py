"""A stand-in for Speech Commands: ten of its words said by espeak-ng in noise. What it gives compares with
nothing published.

`install.sh data` makes the clips, in the folders and formats of Speech Commands: eight accents of English by
eleven voices, each with four speeds and two pitches, in coloured noise from 0 to 20 dB below the word. A
speaker is an accent with a voice; those for validation and test have voices that are not trained with."""

import concurrent.futures
import hashlib
import io
import itertools
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np

from trainers.tasks import DataError, data_folder, tasks
from trainers.tasks.keywords import LISTS, NOISE, RATE, WORDS, Keywords

ACCENTS = (
    *("en-gb", "en-us", "en-029", "en-us-nyc"),
    *("en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-gb-x-gbcwmd"),
)
VOICES = {
    "validation": ("m6",),
    "test": ("m7", "f4"),
    "train": ("m1", "m2", "m3", "m4", "m5", "f1", "f2", "f3"),
}
SPEEDS, PITCHES = (120, 150, 180, 210), (35, 65)  # words a minute; espeak-ng's 0 to 99
LOUD, QUIET = 0, 20  # dB, of the word above the noise
COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # the power falls with this power of the frequency
SECONDS = 20  # of background noise in each colour
REMEDY = "Type: ./install.sh data"


@tasks.register("standin_speech")
class StandinSpeech(Keywords):
    """7,040 clips of one second, eight a speaker and word."""

    epochs = 6
    batch_size = 64
    licence = (
        "A stand-in of the project's own making, synthesised by espeak-ng; that program is under the GPL-3, "
        "what it says is not."
    )
    published = "by ./install.sh data, with https://github.com/espeak-ng/espeak-ng"

    def __init__(self, data: Path | None = None) -> None:
        super().__init__(Path(data) if data else data_folder("standin_speech"), WORDS, REMEDY)


def generate(folder: Path) -> None:
    """Make `folder`, which is there whole or not at all; what an interrupted call made is gone on with.

    Every clip follows from its name. Raises DataError where espeak-ng is not there or fails.
    """
    if folder.exists():
        return
    part = folder.with_name(folder.name + ".part")
    clips = {split: list(_names(voices)) for split, voices in VOICES.items()}
    for word in (*WORDS, NOISE):
        (part / word).mkdir(parents=True, exist_ok=True)
    for colour, slope in COLOURS.items():
        noise = 0.3 * _noise(SECONDS * RATE, slope, _generator(colour))
        _write(part / NOISE / f"{colour}.wav", noise)
    names = [name for split in clips.values() for name in split]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for count, _ in enumerate(pool.map(lambda name: _make(part, name), names), start=1):
            if count % 500 == 0 or count == len(names):
                print(f"{count} of {len(names)} clips of speech", file=sys.stderr, flush=True)
    for split, file in LISTS.items():
        (part / file).write_text("".join(f"{name}\n" for name in clips[split]))
    os.rename(part, folder)


def _make(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        _write(folder / name, synthesise(name))


def _names(voices: tuple[str, ...]) -> list[str]:
    """As Speech Commands': the word, and the speaker with what else is varied."""
    varied = itertools.product(WORDS, ACCENTS, voices, enumerate(itertools.product(SPEEDS, PITCHES)))
    return [f"{word}/{accent}+{voice}_nohash_{number}.wav" for word, accent, voice, (number, _) in varied]


def synthesise(name: str) -> np.ndarray:
    """The clip of a name: float64 (16000) in [-1, 1]. Raises DataError."""
    word, file = name.split("/")
    speaker, number = file.removesuffix(".wav").split("_nohash_")
    speed, pitch = list(itertools.product(SPEEDS, PITCHES))[int(number)]
    command = ["espeak-ng", "-v", speaker, "-s", str(speed), "-p", str(pitch), "--stdout", "--", word]
    try:
        said = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        with wave.open(io.BytesIO(said)) as sound:
            rate = sound.getframerate()
            samples = np.frombuffer(said[44:], "<i2").astype(np.float64)  # a stream's header knows no length
    except FileNotFoundError as error:
        raise DataError("There is no espeak-ng, which says the words. Type: ./install.sh data") from error
    except (subprocess.SubprocessError, wave.Error, EOFError, ValueError) as error:
        raise DataError(f"espeak-ng could not say {word!r} as {speaker}.") from error
    heard = np.flatnonzero(np.abs(samples) > 300)
    if not len(heard):
        raise DataError(f"espeak-ng said nothing for {word!r} as {speaker}.")
    samples = samples[heard[0] : heard[-1] + 1]
    spectrum = np.fft.rfft(samples)  # of which only what fits below 8 kHz is kept
    count = len(samples) * RATE // rate
    samples = np.fft.irfft(spectrum[: count // 2 + 1], count)[:RATE]
    generator = _generator(name)
    start = generator.integers(RATE - len(samples) + 1)
    noise = _noise(RATE, generator.uniform(0, 2), generator)
    loudness = 10 ** (generator.uniform(LOUD, QUIET) / 20)
    noise[start : start + len(samples)] += loudness * samples / np.sqrt(np.mean(samples**2))
    return noise * generator.uniform(0.2, 0.9) / np.abs(noise).max()


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))


def _noise(count: int, slope: float, generator: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with the frequency to the power of `slope`: float64 (count), mean square 1."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20)
    noise = np.fft.irfft(spectrum * frequencies ** (-slope / 2), count)
    return noise / np.sqrt(np.mean(noise**2))


def _write(path: Path, samples: np.ndarray) -> None:
    """Write a wav file, whole or not at all."""
    temporary = path.with_suffix(".part")  # always the same, so that what a killed call left is used up
    with wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    os.replace(temporary, path)
