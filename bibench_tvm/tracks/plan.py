"""From a profile to jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from bibench_tvm.cli.errors import UsageError
from bibench_tvm.importer.own_algorithm import Own
from bibench_tvm.jobs.job import Job, folder_of
from bibench_tvm.jobs.sweep import Point, job_of, jobs_of, own_point
from bibench_tvm.tracks.deployment import IN_PAPER
from bibench_tvm.tracks.profiles import LR, Block, Profile
from bibench_tvm.tracks.results import Key, Track
from bibench_tvm.tracks.structure import ALGORITHM, STRUCTURES, TASK
from trainers.checkpoint import CHECKPOINT
from trainers.convert import list_algorithms
from trainers.registry import unknown_name

HERE = "host"  # the device of this machine
JUDGED: tuple[Track, ...] = ("learning_task", "architecture")  # by the training itself
CLOSED = {"epochs", "float_epochs", "batch_size", "lr"}  # what may differ within the closed division
JOBS = "jobs"  # the folder of what jobs keep, beside that of the results


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a profile is run; nothing named is everything."""

    tracks: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    archs: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()

    def takes(self, track: Track, task: str, arch: str) -> bool:
        return all(
            not wanted or value in wanted
            for value, wanted in ((track, self.tracks), (task, self.tasks), (arch, self.archs))
        )


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where artifacts are timed: this machine, a board of a tracker, or a device without TVM.

    Attributes:
        device: "host", or the board's key; target: what is compiled for; options: of `bench`.
        tracker: HOST:PORT of the board's tracker, "" where there is none.
        takes_c: whether it runs libraries for C, and no other.
        cores: the most threads that are tried; emulated: whether it has instructions instead of a time.
    """

    device: str
    target: str
    cores: int
    emulated: bool = False
    takes_c: bool = False
    options: tuple[str, ...] = ()
    tracker: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A job with the keys of the results that it has."""

    job: Job
    keys: tuple[Key, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        name: of the `profile`; wanted: the part of it; folder: of results and jobs.
        places: where artifacts are timed; own: the user's algorithm, which is scored with the others.
        limit: the seconds that each job may take; None for those of the profile.
    """

    name: str
    profile: Profile
    folder: Path
    places: tuple[Place, ...]
    wanted: Filter = Filter()
    own: Own | None = None
    limit: float | None = None

    def items(self) -> list[Item]:
        """The jobs, those before that others need.

        Raises:
            UsageError: what was asked for has no job.
        """
        for algorithm in self.wanted.algorithms:
            if algorithm not in list_algorithms():
                raise unknown_name("algorithm", algorithm, list_algorithms())
        self._refuse_unknown()
        found = [*self._counted(), *self._structures(), *self._trained(), *self._consumed()]
        if not found:
            raise UsageError(f"The profile {self.name} has no job for what was asked for.")
        limit = self.limit or self.profile.limit
        # A board is the same by whatever tracker it is reached.
        outside = {place.tracker: "tracker" for place in self.places if place.tracker}
        outside |= self.own.outside if self.own else {}
        return [
            msgspec.structs.replace(item, job=msgspec.structs.replace(item.job, limit=limit, outside=outside))
            for item in found
        ]

    def _refuse_unknown(self) -> None:
        """Of several that are asked for, each: one that there is not would be left out in silence."""
        profile = self.profile
        blocks = [*profile.trainings, *filter(None, (profile.sensitivity, profile.consumption))]
        structures = list(STRUCTURES) if profile.structure else []
        tasks = [block.task for block in blocks] + ([TASK] if structures else [])
        archs = [block.arch for block in blocks] + [*profile.complexity, *structures]
        for what, wanted, there in (
            ("task", self.wanted.tasks, tasks),
            ("network", self.wanted.archs, archs),
        ):
            for name in wanted:
                if name not in there:
                    known = ", ".join(dict.fromkeys(there))
                    raise UsageError(f"The profile {self.name} has no {what} {name!r}; it has {known}.")

    @property
    def _jobs(self) -> Path:
        """Absolute, so that the jobs do the same from wherever they are run."""
        return (self.folder / JOBS).absolute()

    @property
    def _algorithms(self) -> list[str]:
        """The float network always: the others are compared with it. The paper's, or those that are named."""
        own = [self.own.name] if self.own else []
        return list(dict.fromkeys(["fp32", *(self.wanted.algorithms or IN_PAPER), *own]))

    def _points(self, block: Block, settings: tuple[str, ...]) -> Iterator[Point]:
        for seed in block.seeds:
            for algorithm in self._algorithms:
                point = Point(
                    *(block.task, block.arch, algorithm, "paper", seed, "paper"),
                    *(settings, block.limit_train, None),
                )
                yield own_point(point, self.own)

    def _counted(self) -> Iterator[Item]:
        for arch in self.profile.complexity:
            if self.wanted.tasks or not self.wanted.takes("complexity", "", arch):
                continue
            for algorithm in self._algorithms:
                command = ["bibench_tvm.summary", "--json", "--arch", arch, "--algorithm", algorithm]
                job = Job(name=f"complexity/{arch}/{algorithm}", command=command + self._options(algorithm))
                key = Key(track="complexity", task="", arch=arch, algorithm=algorithm, profile=self.name)
                yield Item(job=job, keys=(key,))

    def _structures(self) -> Iterator[Item]:
        for name in STRUCTURES if self.profile.structure else ():
            if self.wanted.takes("architecture", TASK, name):
                job = Job(
                    name=f"structure/{name}", command=["bibench_tvm.tracks", "structure", name, "--json"]
                )
                key = Key(track="architecture", task=TASK, arch=name, algorithm=ALGORITHM, profile=self.name)
                yield Item(job=job, keys=(key,))

    def _trained(self) -> list[Item]:
        """The trainings, and what is done with the networks."""
        keys: dict[str, list[Key]] = {}
        points: dict[str, Point] = {}
        later: list[Item] = []
        wanted = self.wanted
        for block in self.profile.trainings:
            corrupted = self.profile.corrupted.get(block.task)
            judged = bool(corrupted) and wanted.takes("corruption", block.task, block.arch)
            tracks = [track for track in JUDGED if wanted.takes(track, block.task, block.arch)]
            timed = wanted.takes("inference", block.task, block.arch)
            for point in self._points(block, block.settings):
                deployed = timed and point.seed == block.seeds[0]
                if tracks or judged or deployed:
                    points[point.name] = point
                    own = [_key(track, self.name, point) for track in tracks]
                    keys.setdefault(point.name, []).extend(own)
                if judged and corrupted:
                    later.append(self._judged(point, corrupted))
                if deployed:
                    later += self._deployed(point)
        for point in self._variations():
            points[point.name] = point
            keys.setdefault(point.name, []).append(_key("training", self.name, point))
        trainings = jobs_of(list(points.values()), self._jobs, self.own)
        return [*(Item(job=job, keys=tuple(keys.get(job.name, ()))) for job in trainings), *later]

    def _variations(self) -> Iterator[Point]:
        """Of the sensitivity to hyper-parameters, section 4.2 of the paper."""
        profile, block = self.profile, self.profile.sensitivity
        if block is None or not self.wanted.takes("training", block.task, block.arch):
            return
        for optimizer in profile.optimizers:
            for rate in profile.rates:
                for schedule in profile.schedules:
                    lr = LR[optimizer] * rate
                    varied = (f"optimizer={optimizer}", f"lr={lr:g}", f"schedule={schedule}")
                    yield from self._points(block, (*block.settings, *varied))

    def _consumed(self) -> Iterator[Item]:
        """What a training takes, each by itself on the machine."""
        block = self.profile.consumption
        if block is None or not self.wanted.takes("training", block.task, block.arch):
            return
        for point in self._points(block, block.settings):
            job = job_of(point, self._jobs / "consumption", self.own)
            job = msgspec.structs.replace(job, name=f"consumption/{job.name}", alone=True)
            yield Item(job=job, keys=(_key("training", self.name, point, device=HERE, threads=1),))

    def _judged(self, point: Point, corrupted: str) -> Item:
        command = [
            *("bibench_tvm.train", "--json", "--threads", "1", "--evaluate", self._checkpoint(point)),
            *("--task", corrupted, *self._options(point.algorithm)),
        ]
        job = Job(name=f"corruption/{point.name}", command=command, needs=[point.name])
        return Item(job=job, keys=(_key("corruption", self.name, point, corruption=corrupted),))

    def _deployed(self, point: Point) -> Iterator[Item]:
        """Compiled for each kind of processor once, and timed on each place by itself."""
        compiled: dict[str, Job] = {}
        in_c = {place.target for place in self.places if place.takes_c}
        for place in self.places:
            name = f"compile/{place.target}/{point.name}"
            artifact = str(folder_of(self._jobs, name) / "artifact")
            if place.target not in compiled:
                command = [
                    *("bibench_tvm.compile", "--json", "--checkpoint", self._checkpoint(point)),
                    *("--target", place.target, "--verify", "1", "--out", artifact),
                    *(["--standalone"] if place.target in in_c else []),
                    *self._options(point.algorithm),
                ]
                compiled[place.target] = Job(name=name, command=command, needs=[point.name])
                yield Item(job=compiled[place.target])
            for threads in self.profile.threads:
                if threads > (1 if place.emulated else place.cores):
                    continue
                timed = Job(
                    name=f"bench/{place.device}/threads={threads}/{point.name}",
                    command=[
                        *("bibench_tvm.bench", "--json", "--threads", str(threads), *place.options),
                        *(("--tracker", place.tracker) if place.tracker else ()),
                        *self._against(point, place, threads),
                        *self._task(point, place, threads),
                        artifact,
                    ],
                    needs=[name],
                    alone=not place.emulated,
                )
                key = _key(
                    *("inference", self.name, point),
                    device=place.device,
                    threads=threads,
                    library="bibench_tvm",
                )
                yield Item(job=timed, keys=(key,))

    def _against(self, point: Point, place: Place, threads: int) -> list[str]:
        """Libraries take long and differ little between algorithms: beside the first, on one thread."""
        chosen = point.algorithm in self._algorithms[1:2] and place.device == HERE and threads == 1
        return ["--against", ",".join(self.profile.libraries)] if chosen and self.profile.libraries else []

    def _task(self, point: Point, place: Place, threads: int) -> list[str]:
        """A board computes what the host does, or it shows. Emulated it would take hours."""
        judged = place.device != HERE and not place.emulated and threads == 1
        return ["--task", point.task] if judged else []

    def _checkpoint(self, point: Point) -> str:
        return str(folder_of(self._jobs, point.name) / CHECKPOINT)

    def _options(self, algorithm: str) -> list[str]:
        return self.own.options(algorithm) if self.own else []


def _key(track: Track, profile: str, point: Point, **fields: object) -> Key:
    settings = dict(setting.split("=", 1) for setting in point.settings)
    return Key(
        track=track,
        task=point.task,
        arch=point.arch,
        algorithm=point.algorithm,
        variant=point.variant,
        division="closed" if point.recipe == "paper" and settings.keys() <= CLOSED else "open",
        recipe=point.recipe,
        settings=settings | ({"limit_train": str(point.limit_train)} if point.limit_train else {}),
        seed=point.seed,
        profile=profile,
        **fields,  # type: ignore[arg-type]
    )


def places_of(boards: Collection[str], tracker: str, cores: int) -> tuple[Place, ...]:
    """This machine, and the boards with these keys.

    Raises:
        RemoteError: there is no tracker at `tracker`, or a device cannot be reached.
        UsageError: it has no such board, or one for which nothing here compiles.
    """
    found = [Place(device=HERE, target="host", cores=cores)]
    if not boards:
        return tuple(found)
    from bibench_tvm.compiling.processors import name_of
    from rpc.devices.device import describe
    from rpc.listing import is_device, list_boards
    from rpc.wire import show, tracker_address

    address = tracker_address(tracker)
    known = {key: describe(key) for key in boards if is_device(key)}
    if len(known) < len(set(boards)):
        known |= {info.key: info for info in list_boards(address)}
    for key in dict.fromkeys(boards):
        if key not in known:
            raise UsageError(
                f"There is no board {key!r} at the tracker {show(address)}; "
                f"it has {', '.join(known) or 'none'}."
            )
        info = known[key]
        if (target := name_of(info.machine, info.cpu)) is None:
            raise UsageError(f"Nothing here compiles for the board {key!r}, a {info.machine} {info.cpu}.")
        found.append(
            Place(
                device=key,
                target=target,
                cores=info.cores,
                emulated=info.emulated,
                takes_c=is_device(key),
                options=("--board", key),
                tracker="" if is_device(key) else show(address),
            )
        )
    return tuple(found)
