"""What the tasks of speech share: the folders and sounds of Speech Commands (Warden, 2018, arXiv:1804.03209),
and the log-mel energies that networks are given.

`<word>/<speaker>_nohash_<n>.wav` is one word said by one speaker: 16-bit PCM, mono, 16 kHz, about a second.
`validation_list.txt` and `testing_list.txt` name those that are not for training, and `_background_noise_`
holds minutes of noise."""

import functools
import math
import os
import warnings
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from trainers.tasks import DataError, identity_of, read_text

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
RATE = 16000  # Hz, and samples of a clip
FEATURES = FRAMES = 32
WINDOW, HOP = 1024, 512  # samples: one second gives 32 frames
NOISE = "_background_noise_"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
SHIFT = RATE // 10  # samples, in training
NOISY, LOUDEST = 0.8, 0.1  # how many clips get background noise in training, and its greatest amplitude


class Keywords:
    """Clips of words, read when a batch asks for them; the background noise is in memory.

    Attributes:
        files: split -> its clips, each with the number of its class.
    """

    example_inputs: Any = (torch.zeros(1, 1, FEATURES, FRAMES),)
    recipe = "paper"
    metric = "accuracy"
    epochs: int
    batch_size: int
    licence: str
    published: str

    def __init__(self, folder: Path, words: Sequence[str], remedy: str) -> None:
        self.folder = folder
        self.sizes: Mapping[str, int | str] = {
            "num_classes": len(words),
            "features": FEATURES,
            "frames": FRAMES,
        }
        split_of = {name: split for split, file in LISTS.items() for name in read_list(folder / file, remedy)}
        found = find_clips(folder, remedy)
        if lacking := [word for word in words if not found.get(word)]:
            raise DataError(f"{folder} has no clips of the word {lacking[0]!r}. {remedy}")
        present = {name for names in found.values() for name in names}
        if lost := sorted(set(split_of) - present):
            raise DataError(
                f"{folder / LISTS[split_of[lost[0]]]} names {lost[0]}, which is not there. {remedy}"
            )
        self.found = {
            split: {
                word: [n for n in names if split_of.get(n, "train") == split] for word, names in found.items()
            }
            for split in ("train", *LISTS)
        }
        self.files = {
            split: [(name, label) for label, word in enumerate(words) for name in named[word]]
            for split, named in self.found.items()
        }
        if empty := [split for split, files in self.files.items() if not files]:
            raise DataError(f"{folder} has no clips for {empty[0]}.")
        self.noises = read_noises(folder / NOISE, remedy)
        others = [*(folder / file for file in LISTS.values()), *(folder / NOISE).glob("*.wav")]
        self.identity = identity_of([*(folder / name for name in present), *others], folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(files) for split, files in self.files.items()}

    def sound(self, split: str, name: str) -> Tensor:
        """One second, float32 (16000) in [-1, 1], of the clip `name`. Raises DataError where it is broken."""
        return read_wav(self.folder / name, RATE)

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        sounds, labels = [torch.zeros(0, RATE)], []
        for index in indices:
            name, label = self.files[split][index]
            try:
                sound = fit_second(self.sound(split, name))
            except DataError as error:
                warnings.warn(f"{error} It is left out.", stacklevel=2)
                continue
            sounds.append((sound if generator is None else self._augment(sound, generator))[None])
            labels.append(label)
        return log_mel(torch.cat(sounds))[:, None], torch.tensor(labels, dtype=torch.int64)

    def _augment(self, sound: Tensor, generator: torch.Generator) -> Tensor:
        """Shift it by up to a tenth of a second and add background noise to most."""
        shift = int(torch.randint(-SHIFT, SHIFT + 1, (), generator=generator))
        sound = F.pad(sound, (max(0, shift), max(0, -shift)))[max(0, -shift) :][:RATE]
        chance, amplitude, which, place = torch.rand(4, generator=generator).tolist()
        if chance < NOISY:
            noise = self.noises[int(which * len(self.noises))]
            start = int(place * max(1, len(noise) - RATE))
            sound = sound + amplitude * LOUDEST * fit_second(noise[start : start + RATE])
        return sound

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        count = int(self.sizes["num_classes"])
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes=count, average="micro")})


def read_list(path: Path, remedy: str) -> list[str]:
    """The clips that a list names, each a word's folder and a file. Raises DataError."""
    names = read_text(path, remedy).split()
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) != 2 or ".." in parts or name.startswith("/") or not name.endswith(".wav"):
            raise DataError(f"{path} should name clips such as up/0a7c2a8d_nohash_0.wav, and not {name}.")
    return names


def find_clips(folder: Path, remedy: str) -> dict[str, list[str]]:
    """Word -> its clips as `<word>/<file>`, both in the order of the alphabet. Raises DataError."""
    try:
        words = sorted(
            entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] not in "._"
        )
        return {
            word: sorted(f"{word}/{name}" for name in os.listdir(folder / word) if name.endswith(".wav"))
            for word in words
        }
    except FileNotFoundError as error:
        raise DataError(f"There is no {folder}. {remedy}") from error
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error


def read_noises(folder: Path, remedy: str) -> list[Tensor]:
    """Every noise, float32 (samples) each; broken ones are named in a warning. Raises DataError for none."""
    noises = []
    for path in sorted(folder.glob("*.wav")):
        try:
            noises.append(read_wav(path))
        except DataError as error:
            warnings.warn(f"{error} It is left out.", stacklevel=2)
    if not noises:
        raise DataError(f"There is no noise in {folder}. {remedy}")
    return noises


def read_wav(path: Path, most: int | None = None) -> Tensor:
    """The samples of a 16 kHz mono file of 16 bits, at `most` so many: float32 (samples) in [-1, 1).

    Raises:
        DataError: it is another kind of file, ends early, or has no samples.
    """
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            if kind != (1, 16, RATE):
                raise DataError(
                    f"{path} should have 1 channel of 16 bits at {RATE} Hz, and has {kind[0]} of "
                    f"{kind[1]} bits at {kind[2]} Hz."
                )
            count = min(file.getnframes(), most or file.getnframes())
            samples = np.frombuffer(file.readframes(count), "<i2")
    except (wave.Error, EOFError, RuntimeError) as error:
        raise DataError(f"{path} is not a wav file of PCM samples.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as a wav file.") from error
    if not count or len(samples) != count:
        raise DataError(f"{path} should hold {count or 'some'} samples, but ends after {len(samples)}.")
    return torch.from_numpy(samples.astype(np.float32) / 2**15)


def fit_second(sound: Tensor) -> Tensor:
    """Its first second, filled up with silence: (samples) -> (16000)."""
    return F.pad(sound[:RATE], (0, RATE - min(RATE, len(sound))))


@functools.cache
def mel_filters() -> Tensor:
    """Triangles from 0 to 8 kHz, equally far apart on the mel scale 2595 log10(1 + f / 700 Hz): float32
    (32, frequencies). Each is 1 at its centre and 0 at those of its neighbours."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    centres = 700 * (10 ** (torch.linspace(0, top, FEATURES + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    left, centre, right = (centres[i : i + FEATURES, None] for i in range(3))
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def log_mel(sounds: Tensor) -> Tensor:
    """The logarithms of the energies in 32 bands and 32 frames, of mean 0 and standard deviation 1 in each
    sound: (N, 16000) -> (N, 32, 32)."""
    if not len(sounds):
        return torch.zeros(0, FEATURES, FRAMES)
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(sounds, WINDOW, HOP, window=window, return_complex=True)
    energies = (mel_filters() @ (spectrum.real.square() + spectrum.imag.square()) + 1e-6).log()
    means = energies.mean((1, 2), keepdim=True)
    return (energies - means) / energies.std((1, 2), keepdim=True).clamp(min=1e-3)
