"""Disks of guests: raw images and block devices, whose blocks page cache can be matched against.

Magic numbers from: QEMU ``docs/interop/{qcow2,parallels,qed_spec}.txt`` and ``block/vmdk.c``; Microsoft's
specifications of VHD ("Hard Disk Footer Format", at the end of every file) and VHDX; VirtualBox
``VDICore.h``; Apple's ``koly`` trailer; the LUKS on-disk formats.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final

from hvshare.errors import UnsupportedImageError
from hvshare.fingerprint.files import is_fingerprint_file
from hvshare.fingerprint.inputs import StoredFingerprints
from hvshare.images.formats import recognise_format
from hvshare.images.options import ReadingOptions
from hvshare.images.raw import read_raw
from hvshare.images.registry import default_names, open_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvshare.errors import ImageError
    from hvshare.fingerprint.inputs import Input
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening

_LIVE: Final = ("qemu:", "pid:")
_TRAILER_BYTES: Final = 512
_HEADS: Final = (
    ("qcow2", 0, (b"QFI\xfb",)),
    ("QED", 0, (b"QED\0",)),
    ("VHDX", 0, (b"vhdxfile",)),
    ("VHD", 0, (b"conectix",)),
    ("VMDK", 0, (b"KDMV", b"COWD", b"# Disk DescriptorFile")),
    ("VDI", 0, (b"<<< Oracle VM VirtualBox Disk Image", b"<<< Sun VirtualBox Disk Image")),
    ("VDI", 0x40, (b"\x7f\x10\xda\xbe",)),
    ("Parallels", 0, (b"WithoutFreeSpace", b"WithouFreSpacExt")),
)
_TRAILERS: Final = (("VHD", b"conectix"), ("DMG", b"koly"))
_ENCRYPTED: Final = (b"LUKS\xba\xbe",)


def open_disk(path: str, *, name: str = "", options: ReadingOptions = ReadingOptions()) -> Input:
    """Open a disk whose bytes are stored as they are, or the digests that were kept of one.

    Parameters
    ----------
    path : str
        A raw image, sparse or not, a block device, a pipe, or a fingerprint file that was made of one; plain
        or compressed as a stream.
    name : str, optional
        How reports call it; the file name by default.
    options : ReadingOptions
        How it is read. Disks are always taken as raw, and their holes as zero.

    Returns
    -------
    GuestImage or StoredFingerprints
        Opened; the caller closes it. A page of the image is a block of the disk.

    Raises
    ------
    UnsupportedImageError
        If it is recognised as something that does not store a disk's blocks as they are.
    ImageError
        If it cannot be opened or is empty.
    """
    if path.startswith(_LIVE) and not os.path.exists(path):  # noqa: PTH110  # it may be no path
        raise _no_disk("it is a running guest or process", path)
    if os.path.isdir(path):  # noqa: PTH112  # as above
        raise _no_disk("it is a directory", path)
    # With other holes, what the guest never wrote would not be known to be zero.
    as_disk = ReadingOptions(image_format="raw", spool_limit=options.spool_limit, on_spool=options.on_spool)
    return open_input(path, _recognised, name=name or default_names([path])[0], options=as_disk)


def open_disks(paths: Sequence[str], *, options: ReadingOptions = ReadingOptions()) -> list[Input]:
    """Open several disks under names that tell them apart; see `open_disk`."""
    disks: list[Input] = []
    try:
        for path, name in zip(paths, default_names(paths), strict=True):
            disks.append(open_disk(path, name=name, options=options))
    except BaseException:
        for disk in disks:
            disk.close()
        raise
    return disks


def disk_format(head: bytes, trailer: bytes = b"") -> str | None:
    """Name the format of a disk image that holds blocks elsewhere than where the disk has them.

    Parameters
    ----------
    head, trailer : bytes
        The first bytes of the file, and the last 512, where they can be read.

    Examples
    --------
    >>> disk_format(b"QFI\\xfb" + bytes(60)), disk_format(bytes(64), b"conectix" + bytes(504))
    ('qcow2', 'VHD')
    >>> disk_format(bytes(4096)) is None
    True
    """
    for name, offset, magics in _HEADS:
        if head.startswith(magics, offset):
            return name
    return next((name for name, magic in _TRAILERS if trailer.startswith(magic)), None)


def _recognised(opening: Opening) -> Input:
    if is_fingerprint_file(opening.head):
        return StoredFingerprints(opening)
    if found := disk_format(opening.head, _trailer(opening)):
        raise UnsupportedImageError(
            f"it is a {found} disk image, which does not store blocks where the disk has them",
            path=opening.path,
            advice=f"convert it: `{_conversion(opening.path, found)}`",
        )
    if opening.head.startswith(_ENCRYPTED):
        raise UnsupportedImageError(
            "it is an encrypted disk (LUKS), and page cache holds what was decrypted",
            path=opening.path,
            advice="open it with `cryptsetup open --readonly`, and name the device that this makes",
        )
    if memory := recognise_format(opening.head):
        raise _no_disk(f"it is recognised as: {memory.name}, which holds memory", opening.path)
    disk: GuestImage = read_raw(opening)
    disk.compression = None if opening.compression is None else opening.compression.name
    disk.file_bytes, disk.allocated_bytes = opening.source.file_bytes, opening.source.allocated_bytes
    disk.identity = opening.source.identity
    disk.caveats.extend(opening.caveats)
    return disk


def _trailer(opening: Opening) -> bytes:
    """Read the last sector, where the disk can be read at any position."""
    source = opening.source
    if not opening.is_positioned or source.end < _TRAILER_BYTES:
        return b""
    trailer = bytearray(_TRAILER_BYTES)
    source.pread(memoryview(trailer), source.end - _TRAILER_BYTES)
    return bytes(trailer)


def _conversion(path: str, name: str) -> str:
    # QEMU looks for the footer of a VHD at the front only, and takes one of fixed size for raw.
    source = "-f vpc " if name == "VHD" else ""
    if path == "-":
        return f"qemu-img convert {source}-O raw FILE FILE.raw"
    return f"qemu-img convert {source}-O raw {shlex.quote(path)} {shlex.quote(f'{path}.raw')}"


def _no_disk(problem: str, path: str) -> ImageError:
    return UnsupportedImageError(problem, path=path, advice="name a raw image or the block device of a disk")
