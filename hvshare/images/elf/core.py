"""ELF cores: of a guest's physical memory, and of a process.

Sources: elf(5) and core(5); QEMU ``dump/dump.c`` (``virsh dump --memory-only``, QMP ``dump-guest-memory``);
VirtualBox ``include/VBox/vmm/dbgfcorefmt.h`` (``VBoxManage debugvm dumpvmcore``); Linux ``fs/proc/vmcore.c``
and ``kernel/kexec_file.c`` (kdump); Linux ``fs/binfmt_elf.c`` and gdb's ``gcore`` for processes. A PT_LOAD
entry puts ``p_filesz`` bytes at ``p_offset`` to the address ``p_paddr``; of the remaining
``p_memsz - p_filesz`` bytes the file holds nothing. Offsets need not be multiples of a page.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import DamagedImageError, UnsupportedImageError
from hvshare.images.device_memory import split_device_memory
from hvshare.images.elf.headers import PT_LOAD, ElfHeaders, Note, ProgramHeader
from hvshare.images.runs import RunKind
from hvshare.images.segments import ADDRESS_LIMIT, Segment, filtered_dump, lay_out
from hvshare.images.stored import StoredImage
from hvshare.images.vmcoreinfo import describe_vmcoreinfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hvshare.images.image import GuestImage, LeftOut
    from hvshare.images.opening import Opening
    from hvshare.images.source import Positioned, Source

_KERNEL_TEXT: Final = 0xFFFFFFFF80000000
_NT_PRPSINFO, _NT_AUXV = 3, 6
_PCS: Final = {"EM_386", "EM_X86_64"}
_VIRTUAL_LIMIT: Final = 1 << 64


def read(opening: Opening) -> GuestImage:
    """Make an image of an ELF core; see `hvshare.images.formats.Format.read`."""
    source = opening.positioned()
    return read_core(opening, source, source)


def read_core(opening: Opening, source: Source, data: Positioned) -> GuestImage:
    """Make an image of an ELF core that lies in some bytes of a file.

    Parameters
    ----------
    opening : Opening
        What it is read from.
    source : Source
        The file.
    data : Positioned
        The core: the file itself, or what it stands for.

    Raises
    ------
    ImageError
        As `read`.
    """
    headers = ElfHeaders(data)
    if any(each.name == ".xen_pages" for each in headers.sections()):
        from hvshare.images.elf.xen import read_xen

        return read_xen(opening, source, headers, data)
    loads = [each for each in headers.program_headers if each.type == PT_LOAD and each.memsz]
    if not headers.is_core or not loads:
        raise UnsupportedImageError(
            "it is an ELF file that holds no memory: a program, library or object file",
            path=opening.path,
            advice="name a core, such as virsh dump --memory-only makes",
        )
    notes = list(headers.notes())
    if _is_process(loads, notes):
        return _read_process(opening, (source, data), headers, loads, notes)
    return _read_guest(opening, (source, data), headers, loads, notes)


def _is_process(loads: Sequence[ProgramHeader], notes: Sequence[Note]) -> bool:
    """Tell a process from a guest: its notes say so, or it has virtual addresses alone."""
    if any(note.owner == "CORE" and note.type in (_NT_PRPSINFO, _NT_AUXV) for note in notes):
        return True
    return len(loads) > 1 and not any(each.paddr for each in loads)


def _read_process(
    opening: Opening,
    bytes_of: tuple[Source, Positioned],
    headers: ElfHeaders,
    loads: Sequence[ProgramHeader],
    notes: Sequence[Note],
) -> GuestImage:
    source, data = bytes_of
    layout = lay_out(_segments(((each.vaddr, each) for each in loads), data.path), data, _VIRTUAL_LIMIT)
    image = StoredImage(opening.name, source, layout.runs, layout.extents, data)
    image.format, image.layout = "elf-process", "pages by virtual address in PT_LOAD segments"
    for note in notes:
        if note.owner == "CORE" and note.type == _NT_PRPSINFO:
            image.details["program"] = _program(headers.description(note))
    image.caveats += layout.caveats(opening.name)
    image.caveats.append(
        Caveat(
            "virtual-addresses",
            "it is the core of a process, and its pages lie at virtual addresses: larger frames are those of "
            "the process, not of a host",
            "compare it with cores of its own family only; KSM merges private anonymous pages of it alone",
            opening.name,
        )
    )
    return image


def _program(description: bytes) -> str:
    """Give the name of the program from a prpsinfo structure of a 64-bit process (Linux elfcore.h)."""
    name = description[40:56] if len(description) == 136 else description[28:44]
    return name.split(b"\0")[0].decode("utf-8", "backslashreplace")


def _read_guest(
    opening: Opening,
    bytes_of: tuple[Source, Positioned],
    headers: ElfHeaders,
    loads: Sequence[ProgramHeader],
    notes: Sequence[Note],
) -> GuestImage:
    source, data = bytes_of
    owners = {note.owner for note in notes}
    virtualbox = "VBCORE" in owners
    # VirtualBox describes device memory by entries without contents.
    wanted = [each for each in _without_kernel_text(loads) if each.filesz or not virtualbox]
    segments = _without_second_views(_segments(((each.paddr, each) for each in wanted), data.path))
    left_out: list[LeftOut] = []
    if headers.machine in _PCS and not opening.options.device_memory:
        segments, left_out = split_device_memory(segments)
    layout = lay_out(segments, data, ADDRESS_LIMIT)
    image = StoredImage(opening.name, source, layout.runs, layout.extents, data)
    image.format, image.layout = "elf", "pages by physical address in PT_LOAD segments"
    image.left_out = left_out
    image.details["machine"] = headers.machine.removeprefix("EM_").lower().replace("_", "-")
    vmcoreinfo = next((note for note in notes if note.owner == "VMCOREINFO"), None)
    image.vmcoreinfo = vmcoreinfo is not None
    if vmcoreinfo is not None:
        image.details |= describe_vmcoreinfo(headers.description(vmcoreinfo))
    if virtualbox:
        image.tool = "VirtualBox"
    elif "QEMU" in owners:
        image.tool = "QEMU"
    elif vmcoreinfo is not None:
        image.tool = "Linux kdump"
    image.caveats += layout.caveats(opening.name)
    absent = layout.runs.pages_of(RunKind.ABSENT) - layout.cut_pages
    if absent > 0:
        image.caveats.append(filtered_dump(absent, layout.runs.pages, opening.name))
    return image


def _segments(loads: Iterable[tuple[int, ProgramHeader]], path: str) -> Iterator[Segment]:
    for address, each in loads:
        if each.filesz > each.memsz:
            raise DamagedImageError(
                f"the segment at {address:#x} has {each.filesz:,} bytes in the file and {each.memsz:,} in "
                "memory",
                path=path,
                offset=each.told_at,
                advice="take the dump again",
            )
        if each.filesz:
            yield Segment(address, each.filesz, each.offset, RunKind.PRESENT, each.told_at)
        if each.memsz > each.filesz:
            beyond = address + each.filesz
            yield Segment(beyond, each.memsz - each.filesz, 0, RunKind.ABSENT, each.told_at)


def _without_kernel_text(loads: Sequence[ProgramHeader]) -> list[ProgramHeader]:
    """Drop the entry by which x86-64 kernels describe their own text once more, at its other address."""
    direct = sorted((each.paddr, each.paddr + each.memsz) for each in loads if each.vaddr < _KERNEL_TEXT)
    starts = [start for start, _ in direct]
    # How far memory reaches that any entry up to this one describes.
    ends = list(accumulate((end for _, end in direct), max))

    def is_there(text: ProgramHeader) -> bool:
        at = bisect_right(starts, text.paddr)
        return at > 0 and text.paddr + text.memsz <= ends[at - 1]

    return [each for each in loads if each.vaddr < _KERNEL_TEXT or not is_there(each)]


def _without_second_views(segments: Iterable[Segment]) -> list[Segment]:
    """Drop what describes memory that an earlier segment has already, by the same bytes of the file.

    QEMU describes a page once for each virtual address that its guest maps it at, if asked for paging.
    """
    kept: list[Segment] = []
    end, shift = 0, 0
    for each in sorted(segments):
        overlap = end - each.address
        if kept and overlap > 0 and each.kind == RunKind.PRESENT and each.offset - each.address == shift:
            if overlap < each.size:
                kept.append(Segment(end, each.size - overlap, each.offset + overlap, each.kind, each.told_at))
                end = each.end
            continue
        kept.append(each)
        end, shift = each.end, each.offset - each.address
    return kept
