"""The pooling kernel against its plain reference, with and without packing."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schedules.geometry import Convolution
from schedules.kernels.pooling import Pooling, pooling_kernel, pooling_reference
from schedules.parts.bits import Packing, pack
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value, plain

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def poolings(draw, dtype: str) -> Pooling:
    kernel = draw(PAIR)
    padding = tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    channels = draw(st.sampled_from([1, 4, 20, 64, 67]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    batch, strides = draw(st.integers(1, 2)), draw(PAIR)
    window = Convolution(batch, height, width, channels, channels, kernel, strides, padding, groups=channels)
    assume(window.out_height > 0 and window.out_width > 0)
    average = dtype == "float32" and draw(st.booleans())
    return Pooling(window, dtype, average, draw(st.booleans()), of_bits=dtype.startswith("uint"))


def images_for(pool: Pooling, seed: int) -> np.ndarray:
    conv = pool.window
    rng, shape = np.random.default_rng(seed), (conv.batch, conv.height, conv.width, conv.channels)
    if pool.of_bits:
        return rng.integers(np.iinfo(pool.dtype).max, size=shape, dtype=pool.dtype, endpoint=True)
    return rng.normal(0, 100, shape).astype(pool.dtype)


DTYPES = st.sampled_from(["float32", "int32", "uint8", "uint16", "uint32"])


@given(pool=DTYPES.flatmap(poolings), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=90)
def test_pooling(host, pool, seed):
    images = images_for(pool, seed)
    shape = pool.window.out_shape
    kernel = pooling_kernel(pool, plain(shape, pool.dtype))
    [pooled] = host.some(seed).call(kernel, [images], [(shape, pool.dtype)])
    np.testing.assert_allclose(pooled, pooling_reference(images, pool), rtol=1e-5, atol=1e-4)


@given(pool=poolings("int32"), word=st.sampled_from([8, 16, 32]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_maximum_to_bits(host, pool, word, seed):
    images = images_for(pool, seed)
    thresholds = np.arange(pool.window.channels, dtype="int32") - 20
    packing = Packing(pool.window.channels, word, 1, (1, 0, 2, 1))
    shape = packing.shape(*pool.window.out_shape[:3])
    compare = Step("relax.greater_equal", (SUM, Value("operand", 0)))
    output = Output(Value("step", 0), shape, packing.dtype, packing)
    epilogue = Epilogue(((thresholds.shape, "int32"),), (compare,), (output,))
    kernel = pooling_kernel(pool, epilogue)
    [words] = host.some(seed).call(kernel, [images, thresholds], [(shape, packing.dtype)])
    np.testing.assert_array_equal(words, pack(pooling_reference(images, pool) >= thresholds, packing))
