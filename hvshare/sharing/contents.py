"""What a frequent page looks like, in words that a person recognises."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hvshare.errors import ImageError
from hvshare.fingerprint.coverage import Coverage
from hvshare.fingerprint.pages import fill_digests
from hvshare.images.runs import RunKind
from hvshare.sharing.report import DescribedContent
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvshare.fingerprint.fingerprints import Fingerprints
    from hvshare.images.image import GuestImage
    from hvshare.sharing.grouping import FrequentContent

SHOWN_BYTES: Final = 16

_REREAD_PAGES: Final = (64 << 20) // PAGE_SIZE  # unpacking more may take longer than the measurement did

_STARTS: Final = (
    (b"\x7fELF", "ELF header"),
    (b"MZ", "DOS or PE header"),
    (b"#!", "script"),
    (b"SQLite format 3\0", "SQLite header"),
    (b"\x1f\x8b\x08", "gzip data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"\xfd7zXZ\0", "xz data"),
    (b"PK\x03\x04", "zip data"),
    (b"\x89PNG\r\n", "PNG image"),
)
_TEXT: Final = re.compile(rb"[\t\n\r\x20-\x7e]*")
_WIDE_TEXT: Final = re.compile(rb"(?:[\t\n\r\x20-\x7e]\0)*")


def describe_page(page: bytes) -> str:
    """Say what a page looks like.

    Parameters
    ----------
    page : bytes
        4,096 bytes.

    Returns
    -------
    str
        A few words; ``data`` where nothing is recognised.

    Examples
    --------
    >>> describe_page(b"\\xcc" * 4096), describe_page(bytes.fromhex("deadbeef") * 1024)
    ('fill 0xcc', 'repeats deadbeef')
    >>> describe_page(b"x" + bytes(4095)), describe_page(b"All work and no play\\n" * 195 + b"x")
    ('1 byte in zeros', 'text')
    """
    for period in (1, 2, 4, 8, 16, 32, 64):
        if page[:period] * (PAGE_SIZE // period) == page:
            if period == 1:
                return f"fill 0x{page[0]:02x}"
            return f"repeats {page[:period].hex()}" if period <= 8 else f"repeats {period} bytes"
    set_bytes = PAGE_SIZE - page.count(0)
    if set_bytes <= SHOWN_BYTES:
        return f"{set_bytes} byte{'s' * (set_bytes > 1)} in zeros"
    for start, description in _STARTS:
        if page.startswith(start):
            return description
    filled = page.rstrip(b"\0")
    padding = ", then zeros" if len(filled) < PAGE_SIZE - 1 else ""
    if _TEXT.fullmatch(filled):
        return "text" + padding
    if _WIDE_TEXT.fullmatch(page):
        return "UTF-16 text"
    if set_bytes < PAGE_SIZE // 8:
        return "data, mostly zeros"
    return "data" + padding


def describe_contents(
    contents: Sequence[FrequentContent],
    fingerprints: Sequence[Fingerprints],
    images: Mapping[str, GuestImage],
) -> tuple[DescribedContent, ...]:
    """Look at frequent contents where the first image holds them.

    Parameters
    ----------
    contents : sequence of FrequentContent
        What to look at.
    fingerprints : sequence of Fingerprints
        Of all VMs, in the order that `contents` refers to.
    images : mapping of str to GuestImage
        Opened images by name. Contents of others, and of all but the start of streams, are known by digest
        only.

    Returns
    -------
    tuple of DescribedContent
    """
    gfns = [
        int(
            Coverage(fingerprints[each.vm].runs, (RunKind.PRESENT,)).gfns(each.position, each.position + 1)[0]
        )
        for each in contents
    ]
    pages: dict[tuple[int, int], bytes] = {}
    for vm in {content.vm for content in contents}:
        wanted = {gfn for content, gfn in zip(contents, gfns, strict=True) if content.vm == vm}
        found = _read_pages(images.get(fingerprints[vm].name), wanted)
        pages |= {(vm, gfn): page for gfn, page in found.items()}
    described = []
    for content, gfn in zip(contents, gfns, strict=True):
        of_vm = fingerprints[content.vm]
        page = pages.get((content.vm, gfn), b"")
        if not page and content.digest in fill_digests():
            page = bytes([fill_digests()[content.digest]]) * PAGE_SIZE
        unseen = "in a stream, not read again" if of_vm.name in images else "known by its digest only"
        description = describe_page(page) if page else unseen
        described.append(
            DescribedContent(content.copies, content.digest, of_vm.name, gfn, description, page[:SHOWN_BYTES])
        )
    return tuple(described)


def _read_pages(image: GuestImage | None, gfns: set[int]) -> dict[int, bytes]:
    """Read some pages again, unless that takes reading too much of a stream."""
    if image is None or not image.can_reread:
        return {}
    try:
        if image.runs is not None:
            return {gfn: page for each in gfns for gfn, page in _pages(image, (each, each + 1))}
        if max(gfns) >= _REREAD_PAGES:
            return {}
        found = {}
        for gfn, page in _pages(image, None):
            if gfn in gfns:
                found[gfn] = page
            if len(found) == len(gfns):
                break
    except ImageError:
        return {}  # what a page looks like is no reason to lose the figures
    return found


def _pages(image: GuestImage, span: tuple[int, int] | None) -> Iterator[tuple[int, bytes]]:
    buffer = bytearray(PAGE_SIZE)
    for block in image.blocks(memoryview(buffer), span):
        yield block.first_gfn, bytes(buffer)
