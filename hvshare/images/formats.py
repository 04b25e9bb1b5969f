"""The formats that are read, each by a module of its own that is imported when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from hvshare.images.image import GuestImage
    from hvshare.images.opening import Opening


class Format(NamedTuple):
    """A format that is read.

    Attributes
    ----------
    name : str
        In a few words, for people.
    magics : tuple of bytes
        What files of it start with.
    module : str
        The module of this package that has ``read(opening: Opening) -> GuestImage``.
    """

    name: str
    magics: tuple[bytes, ...]
    module: str

    def read(self, opening: Opening) -> GuestImage:
        """Make the image.

        Raises
        ------
        ImageError
            If the file contradicts the format, or is of a kind of it that cannot be read.
        """
        image: GuestImage = import_module(f"hvshare.images.{self.module}").read(opening)
        return image


FORMATS: Final = (
    Format("ELF core", (b"\x7fELF",), "elf.core"),
    Format("kdump-compressed dump", (b"KDUMP   ",), "kdump.dump"),
    Format("dump in the flattened layout", (b"makedumpfile\0\0\0\0",), "kdump.flattened"),
    Format("LiME dump", (b"EMiL",), "lime"),
    Format("Windows crash dump", (b"PAGEDU64",), "windows.dump"),
    Format("QEMU migration stream", (b"QEVM",), "qemu.migration"),
    Format("libvirt save", (b"LibvirtQemudSave", b"LibvirtQemudPart"), "qemu.libvirt_save"),
    Format("AVML dump", (b"AVML",), "avml"),
    Format(
        "VMware suspend or snapshot state",
        (
            b"\xd0\xbe\xd0\xbe",
            b"\xd0\xbe\xd2\xbe",
            b"\xd1\xba\xd1\xba",
            b"\xd2\xba\xd2\xba",
            b"\xd2\xbe\xd2\xbe",
            b"\xd3\xbe\xd3\xbe",
        ),
        "vmware.snapshot",
    ),
    Format(
        "Firecracker snapshot state",
        (
            b"\0\0\x64\x86\x84\x19\x10\x07",
            b"\1\0\x64\x86\x84\x19\x10\x07",
            b"\0\0\xaa\xaa\x84\x19\x10\x07",
            b"\1\0\xaa\xaa\x84\x19\x10\x07",
        ),
        "microvm.firecracker",
    ),
)


def recognise_format(head: bytes) -> Format | None:
    """Name the format that the first bytes of a file belong to, if it is one that is read.

    Examples
    --------
    >>> recognise_format(b"EMiL" + bytes(60)).name
    'LiME dump'
    >>> recognise_format(bytes(64)) is None
    True
    """
    return next((each for each in FORMATS if head.startswith(each.magics)), None)
