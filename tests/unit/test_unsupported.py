from __future__ import annotations

from pathlib import Path

import pytest

import hvshare
from hvshare.errors import UnsupportedImageError
from hvshare.images.formats import FORMATS, recognise_format
from hvshare.images.options import ReadingOptions
from hvshare.images.unsupported import UNSUPPORTED, recognise_unsupported
from tests.oracle import PAGE


@pytest.mark.parametrize(
    ("head", "name", "way_out"),
    [
        ("14202801", "Hyper-V", "pcileech dump -device hvsavedstate://"),  # 0x01282014
        ("5041474544554d50", "32-bit Windows crash dump", "layerwriter.LayerWriter"),  # "PAGEDUMP"
        ("4d444d5093a70000", "minidump", "complete or an active memory dump"),  # "MDMP", version 42899
        ("48494252d8040000", "hibernation", "pcileech dump -device hibr://"),  # "HIBR"
        ("5253545200000000", "hibernation", "let the hypervisor dump the guest"),  # "RSTR"
        ("ffffffffffffffff58454e46", "Xen save file", "xl dump-core"),  # libxl's stream, marker and "XENF"
        ("7f5669727475616c426f782053617665645374617465", "VirtualBox", "VBoxManage debugvm"),
        ("455646090d0aff00", "EnCase", "ewfexport"),
        ("4449534b44554d50", "diskdump", "virsh dump --memory-only"),  # "DISKDUMP"
        ("514649fb00000003", "qcow2", "name a memory image"),
        ("7668647866696c65", "VHDX", "name a memory image"),
        ("504b030414000000", "zip", "unpack it"),
    ],
)
def test_heads_of_real_files_are_refused(tmp_path: Path, head: str, name: str, way_out: str) -> None:
    path = tmp_path / "dump"
    path.write_bytes(bytes.fromhex(head).ljust(2 * PAGE, b"\1"))
    with pytest.raises(UnsupportedImageError, match=name) as caught:
        hvshare.open_image(str(path))
    assert way_out in caught.value.advice


@pytest.mark.parametrize("number", range(len(UNSUPPORTED)), ids=[each.name for each in UNSUPPORTED])
def test_known_formats_are_refused_by_name(tmp_path: Path, number: int) -> None:
    unsupported = UNSUPPORTED[number]
    for magic in unsupported.magics:
        head = bytes(unsupported.offset) + magic
        path = tmp_path / "dump"
        path.write_bytes(head.ljust(2 * PAGE, b"\0"))
        with pytest.raises(UnsupportedImageError, match="recognised as") as caught:
            hvshare.open_image(str(path))
        assert unsupported.name in str(caught.value)
        assert unsupported.advice in str(caught.value)
        with hvshare.open_image(str(path), options=ReadingOptions(image_format="raw")) as image:
            assert [caveat.code for caveat in image.caveats] == ["read-as-raw"]
            buffer = memoryview(bytearray(2 * PAGE))
            assert [(block.first_gfn, block.pages) for block in image.blocks(buffer)] == [(0, 2)]
            assert bytes(buffer) == head.ljust(2 * PAGE, b"\0")


def test_nothing_is_both_read_and_refused() -> None:
    for each in FORMATS:
        for magic in each.magics:
            assert recognise_unsupported(magic.ljust(PAGE, b"\0")) is None, each.name
    for refused in UNSUPPORTED:
        for magic in refused.magics:
            assert recognise_format((bytes(refused.offset) + magic).ljust(PAGE, b"\0")) is None, refused.name


def test_older_saved_states_of_hyper_v_go_by_a_guid(tmp_path: Path) -> None:
    stem = "0A1B2C3D-4E5F-6789-ABCD-EF0123456789"
    for suffix in (".bin", ".vsv"):
        (tmp_path / f"{stem}{suffix}").write_bytes(bytes(2 * PAGE))
        (tmp_path / f"dump{suffix}").write_bytes(bytes(2 * PAGE))
    for suffix in (".bin", ".vsv"):
        with pytest.raises(UnsupportedImageError, match=r"Hyper-V saved state of two files.*Windows SDK"):
            hvshare.open_image(str(tmp_path / f"{stem}{suffix}"))
        options = ReadingOptions(image_format="raw")
        with hvshare.open_image(str(tmp_path / f"{stem}{suffix}"), options=options) as image:
            assert image.format == "raw"
        with hvshare.open_image(str(tmp_path / f"dump{suffix}")) as image:
            assert image.format == "raw"
