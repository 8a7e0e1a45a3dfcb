"""Storage formats: the error that each formula promises, and the bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from whisfusion_asr.data.storage import pack, stored_bytes, unpack
from whisfusion_asr.errors import UserError

MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.floats(-1e4, 1e4, width=32)
)


def test_int8_values_by_hand() -> None:
    """Channel 0 spans 0 to 25.5, so its step is 0.1; channel 1 is constant."""
    states = np.array([[0.0, -7.0], [25.5, -7.0], [1.04, -7.0], [1.06, -7.0]], np.float32)
    stored = pack(states, "int8")
    assert stored.dtype == np.int8 and stored.shape == (8 + 4, 2)
    assert stored[8:].view(np.uint8)[:, 0].tolist() == [0, 255, 10, 11]
    np.testing.assert_allclose(unpack(stored, "int8")[:, 0], [0, 25.5, 1.0, 1.1], atol=1e-6)
    assert (unpack(stored, "int8")[:, 1] == -7.0).all()


@given(MATRICES)
def test_int8_moves_a_value_by_half_a_step(states: np.ndarray) -> None:
    step = (states.max(0).astype(np.float64) - states.min(0)) / 255
    smallest = np.finfo(np.float32).tiny  # below it, float32 has no step that fits
    error = np.abs(unpack(pack(states, "int8"), "int8").astype(np.float64) - states)
    assert (error <= 0.5 * step + 1e-6 * np.abs(states).max(0) + smallest).all()


@given(MATRICES)
def test_float32_is_exact_and_float16_nearly(states: np.ndarray) -> None:
    assert np.array_equal(unpack(pack(states, "float32"), "float32"), states)
    np.testing.assert_allclose(unpack(pack(states, "float16"), "float16"), states, rtol=2**-11, atol=2**-25)


def test_int8_is_scaled_by_channel() -> None:
    """A channel a thousand times louder than the others costs them nothing: rounding noise is step / sqrt(12)."""
    random = np.random.default_rng(0)
    states = random.uniform(-1, 1, size=(500, 16)).astype(np.float32)
    states[:, 3] *= 1000
    error = unpack(pack(states, "int8"), "int8") - states
    np.testing.assert_allclose(error.std(0), (states.max(0) - states.min(0)) / 255 / np.sqrt(12), rtol=0.1)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_bytes(storage: str) -> None:
    states = np.ones((615, 768), np.float32)
    assert pack(states, storage).nbytes == stored_bytes(storage, 615, 768)


def test_unknown_storage() -> None:
    from whisfusion_asr.data.storage import check_storage

    with pytest.raises(UserError, match="x/meta.json: storage: 'int4' is not known; expected one of float32, float16"):
        check_storage("int4", "x/meta.json: storage")
