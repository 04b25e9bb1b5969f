"""One guest in every format, through the command: the same figures, by file and by pipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from hvshare.images.formats import FORMATS
from tests.formats import windows_dump_writer
from tests.formats.avml_writer import avml
from tests.formats.elf_writer import Load, elf_core
from tests.formats.kdump_writer import COMPRESSIONS, flattened, kdump
from tests.formats.lime_writer import lime
from tests.formats.microvm_writer import cloud_hypervisor, vmstate
from tests.formats.qemu_migration_writer import libvirt_save, migration
from tests.formats.vmware_writer import flat, region_tags, vmss
from tests.formats.xen_core_writer import xen_core
from tests.guests import content
from tests.integration.running import PROJECT, hvshare
from tests.oracle import PAGE, count

GUEST = [content(number % 7 if number % 3 else 0) for number in range(1100)]
MEMORY = dict(enumerate(GUEST))
KEPT: dict[int, bytes | None] = {**MEMORY}
BYTES = b"".join(GUEST)
ELF, KDUMP = elf_core([Load(0, BYTES)]), kdump(KEPT)


def vmware(path: Path) -> None:
    data, regions = flat(MEMORY)
    path.write_bytes(vmss(region_tags(regions)))
    path.with_suffix(".vmem").write_bytes(data)


def firecracker(path: Path) -> None:
    path.mkdir()
    (path / "memory").write_bytes(BYTES)
    (path / "state").write_bytes(vmstate([(0, len(BYTES))]))


def cloud(path: Path) -> None:
    path.mkdir()
    cloud_hypervisor(path, KEPT)


FILES: dict[str, bytes | Callable[[Path], None]] = {
    "raw": BYTES,
    "elf": ELF,
    "elf-flattened": flattened(ELF, [(0, 99), (99, len(ELF) - 99)]),
    **{f"kdump-{name}": kdump(KEPT, name) for name in COMPRESSIONS},
    "kdump-raw": kdump(KEPT, None),
    "kdump-flattened": flattened(KDUMP, [(0, 5000), (5000, len(KDUMP) - 5000)]),
    "lime": lime([(0, BYTES)]),
    "avml": avml([(0, BYTES)], zero_blocks="written"),
    "migration": migration({"pc.ram": len(GUEST)}, [("pc.ram", gfn, page) for gfn, page in MEMORY.items()]),
    "libvirt": libvirt_save(
        migration({"pc.ram": len(GUEST)}, [("pc.ram", gfn, page) for gfn, page in MEMORY.items()])
    ),
    "windows": windows_dump_writer.complete(MEMORY),
    "windows-bitmap": windows_dump_writer.with_bitmap(KEPT),
    "xen": xen_core(list(MEMORY.items())),
    "vm.vmss": vmware,
    "firecracker": firecracker,
    "cloud-hypervisor": cloud,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    for name, made in FILES.items():
        if isinstance(made, bytes):
            (folder / name).write_bytes(made)
        else:
            made(folder / name)
    return folder


def test_every_format_gives_the_same_figures(folder: Path) -> None:
    run = hvshare("analyze", "--json", "--frame", "64K", *(folder / name for name in FILES))
    assert run.returncode == 0, run.stderr
    images = json.loads(run.stdout)["images"]
    assert len(images) == len(FILES)
    for image in images:
        for size, counts in image["counts"].items():
            expected = count([GUEST], int(size) // PAGE)
            assert {name: counts[name] for name in expected} == expected, image["name"]


@pytest.mark.parametrize("name", [name for name, made in FILES.items() if isinstance(made, bytes)])
def test_pipes_give_what_files_give(folder: Path, name: str) -> None:
    made = FILES[name]
    assert isinstance(made, bytes)
    run = hvshare("analyze", "--json", "-", stdin=made)
    assert run.returncode == 0, run.stderr
    (image,) = json.loads(run.stdout)["images"]
    expected = count([GUEST], 1)
    assert {name: image["counts"][str(PAGE)][name] for name in expected} == expected


def test_inspect_knows_every_format(folder: Path) -> None:
    run = hvshare("inspect", "--json", *(folder / name for name in FILES))
    result = json.loads(run.stdout)
    schema = json.loads((PROJECT / "docs" / "schema" / "inspect-1.json").read_text())
    jsonschema.validate(result, schema)
    for image in result["images"]:
        assert image["size_bytes"] == image["stored_bytes"] + image["zero_bytes"] == len(BYTES), image["name"]
        assert image["layout"]
    text = hvshare("inspect", *(folder / name for name in FILES)).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "written by" in text


def test_verify_reads_every_format_again(folder: Path) -> None:
    run = hvshare("analyze", "--verify", "--json", *(folder / name for name in FILES))
    codes = [caveat["code"] for caveat in json.loads(run.stdout)["caveats"]]
    assert "verified" in codes
    assert "unequal-pages" not in codes


def test_the_readme_names_every_format() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8").lower()
    for each in FORMATS:
        name = each.name.split()[0].lower().removesuffix("-compressed")
        assert {"dump": "flattened"}.get(name, name) in readme
