"""Writes AVML dumps of version 2 (``src/image.rs`` of AVML) and framed Snappy streams.

Streams come in two ways: by hand, from Snappy's ``framing_format.txt`` and ``format_description.txt``, and by
cramjam, which wraps the library that AVML itself uses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

import cramjam

BLOCK = 16 << 20
CHUNK = 1 << 16
IDENTIFIER = b"\xff\x06\x00\x00sNaPpY"


def framed(data: bytes) -> bytes:
    """Make a framed stream as AVML does."""
    return bytes(cramjam.snappy.compress(data))


def framed_by_hand(
    data: bytes,
    sizes: Sequence[int] = (CHUNK,),
    kinds: Sequence[str] = ("literals", "plain"),
    between: bytes = b"",
) -> bytes:
    """Make a framed stream of chunks of any sizes and kinds, in turn, with other chunks between them."""
    stream = IDENTIFIER
    number = 0
    while data:
        size = sizes[number % len(sizes)]
        stream += between + chunk(data[:size], kinds[number % len(kinds)])
        data = data[size:]
        number += 1
    return stream


def chunk(data: bytes, kind: str) -> bytes:
    """Make one chunk: data as it is (``plain``), or compressed as nothing but ``literals``."""
    body = data if kind == "plain" else varint(len(data)) + literals(data)
    return header(1 if kind == "plain" else 0, struct.pack("<I", masked_crc32c(data)) + body)


def header(kind: int, body: bytes) -> bytes:
    """Put the header of a chunk before its body."""
    return bytes([kind]) + len(body).to_bytes(3, "little") + body


def varint(number: int) -> bytes:
    """Write a number in groups of seven bits, the lowest first."""
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def literals(data: bytes) -> bytes:
    """Write data as Snappy elements: literals of at most 65,536 bytes whose length is in two bytes."""
    parts = (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
    return b"".join(bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part for part in parts)


def masked_crc32c(data: bytes) -> int:
    """Checksum data with CRC-32C (Castagnoli), rotated and offset as the framing format wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


_TABLE = _table()


def block_header(address: int, size: int, version: int = 2, padding: int = 0) -> bytes:
    """Write the header of a block."""
    return struct.pack("<IIQQQ", 0x4C4D5641, version, address, address + size - 1, padding)


def block(address: int, data: bytes, compress: Callable[[bytes], bytes] = framed) -> bytes:
    """Write a block: header, stream, and the length of the stream."""
    stream = compress(data)
    return block_header(address, len(data)) + stream + struct.pack("<Q", len(stream))


def avml(
    ranges: Iterable[tuple[int, bytes]],
    *,
    block_size: int = BLOCK,
    zero_blocks: str = "left out",
    compress: Callable[[bytes], bytes] = framed,
) -> bytes:
    """Write ranges of memory, given by address, as AVML does.

    Parameters
    ----------
    zero_blocks : {"left out", "without data", "written"}
        What becomes of blocks that are all zero: later versions, versions with issue 760, and the first.
    """
    parts = []
    for start, memory in ranges:
        for at in range(0, len(memory), block_size):
            data = memory[at : at + block_size]
            if any(data) or zero_blocks == "written":
                parts.append(block(start + at, data, compress))
            elif zero_blocks == "without data":
                parts.append(block_header(start + at, len(data)))
    return b"".join(parts)
