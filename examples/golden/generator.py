"""Numbers that Python and Rust make alike, so that no weights need to be stored.

Owns the generator; `tests/support/generator.rs` is the same in Rust. It knows nothing of models.
Invariant: every product below is exact in float32, so both languages arrive at the same bits.
"""

import math

import numpy as np

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def fnv1a(name: str) -> int:
    """64-bit FNV-1a of a name's UTF-8 bytes."""
    value = 0xCBF29CE484222325
    for byte in name.encode("utf-8"):
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def bits(seed: int, name: str, count: int) -> np.ndarray:
    """The first `count` outputs of splitmix64 started at fnv1a(name) + seed * GOLDEN_GAMMA, as uint64."""
    start = np.uint64((fnv1a(name) + seed * GOLDEN_GAMMA) & MASK)
    with np.errstate(over="ignore"):
        z = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(seed: int, name: str, count: int, offset: float, scale: float) -> np.ndarray:
    """float32 `offset + scale * k / 2^15` with k from -2^15 to 2^15 - 1: 16 bits, so that `dyadic` scales stay exact."""
    k = (bits(seed, name, count) >> np.uint64(48)).astype(np.int64) - 32768
    return np.float32(offset) + np.float32(scale) * (k.astype(np.float32) / np.float32(32768))


def logits(seed: int, name: str, count: int, scale: float) -> np.ndarray:
    """float32 `scale * k / 2^23` with k from -2^23 to 2^23 - 1; `scale` must be a power of two."""
    assert math.frexp(scale)[0] == 0.5, scale
    k = (bits(seed, name, count) >> np.uint64(40)).astype(np.int64) - (1 << 23)
    return np.float32(scale) * (k.astype(np.float32) / np.float32(1 << 23))


def ids(seed: int, name: str, count: int, vocab_size: int) -> list[int]:
    """`count` token ids below `vocab_size`."""
    return [int(z % vocab_size) for z in bits(seed, name, count)]


def dyadic(value: float) -> float:
    """The nearest number with 8 significant bits: times 16 bits it still fits float32's 24."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 256) / 256, exponent)
