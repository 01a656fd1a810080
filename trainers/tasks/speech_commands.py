"""Google's Speech Commands v0.02 (Warden, 2018, arXiv:1804.03209), the task of twelve classes: ten words, any
other word, and silence. It is the one of the BiBench paper (appendix A.2: "a single word from a set of ten
target words, ... as few false positives as possible from background noise or unrelated speech").

As in TensorFlow's example, which came with the data, each split has a tenth as many other words, and a tenth
as much silence, as it has of the ten words. Which other words follows from their names. Silence is background
noise: its first 80 % for training, and 10 % each for validation and test."""

import hashlib
import os
from pathlib import Path

from torch import Tensor

from trainers.tasks import data_folder, tasks
from trainers.tasks.keywords import NOISE, RATE, WORDS, Keywords

SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}  # of every noise


@tasks.register("speech_commands")
class SpeechCommands(Keywords):
    """Classes: the ten words in the order of `WORDS`, 10 for another word, 11 for silence."""

    epochs = 20
    batch_size = 64
    licence = "CC BY 4.0, Google. https://creativecommons.org/licenses/by/4.0/"
    published = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"

    def __init__(self, data: Path | None = None) -> None:
        remedy = f"Unpack {self.published}, and name the folder with its words."
        super().__init__(Path(data) if data else data_folder("speech_commands"), WORDS, remedy)
        self.sizes = {**self.sizes, "num_classes": len(WORDS) + 2}
        for split, found in self.found.items():
            count = -(-len(self.files[split]) // 10)
            others = [name for word, names in found.items() if word not in WORDS for name in names]
            others.sort(key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
            self.files[split] += [(name, len(WORDS)) for name in others[:count]]
            self.files[split] += [(f"{NOISE}/{number}", len(WORDS) + 1) for number in range(count)]

    def sound(self, split: str, name: str) -> Tensor:
        folder, _, number = name.partition("/")
        if folder != NOISE:
            return super().sound(split, name)
        noise = self.noises[int(number) % len(self.noises)]
        first, last = (int(share * len(noise)) for share in SHARES[split])
        place = int.from_bytes(hashlib.sha256(f"{split} {number}".encode()).digest()[:4]) / 2**32
        start = first + int(place * max(1, last - first - RATE))
        return noise[start : min(last, start + RATE)]
