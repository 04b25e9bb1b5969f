"""Files that are recognised only to be refused by name: reading them as raw would give wrong figures.

Magic numbers from: elf(5); makedumpfile ``diskdump_mod.h`` and ``makedumpfile.h``; LiME ``lime.h``; AVML
``image.rs``; QEMU ``migration/qemu-file.h``; libvirt ``qemu_saveimage.h``; Xen ``libxl_sr_stream_format.h``;
VirtualBox ``SSM.cpp``; the Windows debugger's ``DUMP_HEADER`` and ``PO_MEMORY_IMAGE``; dissect.hypervisor's
Hyper-V storage header; volatility3's VMware layer; the specifications of the disk image formats.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_NOT_YET: Final = "this version cannot read it; convert the dump to raw"
_IS_A_DISK: Final = "it holds a disk, not memory; name a memory image"
_UNPACK: Final = "unpack it first and name the image in it"


class UnsupportedFormat(NamedTuple):
    """A kind of file that is refused."""

    name: str
    magics: tuple[bytes, ...]
    advice: str
    offset: int = 0

    def matches(self, head: bytes) -> bool:
        """Whether the first bytes of a file are those of this format."""
        return head.startswith(self.magics, self.offset)


_MEMORY: Final = (
    ("kdump-compressed dump", (b"KDUMP   ", b"DISKDUMP")),
    ("kdump-compressed dump in the flattened layout", (b"makedumpfile\0\0\0\0",)),
    ("AVML dump", (b"AVML",)),
    ("QEMU migration stream", (b"QEVM",)),
    ("libvirt save file", (b"LibvirtQemudSave", b"LibvirtQemudPart")),
    ("Xen save file", (b"LibxlFmt", b"Xen saved domain", b"\xff\xff\xff\xff\xff\xff\xff\xffXENF")),
    ("VirtualBox saved state", (b"\x7fVirtualBox SavedState",)),
    (
        "VMware suspend or snapshot state",
        (b"\xd0\xbe\xd2\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe"),
    ),
    ("Windows crash dump", (b"PAGEDUMP", b"PAGEDU64")),
    ("Windows minidump", (b"MDMP\x93\xa7",)),
    (
        "Windows hibernation file",
        (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR"),
    ),
    ("Hyper-V saved state", (b"\x14\x20\x28\x01",)),
    ("LKCD dump", (b"\xed\x23\x8f\x61\x73\x01\x19\xa8", b"\xa8\x19\x01\x73\x61\x8f\x23\xed")),
    ("Mach-O core", (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe")),
    ("EnCase image", (b"EVF\x09\x0d\x0a\xff\x00",)),
)
_DISKS: Final = (
    ("qcow2 disk image", (b"QFI\xfb",)),
    ("VMDK disk image", (b"KDMV", b"# Disk DescriptorFile")),
    ("VHDX disk image", (b"vhdxfile",)),
    ("VHD disk image", (b"conectix",)),
    ("VDI disk image", (b"<<< Oracle VM VirtualBox Disk Image", b"<<< Sun VirtualBox Disk Image")),
)
_ARCHIVES: Final = (
    ("zip archive", (b"PK\x03\x04",)),
    ("7-Zip archive", (b"7z\xbc\xaf\x27\x1c",)),
    ("RAR archive", (b"Rar!\x1a\x07",)),
    ("snappy stream", (b"\xff\x06\x00\x00sNaPpY",)),
    ("lzip stream", (b"LZIP\x01",)),
    ("lzop stream", (b"\x89LZO\x00\x0d\x0a\x1a\x0a",)),
    ("legacy LZ4 stream", (b"\x02\x21\x4c\x18",)),
)

UNSUPPORTED: Final = (
    *(UnsupportedFormat(name, magics, _NOT_YET) for name, magics in _MEMORY),
    *(UnsupportedFormat(name, magics, _IS_A_DISK) for name, magics in _DISKS),
    *(UnsupportedFormat(name, magics, _UNPACK) for name, magics in _ARCHIVES),
    UnsupportedFormat("tar archive", (b"ustar\0", b"ustar "), _UNPACK, offset=257),
)


def recognise_unsupported(head: bytes) -> UnsupportedFormat | None:
    """Name the format that the first bytes of a file belong to, if it is one that is refused.

    Examples
    --------
    >>> recognise_unsupported(b"conectix" + bytes(60)).name
    'VHD disk image'
    >>> recognise_unsupported(bytes(64)) is None
    True
    """
    return next((each for each in UNSUPPORTED if each.matches(head)), None)
