"""Files that are recognised only to be refused by name: reading them as raw would give wrong figures.

Magic numbers from: makedumpfile ``diskdump_mod.h``; Xen ``libxl_sr_stream_format.h``; VirtualBox ``SSM.cpp``;
the Windows debugger's ``DUMP_HEADER`` and ``PO_MEMORY_IMAGE``; dissect.hypervisor's Hyper-V storage header;
the specifications of the disk image formats. Conversions from: LeechCore's ``device_hibr.c`` and
``device_hvsavedstate.c``, which pcileech reads through; Volatility 3's ``layerwriter.py``; the manuals of xl,
VBoxManage and ewfexport.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_OUTSIDE: Final = "let the hypervisor dump the guest, for example with `virsh dump --memory-only`"
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
    UnsupportedFormat(
        "fingerprint file of hvshare",
        (b"hvshare_fingerprints.npy",),
        "it holds digests and no contents: name the image that it was made of",
        offset=30,
    ),
    UnsupportedFormat(
        "Hyper-V saved state or configuration (.vmrs, .vsv, .vmcx)",
        (b"\x14\x20\x28\x01",),
        "convert a .vmrs on Windows with `pcileech dump -device hvsavedstate://FILE.vmrs -out FILE.raw`, "
        "beside which vmsavedstatedumpprovider.dll of the Windows SDK has to be; from an older .vsv start "
        "the guest, and take a complete memory dump in it",
    ),
    UnsupportedFormat(
        "Windows hibernation file",
        (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR"),
        "Windows leaves free memory out of it, so let the hypervisor dump the guest; where there is nothing "
        "else, `pcileech dump -device hibr://file=FILE -out FILE.raw` converts one of Windows 8 or later, "
        "and what was left out becomes zeros",
    ),
    UnsupportedFormat(
        "32-bit Windows crash dump",
        (b"PAGEDUMP",),
        "convert it with Volatility 3: `vol -f FILE layerwriter.LayerWriter`; what it does not hold becomes "
        "zeros",
    ),
    UnsupportedFormat(
        "Windows minidump",
        (b"MDMP\x93\xa7",),
        "it holds parts of one process; take a complete or an active memory dump, or let the hypervisor dump "
        "the guest",
    ),
    UnsupportedFormat(
        "Xen save file",
        (b"LibxlFmt", b"Xen saved domain", b"\xff\xff\xff\xff\xff\xff\xff\xffXENF"),
        "restore the domain with `xl restore -p FILE`, and take an ELF core of it with `xl dump-core`",
    ),
    UnsupportedFormat(
        "VirtualBox saved state",
        (b"\x7fVirtualBox SavedState",),
        "start the VM from it, and take an ELF core with `VBoxManage debugvm VM dumpvmcore --filename FILE`",
    ),
    UnsupportedFormat(
        "EnCase image",
        (b"EVF\x09\x0d\x0a\xff\x00",),
        "if it holds memory, convert it with `ewfexport -f raw`, which is among the ewf-tools",
    ),
    UnsupportedFormat("Mach-O core", (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"), _OUTSIDE),
    UnsupportedFormat(
        "LKCD dump", (b"\xed\x23\x8f\x61\x73\x01\x19\xa8", b"\xa8\x19\x01\x73\x61\x8f\x23\xed"), _OUTSIDE
    ),
    UnsupportedFormat("diskdump dump", (b"DISKDUMP",), _OUTSIDE),
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
    *_MEMORY,
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
