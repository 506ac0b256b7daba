"""Noise: Random123's vectors, audio-shaped indexing, and the law of the normals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastglow import noise
from fastglow.errors import InputError

# philox4x32-10 from Random123's published known-answer file (kat_vectors).
VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (
        [0xFFFFFFFF] * 4,
        [0xFFFFFFFF] * 2,
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    ),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_gives_the_published_vectors(counter, key, expected):
    found = noise.philox(np.array(counter, dtype=np.uint32)[:, None], tuple(key))
    assert found[:, 0].tolist() == expected


def test_integers_put_the_index_in_the_counter_and_the_seed_in_the_key():
    seed, first = 0x299F31D0_A4093822, (1 << 32) + 5
    found = noise.integers(seed, first, 3)
    counter = np.array([[5, 6, 7], [1, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=np.uint32)
    assert np.array_equal(found, noise.philox(counter, (0xA4093822, 0x299F31D0)))


def test_normals_follow_box_muller_in_double_precision():
    bits = noise.integers(7, 0, 2)
    found = noise.normal(7, 8)
    for n in range(8):
        word, lane = bits[:, n // 4], n % 4
        radius = math.sqrt(-2 * math.log((int(word[lane // 2 * 2]) + 0.5) / 2**32))
        angle = 2 * math.pi * int(word[lane // 2 * 2 + 1]) / 2**32
        wave = math.cos(angle) if lane % 2 == 0 else math.sin(angle)
        assert found[n] == pytest.approx(radius * wave, abs=1e-6)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 300))
def test_any_piece_equals_the_same_piece_of_the_whole(seed, start, count):
    whole = noise.normal(seed, count + 7, start)
    assert np.array_equal(noise.normal(seed, count, start + 7), whole[7:])


def test_pieces_agree_across_the_internal_blocks():
    whole = noise.normal(3, noise._BLOCK + 100)
    assert np.array_equal(noise.normal(3, 200, noise._BLOCK - 100), whole[-200:])


def test_normals_are_standard_and_independent_of_the_seed():
    z = noise.normal(0, 1_000_000).astype(np.float64)
    assert abs(z.mean()) < 5e-3
    assert z.std() == pytest.approx(1, abs=5e-3)
    assert (z**4).mean() == pytest.approx(3, abs=0.05)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5e-3
    assert abs(np.corrcoef(z, noise.normal(1, 1_000_000))[0, 1]) < 5e-3
    assert np.isfinite(z).all()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "0", None, True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(InputError, match="seed"):
        noise.normal(seed, 4)
