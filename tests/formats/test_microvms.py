from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvshare
from hvshare.errors import (
    DamagedImageError,
    ImageError,
    TruncatedImageError,
    UnreadableImageError,
    UnsupportedImageError,
)
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind
from tests.formats.harness import ReadBack, check_cut_anywhere, check_flipped, memories, read_back
from tests.formats.microvm_writer import (
    ARM,
    FORMS,
    X86,
    cloud_hypervisor,
    memory_manager,
    ranges_of,
    state_json,
    vmstate,
)
from tests.guests import content, supports_holes, write_sparse
from tests.oracle import PAGE

MIB, GIB = 1 << 20, 1 << 30
NEW_GAP, OLD_GAP = 0xC000_0000, 0xD000_0000

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def runs_of(path: Path, options: ReadingOptions = ReadingOptions()) -> tuple[list[tuple[int, int]], set[str]]:
    """Give the memory of an image, by address and bytes whatever the kind, and the codes of its caveats."""
    with hvshare.open_image(str(path), options=options) as image:
        assert image.runs is not None
        joined: list[tuple[int, int]] = []
        for run in image.runs:
            if joined and sum(joined[-1]) == run.first_gfn * PAGE:
                joined[-1] = (joined[-1][0], joined[-1][1] + run.pages * PAGE)
            else:
                joined.append((run.first_gfn * PAGE, run.pages * PAGE))
        return joined, {each.code for each in image.caveats}


def bytes_of(memory: dict[int, bytes]) -> bytes:
    return b"".join(memory[gfn] for gfn in sorted(memory))


# Cloud Hypervisor


@in_tmp_path
@given(memory=memories(absent=True), form=st.sampled_from(FORMS))
def test_cloud_hypervisor(tmp_path: Path, memory: dict[int, bytes | None], form: str) -> None:
    if form == "old versionize":
        memory = {gfn: page for gfn, page in memory.items() if page is not None}
    path = cloud_hypervisor(tmp_path, memory, form)
    for named in (path, tmp_path):
        found = read_back(named)
        assert found.memory == memory
        absent = {gfn for gfn, kind in found.kinds.items() if kind == RunKind.ABSENT}
        assert absent == {gfn for gfn, page in memory.items() if page is None}
        assert found.caveats == ({"memory-elsewhere"} if absent else frozenset())


def test_what_is_told_of_cloud_hypervisor(tmp_path: Path) -> None:
    folder = tmp_path / "snap"
    folder.mkdir()
    cloud_hypervisor(folder, {0: content(1), 1: content(2), 9: content(3), 10: None})
    with hvshare.open_image(str(folder)) as image:
        assert (image.name, image.format, image.tool) == ("snap", "cloud-hypervisor", "Cloud Hypervisor")
        assert image.details["ranges"] == "8.0 KiB at 0x0, 4.0 KiB at 0x9000"
        assert "4.0 KiB of the guest" in image.caveats[0].message
        identity = image.identity
    with hvshare.open_image(str(folder / "memory-ranges")) as image:
        assert image.identity == identity


def test_ranges_are_in_the_order_of_the_table(tmp_path: Path) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1), 8: content(2)})
    ranges = [(8 * PAGE, PAGE), (0, PAGE)]
    (tmp_path / "state.json").write_bytes(state_json(memory_manager(ranges, [(0, 9 * PAGE, True)])))
    found = read_back(path)
    # Of memory of virtio-mem, the guest has what is plugged in.
    assert found.memory == {8: content(1), 0: content(2)}
    assert found.caveats == frozenset()


def test_holes_of_memory_ranges(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    regions = [(0, 3 * GIB), (4 * GIB, GIB)]
    mappings = [(*each, False) for each in regions]
    (tmp_path / "state.json").write_bytes(state_json(memory_manager(regions, mappings)))
    write_sparse(tmp_path / "memory-ranges", 4 * GIB, {GIB: content(1)})
    assert runs_of(tmp_path) == (regions, {"holes-are-zero"})
    assert runs_of(tmp_path, ReadingOptions(holes=RunKind.ABSENT)) == (regions, set())
    (tmp_path / "state.json").unlink()
    assert runs_of(tmp_path / "memory-ranges") == ([(0, 4 * GIB)], {"holes-are-zero", "addresses-are-linear"})


def test_memory_of_another_snapshot(tmp_path: Path) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1), 8: content(2)})
    for size, error in ((PAGE, TruncatedImageError), (3 * PAGE, DamagedImageError)):
        path.write_bytes(b"x" * size)
        with pytest.raises(error, match=r"describes 8,192 bytes.*another snapshot"):
            read_back(path)
    assert sorted(read_back(path, ReadingOptions(image_format="raw")).memory) == [0, 1, 2]


def test_texts_are_no_memory(tmp_path: Path) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1)})
    (tmp_path / "config.json").write_text("{" + " " * PAGE + "}")
    for name in ("state.json", "config.json"):
        with pytest.raises(UnsupportedImageError, match=f"name {re.escape(str(path))}"):
            read_back(tmp_path / name)
    path.unlink()
    with pytest.raises(UnreadableImageError, match="without the file memory-ranges"):
        read_back(tmp_path)


HOSTILE = {
    "no JSON": b"\xff\xfe" * PAGE,
    "another tree": json.dumps({"snapshots": {"cpu-manager": {}}}).encode(),
    "nothing in it": b'{"memory-manager": {}}',
    "cut": b'{"memory-manager": {"snapshot_data": {"state": "{',
    "deep": b'{"memory-manager": {"snapshot_data": ' + b"[" * (1 << 20),
    "deep within": json.dumps({"memory-manager": {"snapshot_data": {"state": "[" * (1 << 20)}}}).encode(),
    "a long number": b'{"memory-manager": {"snapshot_data": ' + b"9" * 10000 + b"}}",
    "no text": b'{"memory-manager": {"snapshot_data": {"state": 5}}}',
    "a list": b'{"memory-manager": {"snapshot_data": [1, 2]}}',
    "null": b'{"memory-manager": {"snapshot_data": null}}',
    "no bytes": b'{"memory-manager": {"snapshot_data": {"s": {"snapshot": [1, 256, -1]}}}}',
    "half of a field": b'{"memory-manager": {"snapshot_data": {"s": {"snapshot": [1, 0, 0]}}}}',
    "many ranges": json.dumps(
        {"memory-manager": {"snapshot_data": {"s": {"snapshot": [255] * 7 + [15] + [0] * 99}}}}
    ).encode(),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_state(tmp_path: Path, what: str) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1)})
    (tmp_path / "state.json").write_bytes(HOSTILE[what])
    with pytest.raises(ImageError, match=r"memory manager|memory-manager") as caught:
        read_back(path)
    assert caught.value.path == str(tmp_path / "state.json")
    assert caught.value.advice


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"gpa": 0', '"gpa": -1'),
        ('"gpa": 0', '"gpa": 0.5'),
        ('"gpa": 0', '"gpa": true'),
        ('"gpa": 0', '"gpa": "0"'),
        ('"gpa": 0', '"gpa": NaN'),
        ('"gpa": 0', f'"gpa": {1 << 64}'),
        ('"gpa": 0', f'"gpa": {1 << 52}'),
        ('"gpa": 0', '"gap": 0'),
        ('"length": 8192', '"length": 0'),
        ('"length": 8192', '"length": 8191'),
        ('"size": 8192', '"size": 4096'),
        ('"size": 8192', '"size": null'),
        ('"data"', '"date"'),
        ('"memory_ranges": {"data": [', '"memory_ranges": {"data": [3, '),
        ('"memory_ranges": {"data": [', '"memory_ranges": {"data": [{"gpa": 0, "length": 4096}, '),
    ],
)
def test_state_that_contradicts_itself(tmp_path: Path, old: str, new: str) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1), 1: content(2)})
    state = json.dumps(memory_manager([(0, 8192)], [(0, 8192, False)]))
    assert old in state
    node = {"memory-manager": {"snapshot_data": {"state": state.replace(old, new, 1)}}}
    (tmp_path / "state.json").write_text(json.dumps(node))
    with pytest.raises(DamagedImageError) as caught:
        read_back(path)
    assert caught.value.advice or caught.value.offset is not None


def test_large_state_is_not_taken_whole(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    path = cloud_hypervisor(tmp_path, {0: content(1)})
    state = (tmp_path / "state.json").read_bytes()
    write_sparse(tmp_path / "state.json", 1 << 40, {0: state})
    with pytest.raises(UnsupportedImageError, match="no state of a VM has more than"):
        read_back(path)
    # Much of it is of other devices.
    (tmp_path / "state.json").write_bytes(b'{"x": [' + b"[],[1]," * (4 << 20) + state[1:])
    tracemalloc.start()
    assert read_back(path).memory == {0: content(1)}
    assert tracemalloc.get_traced_memory()[1] < 80 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
def test_cut_cloud_hypervisor(tmp_path: Path, form: str) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1), 1: content(250), 8: content(2)}, form)
    state = tmp_path / "state.json"
    size = state.stat().st_size
    check_cut_anywhere(state, [*range(0, size, 11), *range(size - 9, size)], lambda _path: read_back(path))
    path = cloud_hypervisor(tmp_path, {0: content(1), 1: content(250), 8: content(2)}, form)
    check_cut_anywhere(path, [*range(0, 3 * PAGE, 97), 3 * PAGE - 1])


@pytest.mark.parametrize("form", ["text", "versionize"])
def test_flipped_cloud_hypervisor(tmp_path: Path, form: str) -> None:
    path = cloud_hypervisor(tmp_path, {0: content(1), 1: content(250), 8: content(2)}, form)
    state = tmp_path / "state.json"

    def read(_state: Path) -> ReadBack:
        return read_back(path)

    check_flipped(state, range(0, state.stat().st_size, 3), read)


# Firecracker


def firecracker(folder: Path, memory: dict[int, bytes], version: int = 8, magic: int = X86) -> Path:
    """Write a snapshot; gives the file of memory."""
    (folder / "vm.state").write_bytes(vmstate(ranges_of(memory), version=version, magic=magic))
    (folder / "vm.mem").write_bytes(bytes_of(memory))
    return folder / "vm.mem"


@in_tmp_path
@given(memory=memories(), version=st.sampled_from([1, 2, 7, 8]), magic=st.sampled_from([X86, ARM]))
def test_firecracker(tmp_path: Path, memory: dict[int, bytes], version: int, magic: int) -> None:
    start = 0 if magic == X86 else (2 * GIB) // PAGE
    memory = {start + gfn - min(memory): page for gfn, page in memory.items()}
    if len(ranges_of(memory)) > 8:
        memory = {start: content(1)}
    path = firecracker(tmp_path, memory, version, magic)
    for named in (path, tmp_path):
        found = read_back(named)
        assert found.memory == memory
        assert found.caveats == frozenset()
    with hvshare.open_image(str(path)) as image:
        assert (image.format, image.tool) == ("firecracker", "Firecracker")
        assert image.details["architecture"] == ("x86-64" if magic == X86 else "AArch64")
        assert image.details["state file"] == "vm.state"


def test_memory_that_is_not_plugged_in(tmp_path: Path) -> None:
    regions = [(0, 2 * PAGE), (512 * GIB, 4 * PAGE)]
    slots = [[True], [True, False, False, True]]
    (tmp_path / "s").write_bytes(vmstate(regions, slots=slots))
    (tmp_path / "m").write_bytes(bytes_of({number: content(number + 1) for number in range(6)}))
    high = 512 * GIB // PAGE
    assert read_back(tmp_path).memory == {
        0: content(1),
        1: content(2),
        high: content(3),
        high + 3: content(6),
    }


@pytest.mark.parametrize(
    ("version", "gap"), [(1, OLD_GAP), (2, OLD_GAP), (7, OLD_GAP), (8, NEW_GAP), (9, NEW_GAP), (12, OLD_GAP)]
)
@pytest.mark.parametrize("size", [4 * GIB, 12 * GIB])
def test_regions_of_the_state(tmp_path: Path, version: int, gap: int, size: int) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    regions = [(0, gap), (4 * GIB, size - gap)]
    (tmp_path / "s").write_bytes(vmstate(regions, version=version))
    write_sparse(tmp_path / "m", size, {GIB: content(1)})
    assert runs_of(tmp_path) == (regions, {"holes-are-zero"})
    with hvshare.open_image(str(tmp_path)) as image:
        assert "diff snapshot use --holes absent" in image.caveats[0].advice
    assert runs_of(tmp_path, ReadingOptions(holes=RunKind.ABSENT)) == (regions, set())


@pytest.mark.parametrize(
    ("version", "magic", "size", "regions"),
    [
        (5, X86, 4 * GIB, [(0, OLD_GAP), (4 * GIB, 4 * GIB - OLD_GAP)]),
        (8, X86, 4 * GIB, [(0, NEW_GAP), (4 * GIB, 4 * GIB - NEW_GAP)]),
        (8, X86, 300 * GIB, [(0, NEW_GAP), (4 * GIB, 252 * GIB), (512 * GIB, 45 * GIB)]),
        (9, X86, 4 * GIB, [(0, NEW_GAP), (4 * GIB, 4 * GIB - NEW_GAP)]),
        (8, ARM, 300 * GIB, [(2 * GIB, 254 * GIB), (512 * GIB, 46 * GIB)]),
        (5, ARM, 300 * GIB, [(2 * GIB, 300 * GIB)]),
        (5, X86, 512 * MIB, [(0, 512 * MIB)]),
    ],
)
def test_regions_of_the_architecture(
    tmp_path: Path, version: int, magic: int, size: int, regions: list[tuple[int, int]]
) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    state = vmstate([], version=version, magic=magic, memory_mib=size // MIB)
    (tmp_path / "s").write_bytes(state)
    write_sparse(tmp_path / "m", size, {MIB: content(1)})
    inferred = {"addresses-inferred"} if len(regions) > 1 else set()
    assert runs_of(tmp_path / "m") == (regions, {"holes-are-zero"} | inferred)


def test_one_region_in_bitcode(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(vmstate([(2 * GIB, 2 * PAGE)], version=10, magic=ARM))
    (tmp_path / "m").write_bytes(content(1) + content(2))
    assert sorted(read_back(tmp_path).memory) == [2 * GIB // PAGE, 2 * GIB // PAGE + 1]


def test_state_of_another_microvm(tmp_path: Path) -> None:
    path = firecracker(tmp_path, {0: content(1), 9: content(2)})
    path.write_bytes(content(1) * 3)
    found = read_back(path)
    assert sorted(found.memory) == [0, 1, 2]
    assert found.caveats == {"state-does-not-fit"}
    with pytest.raises(UnreadableImageError, match="it is a directory"):
        read_back(tmp_path)
    (tmp_path / "vm.state").write_bytes(vmstate([], memory_mib=2))
    path.write_bytes(content(1) * 256)
    assert read_back(path).caveats == {"state-does-not-fit"}
    raw = read_back(path, ReadingOptions(image_format="raw"))
    assert raw.caveats == frozenset()


def test_many_snapshots_in_one_folder(tmp_path: Path) -> None:
    for number, gfns in enumerate(([0, 1], [0, 5, 6], [0, 1, 2, 3])):
        memory = {gfn: content(gfn + 1) for gfn in gfns}
        (tmp_path / f"{number}.state").write_bytes(vmstate(ranges_of(memory)))
        (tmp_path / f"{number}.mem").write_bytes(bytes_of(memory))
        (tmp_path / f"{number}.kernel").write_bytes(b"\x7fELF" + bytes(len(gfns) * PAGE - 4))
        assert sorted(read_back(tmp_path / f"{number}.mem").memory) == gfns
    with pytest.raises(UnreadableImageError, match=r"3 files of memory.*0\.mem, 1\.mem, 2\.mem"):
        read_back(tmp_path)
    with pytest.raises(UnsupportedImageError, match=r"holds no memory; name the file.*1\.mem$"):
        read_back(tmp_path / "1.state")
    with pytest.raises(UnsupportedImageError, match="holds no memory; name the file"):
        read_back(tmp_path / "1.state", as_stream=True)


def test_hostile_state_file(tmp_path: Path) -> None:
    path = firecracker(tmp_path, {0: content(1)})
    head = vmstate([], memory_mib=7)
    one = b"\x01" + bytes(15)
    many_slots = one + (1 << 14).to_bytes(8, "little") + b"\0" * 4 + (1 << 14).to_bytes(8, "little")
    for filling in (one, many_slots, b"\x01" + bytes(7), b"\xff" * 8, bytes(8)):
        (tmp_path / "vm.state").write_bytes(head + filling * ((8 << 20) // len(filling)))
        assert read_back(path).caveats == {"state-does-not-fit"}
    (tmp_path / "vm.state").write_bytes(head[:12])
    assert read_back(path).caveats == frozenset()
    with pytest.raises(UnsupportedImageError, match="state file of a Firecracker snapshot"):
        read_back(tmp_path / "vm.state")


@pytest.mark.parametrize("version", [1, 2, 7, 8])
def test_cut_and_flipped_firecracker(tmp_path: Path, version: int) -> None:
    path = firecracker(tmp_path, {0: content(1), 1: content(250), 9: content(2)}, version)
    state = tmp_path / "vm.state"

    def read(_state: Path) -> ReadBack:
        return read_back(path)

    # The same pages, wherever: what is no state any more leaves the file as raw, with or without a caveat.
    check_flipped(state, range(state.stat().st_size), read)
    check_cut_anywhere(state, None, read)
    path = firecracker(tmp_path, {0: content(1), 1: content(250), 9: content(2)}, version)
    check_cut_anywhere(path, [*range(0, 3 * PAGE, 97), 3 * PAGE - 1])


# Directories


def test_directories_that_hold_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"it is a directory; name the image files.*Firecracker"):
        read_back(tmp_path)
    (tmp_path / "a.raw").write_bytes(content(1))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UnreadableImageError, match="it is a directory"):
        read_back(tmp_path)
    assert read_back(tmp_path / "a.raw").memory == {0: content(1)}


def test_directories_on_the_command_line(tmp_path: Path) -> None:
    for name, page in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        cloud_hypervisor(tmp_path / name, {0: content(page), 9: content(1)})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hvshare",
            "analyze",
            "--json",
            "-q",
            str(tmp_path / "one"),
            str(tmp_path / "two"),
        ],
        check=True,
        capture_output=True,
    )
    images = json.loads(done.stdout)["images"]
    assert [(image["name"], image["format"]) for image in images] == [
        ("one", "cloud-hypervisor"),
        ("two", "cloud-hypervisor"),
    ]
    assert [image["counts"]["4096"]["saved_self"] for image in images] == [1, 0]


def test_many_files_beside_hostile_states(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    for number in range(4):
        state = vmstate([(0, MIB)], version=8, memory_mib=1)
        (tmp_path / f"state{number}").write_bytes(state + struct.pack("<QQ", 1, 0) * 4000)
    for number in range(300):
        write_sparse(tmp_path / f"m{number}", (number + 1) * PAGE, {})
    # By chance a pattern of the states describes three of the files.
    with pytest.raises(UnreadableImageError, match="3 files of memory"):
        hvshare.open_image(str(tmp_path))
