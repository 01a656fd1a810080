"""A run: the float network first, distillation, stages; and networks that are not for the task."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F

import trainers
from tests.trainers.toy_image import Brighter, Tiny
from tests.trainers.toy_text import HasMark
from trainers.operator import BinaryLayer
from trainers.tasks import tasks
from trainers.training.module import Training
from trainers.training.recipe import Recipe
from trainers.training.run import Resources, Run, perform

RUN = Run(task="brighter", arch="tiny", algorithm="bnn", recipe=Recipe(epochs=2, batch_size=16, lr=0.01))
RESOURCES = Resources()


def change(**fields: Any) -> Run:
    recipe = {key: fields.pop(key) for key in list(fields) if key in Recipe.__struct_fields__}
    return msgspec.structs.replace(RUN, recipe=msgspec.structs.replace(RUN.recipe, **recipe), **fields)


def test_the_float_network_comes_first_and_is_kept(tmp_path: Path) -> None:
    perform(change(lr=1e-30), tmp_path / "a", RESOURCES)
    network, metadata = trainers.load_checkpoint(tmp_path / "a/float/checkpoint.pt")
    assert metadata["algorithm"] == "fp32"
    binary, _ = trainers.load_checkpoint(tmp_path / "a/checkpoint.pt")
    for name, value in network.state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(value, binary.state_dict()[name])
    perform(change(init=str(tmp_path / "a/float/checkpoint.pt"), lr=1e-30), tmp_path / "b", RESOURCES)
    assert not (tmp_path / "b/float").exists()
    again, _ = trainers.load_checkpoint(tmp_path / "b/checkpoint.pt")
    assert torch.equal(again.state_dict()["2.weight"], binary.state_dict()["2.weight"])
    perform(change(from_float=False), tmp_path / "c", RESOURCES)
    assert not (tmp_path / "c/float").exists()


def test_the_float_network_may_take_other_epochs(tmp_path: Path) -> None:
    perform(change(float_epochs=1), tmp_path, RESOURCES)
    taken = [
        trainers.load_checkpoint(tmp_path / name)[1]["extra"]["recipe"]["epochs"]
        for name in ("float/checkpoint.pt", "checkpoint.pt")
    ]
    assert taken == [1, 2]
    perform(change(algorithm="fp32", float_epochs=1), tmp_path / "alone", RESOURCES)
    _, alone = trainers.load_checkpoint(tmp_path / "alone/checkpoint.pt")
    assert alone["extra"]["recipe"]["epochs"] == 1


def test_the_float_network_by_itself_is_the_one_that_comes_first(tmp_path: Path) -> None:
    """Whatever only a network that starts from it has: a sweep trains it alone, once for several."""
    staged = {"stages": 2, "distillation": 1.0}
    perform(change(**staged), tmp_path / "both", RESOURCES)
    perform(change(algorithm="fp32", **staged), tmp_path / "alone", RESOURCES)
    first, alone = (
        trainers.load_checkpoint(tmp_path / name / "checkpoint.pt")[0].state_dict()
        for name in ("both/float", "alone")
    )
    assert all(torch.equal(value, alone[name]) for name, value in first.items())


def test_other_weights_to_start_from_are_another_training(tmp_path: Path) -> None:
    """A finished training said that it was done, whatever it was asked to start from."""
    for name, seed in (("a", 0), ("b", 1)):
        perform(change(algorithm="fp32", seed=seed), tmp_path / name, RESOURCES)
    first, second = (change(init=str(tmp_path / name / "checkpoint.pt")) for name in "ab")
    out = tmp_path / "out"
    metrics = perform(first, out, RESOURCES)
    assert perform(first, out, RESOURCES) == metrics
    for other in (second, change()):
        with pytest.raises(ValueError, match="with weights of --init '[0-9a-f]{12}', not .*another folder"):
            perform(other, out, RESOURCES)


def test_a_binary_network_can_be_trained_on(tmp_path: Path) -> None:
    perform(change(from_float=False), tmp_path / "a", RESOURCES)
    perform(change(init=str(tmp_path / "a/checkpoint.pt"), lr=1e-30), tmp_path / "b", RESOURCES)
    one, other = (trainers.load_checkpoint(tmp_path / name / "checkpoint.pt")[0] for name in "ab")
    assert torch.equal(one.state_dict()["2.weight"], other.state_dict()["2.weight"])


def test_a_plain_state_dict_is_of_the_float_network(tmp_path: Path) -> None:
    network = Tiny()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pt")
    perform(change(init=str(tmp_path / "weights.pt"), lr=1e-30), tmp_path / "out", RESOURCES)
    binary, _ = trainers.load_checkpoint(tmp_path / "out/checkpoint.pt")
    assert torch.equal(network.state_dict()["2.weight"], binary.state_dict()["2.weight"])
    torch.save([1], tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="holds a list, but a checkpoint is a dictionary"):
        perform(change(init=str(tmp_path / "weights.pt")), tmp_path / "other", RESOURCES)


def test_weights_of_transformers_start_a_bert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Words(HasMark):
        sizes: Any = HasMark.sizes
        example_inputs: Any = HasMark.example_inputs | {"token_type_ids": torch.zeros(1, 8).long()}

        def batch(self, split: str, indices: Any, generator: Any = None) -> Any:
            inputs, targets = super().batch(split, indices, generator)
            return inputs | {"token_type_ids": torch.zeros_like(inputs["input_ids"])}, targets

    monkeypatch.setitem(tasks._entries, "words", Words)
    network = trainers.create_model("bert_tiny4@small", **HasMark.sizes)
    state = {
        name.removeprefix("bert."): v for name, v in network.state_dict().items() if "classifier" not in name
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    run = change(
        task="words", arch="bert_tiny4@small", epochs=1, lr=1e-30, init=str(tmp_path / "pytorch_model.bin")
    )
    perform(run, tmp_path / "out", RESOURCES)
    binary, _ = trainers.load_checkpoint(tmp_path / "out/checkpoint.pt")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(network.state_dict()[name], binary.state_dict()[name])


def test_hyperparameters_reach_the_layers(tmp_path: Path) -> None:
    perform(change(algorithm="recu", hyperparameters={"tau_end": 0.9}), tmp_path, RESOURCES)
    network, metadata = trainers.load_checkpoint(tmp_path / "checkpoint.pt")
    assert metadata["hyperparameters"] == {"tau_end": 0.9}
    assert network.get_buffer("2.tau").item() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "brightest"}, "There is no task 'brightest'; did you mean 'brighter'"),
        ({"arch": "tinny"}, "There is no model 'tinny'"),
        ({"arch": "resnet20"}, r"resnet20 is for inputs \(1, 32, 32\), but brighter has \(1, 8, 8\)"),
        ({"algorithm": "bn"}, "There is no algorithm 'bn'"),
        ({"hyperparameters": {"tau": 1}}, "bnn has no hyper-parameter 'tau'"),
        ({"init": "/nowhere.pt"}, "There is no file /nowhere.pt"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        perform(change(**changes), tmp_path, RESOURCES)


def test_two_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first computes with float weights, the second with signs; each has the whole schedule."""
    seen: list[tuple[bool, float, float]] = []
    step = Training.training_step

    def spy(training: Training, batch: Any, index: int) -> Any:
        loss = step(training, batch, index)
        group = training.trainer.optimizers[0].param_groups[0]
        (layer,) = (module for module in training.model.modules() if isinstance(module, BinaryLayer))
        seen.append((layer.float_weights, group["lr"], group["weight_decay"]))
        return loss

    monkeypatch.setattr(Training, "training_step", spy)
    settings: Any = {"stages": 2, "epochs": 4, "schedule": "linear", "lr": 0.8, "decay_binary": 0.1}
    perform(change(from_float=False, batch_size=64, **settings), tmp_path, RESOURCES)
    assert seen == [(True, 0.8, 0.1), (True, 0.4, 0.1), (False, 0.8, 0.0), (False, 0.4, 0.0)]


def test_float_weights_are_multiplied_as_they_are() -> None:
    for algorithm in trainers.list_algorithms()[1:]:
        layer = torch.nn.Linear(8, 4)
        expected = torch.nn.Linear(8, 4)
        expected.load_state_dict(layer.state_dict())
        binary: Any = trainers.binarize(layer, algorithm)
        binary.float_weights = True
        x = torch.randn(3, 8)
        torch.testing.assert_close(binary(x), expected(torch.where(x >= 0, 1.0, -1.0)))


def test_distillation_is_the_distance_to_the_float_network(tmp_path: Path) -> None:
    task, inputs = Brighter(), torch.randn(5, 1, 8, 8)
    teacher = Tiny().eval()
    training = Training.__new__(Training)
    torch.nn.Module.__init__(training)
    training.teacher, training.recipe = teacher, Recipe(distillation=1.0, temperature=2.0)
    outputs = torch.randn(5, 2)
    wanted, found = (F.softmax(x / 2, 1) for x in (teacher(inputs), outputs))
    expected = 4 * (wanted * (wanted / found).log()).sum(1).mean()
    torch.testing.assert_close(training._distance(outputs, inputs), expected.detach())
    assert task.metric in perform(change(distillation=0.5), tmp_path, RESOURCES)


def test_nothing_is_distilled_into_a_network_with_a_loss_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "loss", Brighter().loss, raising=False)
    with pytest.raises(ValueError, match="by a loss of its own, into which nothing is distilled"):
        perform(change(distillation=0.5), tmp_path, RESOURCES)
    assert not [*tmp_path.iterdir()]  # not even the float network
