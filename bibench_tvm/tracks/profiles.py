"""What `tracks run` runs: from minutes on a laptop to the grid of the paper on a cluster."""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Trainings of one network on one task by all algorithms, `settings` of the recipe."""

    task: str
    arch: str
    seeds: tuple[int, ...] = (0,)
    settings: tuple[str, ...] = ()
    limit_train: int | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes:
    trainings: for the tracks of tasks and architectures, and of the others that need a trained network.
    corrupted: a task of the trainings -> the task of corrupted data that they are judged by too.
    sensitivity: what is trained with each of `optimizers`, `rates` (of the optimizer's own) and
        `schedules`; None for nothing.
    consumption: what is trained alone on the machine, for its time and memory; None for nothing.
    complexity: the networks that are counted; structure: whether table 7 is computed.
    threads: with how many an artifact is timed, as far as a board has them.
    libraries: those of `bench --against` beside which the layers of one binarized network of each
        architecture are timed on this machine.
    limit: the seconds that a job may take.
    """

    trainings: tuple[Block, ...]
    corrupted: dict[str, str]
    sensitivity: Block | None
    optimizers: tuple[str, ...] = ("sgd", "adam")
    rates: tuple[float, ...] = (1.0, 0.1)
    schedules: tuple[str, ...] = ("cosine", "step")
    consumption: Block | None
    complexity: tuple[str, ...]
    structure: bool = True
    threads: tuple[int, ...] = (1, 2, 4, 8)
    libraries: tuple[str, ...] = ("topi", "onnxruntime")
    limit: float


LR = {"sgd": 0.1, "adam": 1e-3}  # tables 15 and 16 of the paper
CNNS = ("resnet18", "resnet34", "resnet20", "vgg_small", "mobilenet_v2")
BERTS = ("bert_tiny4", "bert_tiny6", "bert_base")
GLUE = ("mnli_m", "mnli_mm", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
KEYWORD_NETWORKS = ("fsmn", "dfsmn")
DETECTORS = ("ssd300", "faster_rcnn")

PROFILES = {
    "quick": Profile(
        trainings=(
            Block(
                task="fashion_mnist",
                arch="resnet20@small",
                settings=("epochs=4", "lr=0.002", "batch_size=64"),
                limit_train=2000,
            ),
            Block(
                task="standin_points",
                arch="pointnet_vanilla@small",
                settings=("epochs=8", "lr=0.002"),
                limit_train=1000,
            ),
        ),
        corrupted={},
        sensitivity=None,
        consumption=None,
        complexity=("resnet18",),
        threads=(1,),
        libraries=(),
        limit=300,
    ),
    "standin": Profile(
        trainings=(
            Block(
                task="fashion_mnist",
                arch="resnet20@small",
                settings=("epochs=5", "lr=0.002", "batch_size=64"),
                limit_train=10000,
            ),
            Block(
                task="fashion_mnist",
                arch="vgg_small@small",
                settings=("epochs=3", "lr=0.002", "batch_size=64"),
                limit_train=5000,
            ),
            Block(task="standin_points", arch="pointnet_vanilla@small", settings=("lr=0.002",)),
            Block(task="standin_text", arch="bert_tiny4@small", settings=("epochs=5",)),
            Block(task="standin_speech", arch="dfsmn@small", seeds=(0, 1, 2), settings=("lr=0.002",)),
            Block(
                task="standin_detection",
                arch="ssd300@small",
                settings=("epochs=3", "float_epochs=12", "lr=0.003"),
            ),
        ),
        corrupted={"fashion_mnist": "standin_corruptions"},
        sensitivity=Block(
            task="fashion_mnist",
            arch="resnet20@small",
            seeds=(0, 1),
            settings=("epochs=2", "from_float=false"),
            limit_train=2000,
        ),
        consumption=Block(
            task="fashion_mnist",
            arch="resnet20@small",
            settings=("epochs=1", "from_float=false"),
            limit_train=2000,
        ),
        limit=3600,
        complexity=(*CNNS, *DETECTORS, *BERTS, "pointnet", "pointnet_vanilla", *KEYWORD_NETWORKS),
    ),
    "paper": Profile(
        trainings=(
            *(Block(task="cifar10", arch=arch) for arch in ("resnet20", "resnet18", "vgg_small")),
            *(Block(task="imagenet", arch=arch) for arch in ("resnet18", "resnet34", "mobilenet_v2")),
            *(Block(task="modelnet40", arch=arch) for arch in ("pointnet_vanilla", "pointnet")),
            Block(task="shapenet", arch="pointnet"),
            *(Block(task=f"glue/{name}", arch=arch) for name in GLUE for arch in BERTS),
            *(Block(task="speech_commands", arch=arch) for arch in KEYWORD_NETWORKS),
            *(
                Block(task=task, arch=arch)
                for task in ("voc07", "coco17")
                for arch in ("ssd300", "faster_rcnn")
            ),
        ),
        corrupted={"cifar10": "cifar10_c"},
        sensitivity=Block(
            task="cifar10",
            arch="resnet18",
            seeds=(0, 1, 2, 3, 4),
            settings=("epochs=200", "from_float=false"),
        ),
        consumption=Block(task="cifar10", arch="resnet18", settings=("epochs=2", "from_float=false")),
        limit=30 * 24 * 3600,
        complexity=(*CNNS, *DETECTORS, *BERTS, "pointnet", "pointnet_vanilla", *KEYWORD_NETWORKS),
    ),
}
