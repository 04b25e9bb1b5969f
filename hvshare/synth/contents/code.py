"""Machine code: functions of idioms that compilers repeat, whose displacements differ from page to page."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from hvshare.synth.contents.batches import PageDraws
from hvshare.synth.contents.chunks import Stock, lay
from hvshare.synth.contents.picks import Picks, table_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hvshare.synth.contents.batches import Batch

_CHUNKS: Final = 2048
_SPAN: Final = 32
_OWN_BITS: Final = 0x000F_FFFF
"""A displacement within a megabyte; what is above its 20 bits is its sign."""


class _Idiom(NamedTuple):
    code: bytes
    operand_bytes: int = 0


class _Dialect(NamedTuple):
    """How compilers write for an architecture; `reaching` are opcodes before a displacement of 32 bits."""

    entry: bytes
    idioms: tuple[_Idiom, ...]
    reaching: tuple[bytes, ...]
    returns: tuple[bytes, ...]
    padding: bytes


_I386: Final = _Dialect(
    entry=bytes.fromhex("5589e5"),
    idioms=(
        _Idiom(bytes.fromhex("8b45"), 1),  # mov eax, [ebp+d]
        _Idiom(bytes.fromhex("8945"), 1),  # mov [ebp+d], eax
        _Idiom(bytes.fromhex("8b4d"), 1),  # mov ecx, [ebp+d]
        _Idiom(bytes.fromhex("ff75"), 1),  # push [ebp+d]
        _Idiom(bytes.fromhex("85c074"), 1),  # test eax, eax; jz
        _Idiom(bytes.fromhex("6a"), 1),  # push n
        _Idiom(bytes.fromhex("8b46"), 1),  # mov eax, [esi+d]
        _Idiom(bytes.fromhex("83c4"), 1),  # add esp, n
        _Idiom(bytes.fromhex("33c0")),  # xor eax, eax
        _Idiom(bytes.fromhex("8bf0")),  # mov esi, eax
        _Idiom(bytes.fromhex("3bc7")),  # cmp eax, edi
        _Idiom(bytes.fromhex("75"), 1),  # jnz
        _Idiom(bytes.fromhex("8d45"), 1),  # lea eax, [ebp+d]
        _Idiom(bytes.fromhex("535657")),  # push ebx; push esi; push edi
        _Idiom(bytes.fromhex("837dfc"), 1),  # cmp dword [ebp-4], n
        _Idiom(bytes.fromhex("0fb645"), 1),  # movzx eax, byte [ebp+d]
        _Idiom(bytes.fromhex("c745fc"), 4),  # mov [ebp-4], n
        _Idiom(bytes.fromhex("eb"), 1),  # jmp
        _Idiom(bytes.fromhex("83e0"), 1),  # and eax, n
        _Idiom(bytes.fromhex("81ec"), 4),  # sub esp, n
    ),
    reaching=tuple(bytes.fromhex(code) for code in ("e8", "e8", "e8", "0f84", "0f85", "e9", "8b83", "8d83")),
    returns=tuple(bytes.fromhex(code) for code in ("5f5e5bc9c3", "c9c3", "5e5dc3", "c9c20800")),
    padding=b"\xcc",
)
_X86_64: Final = _Dialect(
    entry=bytes.fromhex("554889e5"),
    idioms=(
        _Idiom(bytes.fromhex("4889df")),  # mov rdi, rbx
        _Idiom(bytes.fromhex("488b45"), 1),  # mov rax, [rbp+d]
        _Idiom(bytes.fromhex("4885c074"), 1),  # test rax, rax; jz
        _Idiom(bytes.fromhex("488b43"), 1),  # mov rax, [rbx+d]
        _Idiom(bytes.fromhex("31c0")),  # xor eax, eax
        _Idiom(bytes.fromhex("85c075"), 1),  # test eax, eax; jnz
        _Idiom(bytes.fromhex("488945"), 1),  # mov [rbp+d], rax
        _Idiom(bytes.fromhex("4c89e6")),  # mov rsi, r12
        _Idiom(bytes.fromhex("4883ec"), 1),  # sub rsp, n
        _Idiom(bytes.fromhex("488b7c24"), 1),  # mov rdi, [rsp+d]
        _Idiom(bytes.fromhex("41544155")),  # push r12; push r13
        _Idiom(bytes.fromhex("89c2")),  # mov edx, eax
        _Idiom(bytes.fromhex("0fb643"), 1),  # movzx eax, byte [rbx+d]
        _Idiom(bytes.fromhex("be"), 4),  # mov esi, n
        _Idiom(bytes.fromhex("eb"), 1),  # jmp
        _Idiom(bytes.fromhex("4839c6")),  # cmp rsi, rax
        _Idiom(bytes.fromhex("4c8b6424"), 1),  # mov r12, [rsp+d]
        _Idiom(bytes.fromhex("f30f1efa")),  # landing pad
        _Idiom(bytes.fromhex("64488b042528000000")),  # stack guard
        _Idiom(bytes.fromhex("83f8"), 1),  # cmp eax, n
    ),
    reaching=tuple(
        bytes.fromhex(code)
        for code in ("e8", "e8", "e8", "488d3d", "488d05", "488b05", "488d35", "0f84", "0f85", "e9")
    ),
    returns=tuple(bytes.fromhex(code) for code in ("5b415c5dc3", "c9c3", "4883c4185b5dc3", "5bc3")),
    padding=b"\xcc",
)
_NO_OPERATIONS: Final = tuple(bytes.fromhex(code) for code in ("", "90", "6690", "0f1f00", "0f1f4000"))


def code_i386(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with machine code of i386 that holds no addresses."""
    lay(pages, PageDraws.of(batch), stock_i386())


def code_x86_64(pages: NDArray[np.uint64], batch: Batch) -> None:
    """Fill pages with machine code of x86-64, which addresses by distance."""
    lay(pages, PageDraws.of(batch), stock_x86_64())


@lru_cache(maxsize=1)
def stock_i386() -> Stock:
    """Make the chunks of machine code of i386."""
    return _stock("code i386", _I386)


@lru_cache(maxsize=1)
def stock_x86_64() -> Stock:
    """Make the chunks of machine code of x86-64."""
    return _stock("code x86-64", _X86_64)


def _stock(name: str, dialect: _Dialect) -> Stock:
    picks = Picks(name)
    chunks = table_of([_chunk(picks, dialect) for _ in range(_CHUNKS)])
    return Stock(chunks, _SPAN, (_OWN_BITS, _OWN_BITS))


def _chunk(picks: Picks, dialect: _Dialect) -> bytes:
    """Write 64 bytes of a function, with displacements where the page's own bits go."""
    code = bytearray(dialect.entry if picks.below(4) == 0 else b"")
    for place in (16, 48):
        reaching = picks.one_of(dialect.reaching)
        _write_until(code, place - len(reaching), picks, dialect)
        code += reaching
        code += (0xFFF0_0000 if picks.below(2) else 0).to_bytes(4, "little")
        if place == 16 and picks.below(5) == 0:
            code += picks.early_one_of(dialect.returns)
            code += dialect.padding * (-len(code) % 16)
            code += dialect.entry
    if picks.below(3) == 0:
        code += picks.early_one_of(dialect.returns)
        code += dialect.padding * (64 - len(code))
    _write_until(code, 64, picks, dialect)
    return bytes(code)


def _write_until(code: bytearray, end: int, picks: Picks, dialect: _Dialect) -> None:
    while end - len(code) >= len(_NO_OPERATIONS):
        idiom = picks.early_one_of(dialect.idioms)
        if len(code) + len(idiom.code) + idiom.operand_bytes > end:
            break
        code += idiom.code
        # Offsets of fields are aligned, so their lowest bits are always zero.
        operand = picks.skewed(24) * 4 if idiom.operand_bytes == 1 else picks.skewed(32) * 16
        code += operand.to_bytes(idiom.operand_bytes, "little") if idiom.operand_bytes else b""
    while len(code) < end:
        code += _NO_OPERATIONS[min(end - len(code), len(_NO_OPERATIONS) - 1)]
