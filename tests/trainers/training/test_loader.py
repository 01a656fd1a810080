"""The order of batches: a function of seed and position."""

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainers.toy_image import Brighter
from trainers.training.evaluate import batch_size_for
from trainers.training.loader import Order, split_samples


@given(
    st.integers(2, 60), st.integers(2, 16), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5), st.data()
)
def test_an_epoch_has_each_sample_once(
    count: int, batch_size: int, epochs: int, ranks: int, seed: int, data: st.DataObject
) -> None:
    orders = [Order(range(100, 100 + count), batch_size, epochs, seed, rank, ranks) for rank in range(ranks)]
    keys = [list(order) for order in orders]
    assert all(len(found) == len(order) for found, order in zip(keys, orders, strict=True))
    per_epoch = orders[0].per_epoch
    assert per_epoch == (count // batch_size + (count % batch_size > 1)) // ranks
    for epoch in range(epochs):
        batches = [key for found in keys for key in found[epoch * per_epoch : (epoch + 1) * per_epoch]]
        seen = Counter(index for key in batches for index in key.indices)
        assert set(seen.values()) <= {1}
        assert set(seen) <= set(range(100, 100 + count))
        assert all(len(key.indices) >= 2 for key in batches)
        lost = count - len(seen)
        assert lost < batch_size * ranks if ranks > 1 else lost <= 1
    seeds = [key.seed for found in keys for key in found]
    assert len(set(seeds)) == len(seeds)
    first = data.draw(st.integers(0, per_epoch * epochs))
    orders[0].first = first
    assert list(orders[0]) == keys[0][first:]


def test_samples_that_are_held_out() -> None:
    task = Brighter()
    chosen, split, held_out = split_samples(task, 40, 0.25)
    assert (len(chosen), split, len(held_out)) == (30, "train", 10)
    assert not set(chosen) & set(held_out)
    assert split_samples(task, None, 0) == (list(range(64)), "train", [])
    task.splits = {"train": 64, "validation": 5, "test": 3}
    assert split_samples(task, None, 0.25) == (list(range(64)), "validation", [0, 1, 2, 3, 4])


def test_large_samples_are_judged_a_few_at_a_time() -> None:
    class Of:
        def __init__(self, *shapes: tuple[int, ...]) -> None:
            self.example_inputs = tuple(torch.zeros(1, *shape) for shape in shapes)

    for shapes, expected in (
        ([(1, 32, 32)], 250),
        ([(64,), (64,)], 250),
        ([(3, 300, 300)], 2**22 // 270_000),
        ([(3, 4000, 4000)], 1),
    ):
        assert batch_size_for(Of(*shapes)) == expected  # type: ignore[arg-type]
