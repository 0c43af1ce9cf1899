"""The random numbers of one step of a continuous kernel: normals for the move, uniforms for the decisions.

Definition. Words are the blocks threefry2x32(key, (i, 0)), i = 0, 1, …, both words of each (Salmon et al. 2011, 20 rounds:
the generator of ``jax.random``). Of a word's upper 23 bits a uniform u on (−1, 1) is made, and of it a normal √2 erf⁻¹(u),
as ``jax.random`` does. That spends a whole block on each word, and random numbers are most of what a cheap sampler costs:
here numbers of the same quality take half the time.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)
LEAST = np.nextafter(np.float32(-1), np.float32(0))  # −1 itself would be the normal −∞
ROOT_TWO = np.float32(np.sqrt(2))


def chance(
    key: PRNGKeyArray, dim: int, uniforms: int = 0, dtype: Any = jnp.float32
) -> tuple[Float[Array, " d"], Float[Array, " u"]]:
    """``dim`` independent standard normals and ``uniforms`` numbers uniform on [0, 1): a pure function of the key.

    The key must serve for nothing else. Precisions other than float32 come from ``jax.random``.

    >>> normal, uniform = chance(jax.random.key(0), 3, 2)
    >>> normal.shape, uniform.shape
    ((3,), (2,))
    """
    if jnp.dtype(dtype) != jnp.float32:
        key_normal, key_uniform = jax.random.split(key)
        return jax.random.normal(key_normal, (dim,), dtype), jax.random.uniform(key_uniform, (uniforms,), dtype)
    blocks = (dim + uniforms + 1) // 2
    words = jnp.concatenate(threefry(jax.random.key_data(key), jnp.arange(blocks, dtype=jnp.uint32)))
    unit = jax.lax.bitcast_convert_type((words >> 9) | np.uint32(0x3F800000), jnp.float32) - 1.0  # [0, 1)
    symmetric = jnp.maximum(LEAST, 2.0 * unit[:dim] + LEAST)
    return ROOT_TWO * jax.lax.erf_inv(symmetric), unit[dim : dim + uniforms]


def threefry(key: UInt32[Array, " words"], counter: UInt32[Array, " n"]) -> tuple[Array, Array]:
    """Both words of threefry2x32 with 20 rounds at the counters (counter, 0), each (n,).

    The rounds are written out and not a loop, so that they fuse with what is made of the words.

    >>> first, second = threefry(jnp.zeros(2, jnp.uint32), jnp.zeros(1, jnp.uint32))
    >>> hex(int(first[0])), hex(int(second[0]))
    ('0x6b200159', '0x99ba4efe')
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    a, b = counter + schedule[0], jnp.zeros_like(counter) + schedule[1]
    for block in range(5):
        for rotation in ROTATIONS[block % 2]:
            a = a + b
            b = ((b << rotation) | (b >> (32 - rotation))) ^ a
        a = a + schedule[(block + 1) % 3]
        b = b + schedule[(block + 2) % 3] + np.uint32(block + 1)
    return a, b
