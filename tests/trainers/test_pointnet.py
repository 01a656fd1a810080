"""PointNet's order of points, its matrices and its maximum."""

from pathlib import Path

import pytest
import torch

import trainers
from trainers.models.pointnet import Aggregator, TNet


def test_ema_max_puts_the_median_of_the_maximum_at_0() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 500, 256)
    most = Aggregator("max")(x)
    assert torch.equal(most, x.max(2).values) and (most > 0).all()
    moved = Aggregator("ema_max")(x)
    assert 0.47 < (moved > 0).float().mean() < 0.53
    offset = Aggregator("max")(torch.zeros(1, 1, 1024)) - Aggregator("ema_max")(torch.zeros(1, 1, 1024))
    assert offset.item() == pytest.approx(3.204, abs=1e-3)  # as BiPointNet has for 1024 points
    with pytest.raises(ValueError, match="no aggregator 'mean'; known are max, ema_max"):
        trainers.create_model("pointnet@small", aggregator="mean")


@pytest.mark.parametrize("name", ["pointnet@small", "pointnet_vanilla@small"])
def test_the_order_of_points_does_not_matter(name: str) -> None:
    torch.manual_seed(0)
    x, order = torch.randn(2, 3, 128), torch.randperm(128)
    for parts in (None, 6):
        model = trainers.binarize(trainers.create_model(name, parts=parts), "bnn")
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum = None  # one batch gives the statistics
        with torch.inference_mode():
            model(torch.randn(16, 3, 128))
            model.eval()
            y, other = model(x), model(x[..., order])
        torch.testing.assert_close(other, y if parts is None else y[..., order])
        assert y.shape == ((2, 10) if parts is None else (2, 6, 128))


def test_a_matrix_starts_from_the_identity() -> None:
    net = TNet(3, 4, "max").eval()
    for parameter in net.matrix.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(net(torch.randn(2, 3, 9)), torch.eye(3).expand(2, 3, 3))
    names = dict(trainers.create_model("pointnet_vanilla@small").named_modules())
    assert not [name for name in names if "transform." in name]


def test_no_parts_are_the_default_and_a_state_dict_has_none(tmp_path: Path) -> None:
    sizes = trainers.default_sizes("pointnet_vanilla@small")
    assert sizes["parts"] == 0
    model = trainers.create_model("pointnet_vanilla@small", **sizes)
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    assert trainers.load_checkpoint(tmp_path / "plain.pt", arch="pointnet_vanilla@small")[1]["sizes"] == sizes
    with pytest.raises(ValueError, match="parts has to be a whole number from 1 on, but is -1"):
        trainers.create_model("pointnet_vanilla@small", parts=-1)
