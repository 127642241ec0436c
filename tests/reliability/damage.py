"""Damaged files: one flipped bit, or the end cut off, at offsets drawn from a seed and in every region of a file."""

import random


def bits(content, count, seed):
    """`count` different (byte, bit): a quarter in the first 256 bytes, a quarter in the last 512, the rest anywhere.

    The first hold a header, of zip, numpy, safetensors or JSON; the last a zip's directory. All bits, if the file has
    no more than `count`.
    """
    draw, size = random.Random(seed), len(content)
    if 8 * size <= count:
        return [(byte, bit) for byte in range(size) for bit in range(8)]
    regions = [(0, min(256, size)), (max(0, size - 512), size), (0, size), (0, size)]
    found = {}
    while len(found) < count:
        start, end = regions[len(found) % 4] if draw.random() < 0.9 else regions[3]
        found[draw.randrange(start, end), draw.randrange(8)] = None
    return list(found)


def lengths(content, count, seed):
    """`count` different lengths below the file's: 0, 1, one byte less, and others; all, if there are no more."""
    size = len(content)
    if size <= count:
        return list(range(size))
    found = dict.fromkeys([0, size - 1, 1][:count])
    draw = random.Random(seed)
    while len(found) < count:
        found[draw.randrange(size)] = None
    return list(found)


def damages(path, flips, cuts, seed=0):
    """Yields a word on each damage while the file `path` has it; in the end the file is as it was."""
    content = path.read_bytes()
    try:
        for byte, bit in bits(content, flips, seed):
            damaged = bytearray(content)
            damaged[byte] ^= 1 << bit
            path.write_bytes(damaged)
            yield f"bit {bit} of byte {byte} of {path.name}"
        for length in lengths(content, cuts, seed):
            path.write_bytes(content[:length])
            yield f"{path.name} cut to {length} bytes"
    finally:
        path.write_bytes(content)
