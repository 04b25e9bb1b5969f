from __future__ import annotations

import gzip
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import hvshare
from hvshare.errors import (
    DamagedImageError,
    ImageError,
    TruncatedImageError,
    UnreadableImageError,
    UnsupportedImageError,
)
from hvshare.images import segments
from hvshare.images.options import ReadingOptions
from hvshare.images.runs import RunKind
from tests.formats.harness import ReadBack, check_cut_anywhere, check_flipped, memories, read_back
from tests.formats.vmware_writer import HEADER, OLD_MAGIC, block, flat, region_tags, value, vmss
from tests.guests import content, supports_holes, write_sparse
from tests.oracle import PAGE

GIB = 1 << 30
PC = [(0, 0, 3 * GIB // PAGE), (4 * GIB // PAGE, 3 * GIB // PAGE, GIB // PAGE)]
"""The regions of a guest with 4 GiB."""


def write_pair(folder: Path, memory: dict[int, bytes], suffix: str = "vmss") -> Path:
    """Write a ``.vmem`` with its state file."""
    data, regions = flat(memory)
    (folder / f"a.{suffix}").write_bytes(vmss(region_tags(regions)))
    (folder / "a.vmem").write_bytes(data)
    return folder / "a.vmem"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memory=memories())
def test_what_is_written_is_read(tmp_path: Path, memory: dict[int, bytes]) -> None:
    path = write_pair(tmp_path, memory)
    for named in (path, path.with_suffix(".vmss"), tmp_path):
        found = read_back(named)
        assert found.memory == memory
        assert set(found.kinds.values()) == {RunKind.PRESENT}
        assert found.caveats == frozenset()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(memory=memories())
def test_memory_within_the_state_file(tmp_path: Path, memory: dict[int, bytes]) -> None:
    data, regions = flat(memory)
    path = tmp_path / "a.vmsn"
    for magic in (0xBED2BED2, OLD_MAGIC, 0xBED2BED0, 0xBAD1BAD1, 0xBAD2BAD2, 0xBED3BED3):
        wide = magic not in (OLD_MAGIC, 0xBED2BED0)
        tags = [*region_tags(regions), block("Memory", (0, 0), data, padding=len(memory) * 7, wide=wide)]
        path.write_bytes(vmss(tags, magic))
        assert read_back(path).memory == memory
    assert read_back(tmp_path).memory == memory
    spooled = read_back(path, as_stream=True)
    assert spooled.memory == memory
    assert spooled.caveats == {"spooled"}
    (tmp_path / "a.vmsn.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_back(tmp_path / "a.vmsn.gz").memory == memory


@pytest.mark.parametrize("suffix", ["vmss", "vmsn"])
def test_what_is_told_of_it(tmp_path: Path, suffix: str) -> None:
    path = write_pair(tmp_path, {0: content(1), 1: content(2), 9: content(3)}, suffix)
    with hvshare.open_image(str(path)) as image:
        assert (image.format, image.tool, image.file_bytes) == ("vmware", "VMware", 3 * PAGE)
        assert image.details == {"state file": f"a.{suffix}", "regions": "8.0 KiB at 0x0, 4.0 KiB at 0x9000"}
        identity = image.identity
    with hvshare.open_image(str(path.with_suffix(f".{suffix}"))) as image:
        assert image.identity == identity


@pytest.mark.parametrize("tags", [[value("regionsCount", (), 0)], [value("align_mask", (), 0xFFFF)]])
def test_one_region_without_a_map(tmp_path: Path, tags: list[bytes]) -> None:
    (tmp_path / "a.vmss").write_bytes(vmss(tags))
    (tmp_path / "a.vmem").write_bytes(content(1) + content(0) + content(2) + b"tail")
    found = read_back(tmp_path / "a.vmem")
    assert found.memory == {0: content(1), 1: content(0), 2: content(2)}
    assert found.caveats == {"tail-left-out"}


def test_a_guest_with_a_hole_below_4_gib(tmp_path: Path) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    parts = {0: content(1), 3 * GIB - PAGE: content(2) + content(4), 4 * GIB - PAGE: content(5)}
    path = write_sparse(tmp_path / "a.vmem", 4 * GIB, parts)

    def read() -> tuple[dict[int, str], set[str]]:
        """Give the first byte of each stored page other than zero, by guest frame number."""
        with hvshare.open_image(str(path)) as image:
            buffer = memoryview(bytearray(64 * PAGE))
            kinds = {}
            position = 0
            assert image.runs is not None
            for each in image.blocks(buffer):
                for page in range(each.pages):
                    data = bytes(buffer[page * PAGE : (page + 1) * PAGE])
                    if data != content(0):
                        kinds[image.runs.gfn_of(position)] = data[:1].hex()
                    position += 1
            assert image.runs.pages == 4 * GIB // PAGE
            return kinds, {each.code for each in image.caveats}

    linear, codes = read()
    assert sorted(linear) == [0, 3 * GIB // PAGE - 1, 3 * GIB // PAGE, 4 * GIB // PAGE - 1]
    assert codes == {"holes-are-zero", "addresses-are-linear"}
    (tmp_path / "a.vmss").write_bytes(vmss([value("regionsCount", (), 0)]))
    assert read() == (linear, codes)
    (tmp_path / "a.vmss").write_bytes(vmss(region_tags(PC)))
    placed, codes = read()
    assert sorted(placed) == [0, 3 * GIB // PAGE - 1, 4 * GIB // PAGE, 5 * GIB // PAGE - 1]
    assert codes == {"holes-are-zero"}
    with hvshare.open_image(str(path), options=ReadingOptions(holes=RunKind.ABSENT)) as image:
        assert image.runs is not None
        assert image.runs.pages_of(RunKind.ABSENT) > 4 * GIB // PAGE - 200
        assert image.caveats == []
    write_sparse(path, 4 * GIB, {})
    with pytest.raises(UnsupportedImageError, match="nothing to measure"):
        hvshare.open_image(str(path), options=ReadingOptions(holes=RunKind.ABSENT))


def test_less_than_3_gib_need_no_map(tmp_path: Path) -> None:
    (tmp_path / "a.vmem").write_bytes(content(1) * 2)
    found = read_back(tmp_path / "a.vmem")
    assert (found.memory, found.caveats) == ({0: content(1), 1: content(1)}, frozenset())


def test_state_of_another_vm(tmp_path: Path) -> None:
    path = write_pair(tmp_path, {0: content(1), 1: content(2), 9: content(3)})
    for size in (2 * PAGE, 4 * PAGE, 3 * PAGE + 1):
        path.write_bytes(b"x" * size)
        for named in (path, path.with_suffix(".vmss"), tmp_path):
            with pytest.raises(DamagedImageError, match="another VM or snapshot") as caught:
                read_back(named)
            assert caught.value.path == str(tmp_path / "a.vmss")
    raw = read_back(path, ReadingOptions(image_format="raw"))
    assert raw.memory[0] == b"x" * PAGE


def test_other_files_of_the_vm_stay_what_they_are(tmp_path: Path) -> None:
    path = write_pair(tmp_path, {0: content(1), 1: content(2), 9: content(3)})
    # What was converted to raw has the hole in it, and what else lies there has any size.
    (tmp_path / "a.raw").write_bytes(b"x" * 10 * PAGE)
    assert read_back(tmp_path / "a.raw").memory[9] == b"x" * PAGE
    (tmp_path / "renamed.bin").write_bytes(path.read_bytes())
    assert sorted(read_back(tmp_path / "renamed.bin").memory) == [0, 1, 2]
    (tmp_path / "a.bin").write_bytes(path.read_bytes())
    assert sorted(read_back(tmp_path / "a.bin").memory) == [0, 1, 9]
    (tmp_path / "a.vmss").write_bytes(b"no state file")
    assert sorted(read_back(path).memory) == [0, 1, 2]
    assert sorted(read_back(tmp_path / "a.bin").memory) == [0, 1, 2]


def test_nothing_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.vmem").write_bytes(content(1))
    os.mkfifo(tmp_path / "a.vmss")
    assert read_back(tmp_path / "a.vmem").memory == {0: content(1)}
    (tmp_path / "b.vmss").write_bytes(vmss(region_tags([(0, 0, 1)])))
    os.mkfifo(tmp_path / "b.vmem")
    with pytest.raises(UnreadableImageError, match=r"put b\.vmem beside it"):
        read_back(tmp_path / "b.vmss")


def test_what_cannot_be(tmp_path: Path) -> None:
    def check(tags: list[bytes], error: type[ImageError], words: str, **more: object) -> None:
        (tmp_path / "a.vmss").write_bytes(vmss(tags, **more))  # type: ignore[arg-type]
        with pytest.raises(error, match=words) as caught:
            read_back(tmp_path / "a.vmss")
        assert caught.value.path == str(tmp_path / "a.vmss")
        assert caught.value.advice

    data = content(1) * 4
    memory = block("Memory", (0, 0), data)
    good = region_tags([(0, 0, 2), (8, 2, 2)])
    check(good, UnreadableImageError, r"holds no memory.*put a\.vmem beside it")
    packed = block("Memory", (0, 0), data, compressed=True)
    check([*good, packed], UnsupportedImageError, "memory in this state file is compressed")
    check([*good, memory, memory], UnsupportedImageError, "2 blocks")
    check([*good, block("Memory", (0, 0), data, unpacked=99)], DamagedImageError, "99 in the VM")
    check([memory], UnsupportedImageError, "nothing about memory", groups=("cpu",))
    check([memory], DamagedImageError, "two groups", groups=("memory", "memory"))
    check([], DamagedImageError, "is empty")
    check([*region_tags([(0, 0, 2), (1, 2, 2)]), memory], DamagedImageError, "overlaps")
    check([*region_tags([(0, 0, 2), (8, 1, 2)]), memory], DamagedImageError, "starts at page 1")
    check([*region_tags([(0, 0, 2), (8, 3, 1)]), memory], DamagedImageError, "starts at page 3")
    check([*region_tags([(0, 0, 2), (8, 2, 9)]), memory], DamagedImageError, "another VM or snapshot")
    check([*good[:-1], memory], DamagedImageError, "there are 5 such tags")
    check([*good[1:], memory], DamagedImageError, "should describe 0 regions")
    check([*good, good[0], memory], DamagedImageError, "such tags")
    check([*good, good[1], memory], DamagedImageError, "two tags")
    check([value("regionsCount", (), 1), *good[4:], memory], DamagedImageError, "region 0 is missing")
    high = [value("regionsCount", (), 1), value("regionPPN", (0,), 1 << 50, 8), *good[2:4], memory]
    check(high, DamagedImageError, "where addresses end")
    check([b"\x04\x02\xff\xfe1234"], DamagedImageError, "a tag should be here")
    check([value("x", (), 1) * (1 << 17)], DamagedImageError, "more tags")
    (tmp_path / "a.vmss").write_bytes(vmss(good))
    with pytest.raises(UnreadableImageError, match=r"a stream has no \.vmem"):
        read_back(tmp_path / "a.vmss", as_stream=True)


def test_hostile_sizes_allocate_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.vmss"
    huge = block("Memory", (0, 0), b"")
    huge = huge[:16] + (1 << 60).to_bytes(8, "little") * 2 + huge[32:]
    state = bytearray(vmss([huge]))
    many = bytearray(vmss([value("regionsCount", (), 0xFFFFFFFF)]))
    groups = bytearray(vmss([]))
    groups[8:12] = b"\xff\xff\xff\x7f"
    tracemalloc.start()
    for data in (state, many, groups):
        path.write_bytes(data)
        with pytest.raises(DamagedImageError):
            read_back(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def embedded(folder: Path) -> tuple[Path, int]:
    """Write a state file that holds memory; also gives where the memory starts."""
    data = content(1) * 2 + content(2) + content(250)
    tags = [*region_tags([(0, 0, 3), (8, 3, 1)]), block("Memory", (0, 0), data, padding=3)]
    path = folder / "a.vmss"
    path.write_bytes(vmss(tags))
    return path, path.read_bytes().index(data)


def test_cut_anywhere(tmp_path: Path) -> None:
    path, start = embedded(tmp_path)
    size = path.stat().st_size
    check_cut_anywhere(path, [*range(start + 8), *range(start + 8, size, 97), *range(size - 4, size)])
    vmem = write_pair(tmp_path, {0: content(1), 1: content(2), 9: content(3)})
    whole = vmem.read_bytes()
    check_cut_anywhere(vmem, [*range(0, 3 * PAGE, 511), *range(PAGE - 2, PAGE + 3), 3 * PAGE - 1])
    vmem.write_bytes(whole)

    def read(_state: Path) -> ReadBack:
        return read_back(vmem)

    check_cut_anywhere(
        vmem.with_suffix(".vmss"), [*range(HEADER - 160, vmem.with_suffix(".vmss").stat().st_size)], read
    )


def test_cut_before_the_magic_is_raw(tmp_path: Path) -> None:
    vmem = write_pair(tmp_path, {0: content(1), 9: content(3)})
    os.truncate(vmem.with_suffix(".vmss"), 11)
    with pytest.raises(TruncatedImageError, match="header of a VMware state file"):
        read_back(vmem)
    os.truncate(vmem.with_suffix(".vmss"), 3)
    assert sorted(read_back(vmem).memory) == [0, 1]


def test_flipped_headers(tmp_path: Path) -> None:
    path, start = embedded(tmp_path)
    data = path.read_bytes()
    # Nothing contradicts how much padding is in front of the memory, as long as the end is not the file's.
    padding = start - 5
    # Names and values of other groups say nothing about memory; the version is in no calculation.
    offsets = [offset for offset in range(start) if offset not in range(4)]
    check_flipped(path, offsets, moves=lambda offset: offset in (padding, padding + 1))
    assert path.read_bytes() == data
    vmem = write_pair(tmp_path, {0: content(1), 1: content(2), 9: content(3)})
    state = vmem.with_suffix(".vmss")

    def read(_state: Path) -> ReadBack:
        return read_back(vmem)

    check_flipped(state, range(4, state.stat().st_size), read)


def test_flipped_magic(tmp_path: Path) -> None:
    vmem = write_pair(tmp_path, {0: content(1), 1: content(2), 9: content(3)})
    state = vmem.with_suffix(".vmss")

    def read(_state: Path) -> ReadBack:
        return read_back(vmem)

    # A file beside it that does not start like a state file is none, and memory is then read as raw.
    check_flipped(state, range(4), read)
    for gfns, named in (({0, 1, 9}, state), ({0, 1, 2}, vmem)):
        state.write_bytes((b"\xd2" if 9 in gfns else b"\x00") + state.read_bytes()[1:])
        assert set(read_back(named).memory) == gfns


def test_volatility3_reads_the_same(tmp_path: Path) -> None:
    contexts = pytest.importorskip("volatility3.framework.contexts", reason="a second opinion, if installed")
    physical = pytest.importorskip("volatility3.framework.layers.physical")
    vmware = pytest.importorskip("volatility3.framework.layers.vmware")
    memory = {gfn: content(gfn + 1) for gfn in (0, 1, 2, 7, 8, 40)}
    path = write_pair(tmp_path, memory)
    context = contexts.Context()
    for name, each in (("memory", path), ("state", path.with_suffix(".vmss"))):
        context.config[f"{name}.location"] = each.as_uri()
        context.layers.add_layer(physical.FileLayer(context, name, name))
    context.config["both.base_layer"], context.config["both.meta_layer"] = "memory", "state"
    layer = vmware.VmwareLayer(context, "both", "both")
    assert {gfn: layer.read(gfn * PAGE, PAGE) for gfn in memory} == read_back(path).memory
    for name in ("memory", "state"):
        context.layers[name].destroy()


def test_a_file_with_many_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not supports_holes(tmp_path):
        pytest.skip("the file system under the temporary folder tells no holes")
    # Holes are as many as a guest has pages; ranges of memory are few.
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 10)
    memory = {gfn: content(gfn % 250 + 1) for gfn in range(0, 200, 2)}
    path = write_sparse(tmp_path / "a.vmem", 200 * PAGE, {gfn * PAGE: page for gfn, page in memory.items()})
    (tmp_path / "a.vmss").write_bytes(vmss(region_tags([(0, 0, 96), (1000, 96, 104)])))
    places = {gfn: gfn if gfn < 96 else gfn + 904 for gfn in range(200)}
    found = read_back(path).memory
    assert found == {place: memory.get(gfn, bytes(PAGE)) for gfn, place in places.items()}
    absent = read_back(path, ReadingOptions(holes=RunKind.ABSENT)).memory
    assert absent == {place: memory.get(gfn) for gfn, place in places.items()}


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no memory file system")  # noqa: S108
def test_a_snapshot_in_memory() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        memory = {0: content(1), 9: content(2)}
        assert read_back(write_pair(Path(folder), memory)).memory == memory
