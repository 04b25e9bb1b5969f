from __future__ import annotations

import io
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvshare.errors import EmptyImageError, ImageError, ResourceError, SizeError
from hvshare.report.console import report_console
from hvshare.report.ksm import ksm_fields, print_ksm
from hvshare.sharing import ksm_memory, ksm_users
from hvshare.sharing.ksm import KsmCounters, ksm_caveats, ksm_words, predict
from hvshare.sharing.ksm_memory import MergeableMemory, known_pages
from hvshare.sharing.ksm_oracle import check_ready, check_with_kernel, settle
from hvshare.sharing.ksm_scan import asleep_seconds, least_pages_to_scan, plan_scan
from hvshare.sharing.ksm_settings import KsmFolder, SettingsGuardian, put_back
from hvshare.sharing.ksm_users import KsmUser, check_memory, check_unused, ksm_stat
from tests.guests import MemoryImage, content, page_numbers
from tests.oracle import PAGE

ZERO = 0


class SlowKsm:
    """The rule of mm/ksm.c, page by page: two trees, as dictionaries, and one scan after another."""

    def __init__(self, pages: Sequence[int], most: int, *, use_zero_pages: bool) -> None:
        self.pages = pages
        self.most = most
        self.use_zero_pages = use_zero_pages
        self.seen: set[int] = set()
        self.stable: dict[int, list[int]] = defaultdict(list)  # how many pages each KSM page of a content has
        self.settled: set[int] = set()
        self.zero: set[int] = set()
        self.unstable: dict[int, int] = {}

    def scan(self) -> None:
        self.unstable = {}
        for position, page in enumerate(self.pages):
            if position in self.settled or position in self.zero:
                continue
            room = [index for index, held in enumerate(self.stable[page]) if held < self.most]
            if room:
                self.stable[page][room[0]] += 1
                self.settled.add(position)
            elif position not in self.seen:
                self.seen.add(position)  # its checksum is new
            elif self.use_zero_pages and page == ZERO:
                self.zero.add(position)
            elif page in self.unstable:
                self.stable[page].append(2)
                self.settled |= {position, self.unstable.pop(page)}
            else:
                self.unstable[page] = position

    def counters(self) -> KsmCounters:
        nodes = [held for held in self.stable.values() if held]
        chains = [held for held in nodes if len(held) > 1]
        shared = sum(map(len, nodes))
        return KsmCounters(
            shared,
            sum(map(sum, nodes)) - shared,
            len(self.unstable),
            len(self.zero),
            len(chains),
            sum(map(len, chains)),
        )


@given(st.lists(st.integers(0, 6), max_size=60).flatmap(st.permutations), st.integers(2, 7), st.booleans())
def test_against_the_rule_page_by_page(pages: list[int], most: int, use_zero_pages: bool) -> None:
    slow = SlowKsm(pages, most, use_zero_pages=use_zero_pages)
    slow.scan()
    assert slow.counters() == KsmCounters(0, 0, 0)  # nothing is merged in the first scan
    slow.scan()
    copies = Counter(Counter(page for page in pages if page != ZERO).values())
    predicted = predict(copies, pages.count(ZERO), use_zero_pages=use_zero_pages, max_page_sharing=most)
    assert slow.counters() == predicted
    slow.scan()
    assert slow.counters() == predicted
    assert predicted.rmap_items + predicted.ksm_zero_pages == len(pages)


@pytest.mark.parametrize("most", [1, 0, -3])
def test_limits_that_the_kernel_refuses(most: int) -> None:
    with pytest.raises(SizeError, match="max_page_sharing"):
        predict({2: 1}, 0, use_zero_pages=False, max_page_sharing=most)


def test_published_reading_of_instagram() -> None:
    # S. Roesch on LKML.
    counters = KsmCounters(125446, 5259506, 1897537, pages_volatile=12389223)
    assert counters.general_profit == pytest.approx(20620539008, rel=0.02)
    assert counters.general_profit == 5259506 * 4096 - 64 * (125446 + 5259506 + 1897537 + 12389223)


def test_table_1_of_difference_engine() -> None:
    # OSDI 2008: of three VMs of 512 MB, sharable pages go from 52,436 to 3,577, zero pages from 149,038 to 1.
    unique, sharable, contents, zero = 191_646, 52_436, 3_577, 149_038
    few, rest = divmod(sharable, contents)
    copies = {1: unique, few: contents - rest, few + 1: rest}
    assert sum(number * count for number, count in copies.items()) + zero == 393_120
    counters = predict(copies, zero, use_zero_pages=False, max_page_sharing=1 << 20)
    left = 393_120 - counters.saved_pages
    # The table says 195,224: the parts that it gives add up to that.
    assert left == unique + contents + 1 == 195_224
    assert (counters.pages_shared, counters.pages_unshared) == (contents + 1, unique)
    with_zero = predict(copies, zero, use_zero_pages=True, max_page_sharing=1 << 20)
    assert with_zero.saved_pages == counters.saved_pages + 1  # the kernel has its zero page anyway


def test_merging_small_contents_may_cost_more_than_it_frees() -> None:
    assert predict({1: 1000}, 0, use_zero_pages=False).general_profit == -64_000


def slow_sleeps(pages: int, scans: int, pages_to_scan: int) -> int:
    """Count how often ksmd sleeps from the first page until the last scan ends, as ksm_do_scan does."""
    sleeps = done = at = 0
    while True:
        for _ in range(pages_to_scan):
            if at == pages:
                at = 0
                done += 1
                if done == scans:
                    return sleeps
                break
            at += 1
        sleeps += 1


@given(st.integers(1, 300), st.integers(1, 4), st.integers(1, 320), st.integers(1, 50))
def test_scans_against_ksmd_batch_by_batch(
    pages: int, scans: int, pages_to_scan: int, sleep_millisecs: int
) -> None:
    seconds = asleep_seconds(pages, scans, pages_to_scan=pages_to_scan, sleep_millisecs=sleep_millisecs)
    assert seconds == slow_sleeps(pages, scans, pages_to_scan) * sleep_millisecs / 1000
    least = least_pages_to_scan(pages, seconds, sleep_millisecs, scans)
    assert least is not None
    assert asleep_seconds(pages, scans, pages_to_scan=least, sleep_millisecs=sleep_millisecs) <= seconds
    assert least <= pages_to_scan
    if least > 1:
        slower = asleep_seconds(pages, scans, pages_to_scan=least - 1, sleep_millisecs=sleep_millisecs)
        assert slower > seconds


def test_scans_of_nothing_and_without_sleep() -> None:
    assert asleep_seconds(0, 2, pages_to_scan=100, sleep_millisecs=20) == 0
    assert least_pages_to_scan(0, 1, 20) == 1
    assert least_pages_to_scan(1000, 1, 0) == 1
    assert plan_scan(1000).wanted_pages_to_scan is None


@pytest.mark.parametrize("within", [None, 0.001, 30.0])
def test_report_fits_80_columns_and_cuts_nothing(within: float | None) -> None:
    words = ksm_words({1: 10**9, 2: 10**8, 100_000: 123}, 10**9, domain="web[bold]\x1b")
    scan = plan_scan(words.pages, within_seconds=within)
    file = io.StringIO()
    print_ksm([words, words], report_console(file, width=80), scan=scan)
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "web[bold]\\x1b" in text
    for counters in (words.without_zero_pages, words.with_zero_pages):
        for name in ("pages_shared", "pages_sharing", "ksm_zero_pages", "stable_node_dups", "general_profit"):
            assert f"{getattr(counters, name):,}" in text
    fields = ksm_fields([words], scan)
    assert fields["domains"] == [
        {
            "name": "web[bold]\x1b",
            "pages": words.pages,
            "zero_pages": 10**9,
            "max_page_sharing": 256,
            "use_zero_pages_0": {
                name: getattr(words.without_zero_pages, name)
                for name in (*KsmCounters.__dataclass_fields__, "general_profit")
            },
            "use_zero_pages_1": {
                name: getattr(words.with_zero_pages, name)
                for name in (*KsmCounters.__dataclass_fields__, "general_profit")
            },
        }
    ]
    assert ("choose a shorter sleep_millisecs" in text) == (within == 0.001)
    assert [caveat.code for caveat in ksm_caveats()] == ["ksm-settled"]


# What a check maps.


@given(
    st.lists(st.lists(st.none() | page_numbers, max_size=20), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
    st.integers(1, 8),
)
def test_mapped_memory_holds_the_pages_of_the_images(
    numbers: list[list[int | None]], zero_runs: bool, gaps: bool, chunk_pages: int
) -> None:
    vms = [[None if number is None else content(number) for number in vm] for vm in numbers]
    images = [MemoryImage(f"vm{number}", vm, zero_runs=zero_runs, gaps=gaps) for number, vm in enumerate(vms)]
    with pytest.MonkeyPatch.context() as patch, MergeableMemory() as memory:
        patch.setattr(ksm_memory, "_CHUNK_PAGES", chunk_pages)
        for image in images:
            memory.fill(image)
        known = [page for vm in vms for page in vm if page is not None]
        contents = Counter(page for page in known if page != bytes(PAGE))
        assert memory.pages == len(known) == sum(map(known_pages, images))
        assert memory.zero_pages == len(known) - sum(contents.values())
        assert memory.copies() == Counter(contents.values())
        held = b"".join(chunk[:] for chunk in memory._chunks)
        mapped = Counter(held[at : at + PAGE] for at in range(0, len(held), PAGE))
        del mapped[bytes(PAGE)]
        assert mapped == contents


class FailingImage(MemoryImage):
    """An image that turns out to be damaged once its pages were read."""

    def finish(self) -> list:  # type: ignore[type-arg]
        raise ImageError("it is damaged")


def test_an_image_that_fails_leaves_nothing() -> None:
    with MergeableMemory() as memory:
        memory.fill(MemoryImage("good", [b"a" * PAGE]))
        with pytest.raises(ImageError, match="damaged"):
            memory.fill(FailingImage("bad", [b"b" * PAGE] * 3))
        assert (memory.pages, memory.copies(), len(memory._chunks)) == (1, {1: 1}, 1)


def test_memory_that_would_run_short() -> None:
    check_memory(1)
    with pytest.raises(ResourceError, match=r"memory would run short: 1,099,511,627,776 pages.*available"):
        check_memory(1 << 40)


def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ksm_users, "_left_in_group", lambda: 300 << 20)
    check_memory(1000)
    with pytest.raises(ResourceError, match="memory would run short"):
        check_memory(20_000)


# Settings: a folder that looks like the kernel's.

FOUND = {
    "max_page_sharing": "256",
    "merge_across_nodes": "0",
    "use_zero_pages": "1",
    "smart_scan": "1",
    "pages_to_scan": "123",
    "sleep_millisecs": "77",
    "advisor_mode": "[none] scan-time",
    "run": "0",
    "pages_shared": "0",
    "pages_sharing": "0",
    "full_scans": "5",
}


@pytest.fixture
def folder(tmp_path: Path) -> KsmFolder:
    for name, value in FOUND.items():
        (tmp_path / name).write_text(value + "\n")
    return KsmFolder(tmp_path)


def change(folder: KsmFolder) -> None:
    for name in ("use_zero_pages", "max_page_sharing", "pages_to_scan", "sleep_millisecs", "run"):
        folder.write(name, 1)


def test_settings_are_put_back(folder: KsmFolder) -> None:
    found = folder.settings()
    assert found["advisor_mode"] == "none"
    with SettingsGuardian(folder):
        change(folder)
        assert folder.settings() != found
    assert folder.settings() == found


def test_settings_are_put_back_after_an_error_and_after_the_guardian_was_killed(folder: KsmFolder) -> None:
    found = folder.settings()

    def interrupted() -> None:
        with SettingsGuardian(folder) as guardian:
            change(folder)
            os.kill(guardian._pid, signal.SIGKILL)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert folder.settings() == found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_settings_are_put_back_when_the_command_is_killed(folder: KsmFolder, number: signal.Signals) -> None:
    found = folder.settings()
    child = os.fork()
    if not child:
        try:
            signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
            SettingsGuardian(folder)
            change(folder)
            os.kill(os.getpid(), number)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == number
    until = time.monotonic() + 10
    while folder.settings() != found and time.monotonic() < until:
        time.sleep(0.01)
    assert folder.settings() == found


def test_what_cannot_be_put_back_is_told(folder: KsmFolder) -> None:
    found = folder.settings()
    folder.write("pages_to_scan", 1)
    (folder.path / "run").unlink()
    (folder.path / "run").mkdir()
    (failure,) = put_back(folder, found)
    assert failure.startswith("run was 0: ")
    assert folder.text("pages_to_scan") == "123"
    (folder.path / "run").rmdir()
    (folder.path / "run").write_text("0")
    assert put_back(folder, found) == []


def test_two_checks_at_once(folder: KsmFolder) -> None:
    lock = folder.lock()
    with pytest.raises(ResourceError, match="another check of KSM is at work"):
        folder.lock()
    os.close(lock)
    os.close(folder.lock())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("run", "1", "ksmd is told to run"), ("pages_sharing", "1234", "1,234 pages are merged")],
)
def test_ksm_in_use(
    folder: KsmFolder, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    (folder.path / name).write_text(value)
    monkeypatch.setattr(ksm_users, "ksm_users", list)
    with pytest.raises(ResourceError, match=f"KSM is in use: {words}.*no process that runs now"):
        check_unused(folder)


def test_users_of_ksm_are_named(folder: KsmFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [KsmUser(number, "qemu", number * 1000) for number in range(1, 8)]
    monkeypatch.setattr(ksm_users, "ksm_users", lambda: users)
    with pytest.raises(ResourceError, match=r"memory of qemu \(process 7, 7,000 pages\).* and 2 more"):
        check_unused(folder)


def test_users_by_each_sign_that_kernels_give(tmp_path: Path) -> None:
    (tmp_path / "smaps").write_text("Size: 4 kB\nVmFlags: rd wr mr mw me ac sd\n")
    assert not ksm_users._is_user(tmp_path, {})
    assert not ksm_users._is_user(tmp_path, {"ksm_rmap_items": "0", "ksm_merging_pages": "0"})
    assert not ksm_users._is_user(tmp_path, {"ksm_mergeable": "no", "ksm_merge_any": "no"})
    assert ksm_users._is_user(tmp_path, {"ksm_rmap_items": "3"})
    assert ksm_users._is_user(tmp_path, {"ksm_mergeable": "yes", "ksm_merge_any": "no"})
    assert ksm_users._is_user(tmp_path, {"ksm_mergeable": "no", "ksm_merge_any": "yes"})
    (tmp_path / "smaps").write_text("Size: 4 kB\nVmFlags: rd wr mr mw me ac mg sd\n")
    assert ksm_users._is_user(tmp_path, {})
    (tmp_path / "smaps").unlink()
    (tmp_path / "ksm_merging_pages").write_text("17\n")
    assert ksm_users._is_user(tmp_path, {})


def test_statistics_of_no_process() -> None:
    assert ksm_stat(1 << 30) == {}


def test_machines_that_cannot_be_asked(
    folder: KsmFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResourceError, match="this kernel has no KSM"):
        check_ready(KsmFolder(tmp_path / "none"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ResourceError, match="only root"):
        check_ready(folder)
    monkeypatch.setattr(os, "sysconf", lambda _name: 65536)
    with pytest.raises(ResourceError, match="pages of this machine have 65,536 bytes"):
        check_ready(folder)


class ScriptedKsm(KsmFolder):
    """Looks at KSM, each with the number of full scans so far and of pages merged by then."""

    def __init__(self, path: Path, looks: Iterable[tuple[int, int]]) -> None:
        super().__init__(path)
        self.looks = iter(looks)
        self.merged = 0

    def count(self, name: str) -> int:
        if name == "full_scans":
            scans, self.merged = next(self.looks)
            return scans
        return self.merged if name == "pages_sharing" else 0


@pytest.mark.parametrize(
    ("looks", "settled"),
    [
        ([(11, 0), (12, 5), (13, 5), (14, 5)], True),
        ([(40, 5), (41, 5)], True),  # the first look comes late
        ([(11, 0), (60, 5), (61, 5)], True),  # all merged while nobody looked
        ([(60, 5), (61, 4), (62, 4)], False),
        (((10 + scan, scan) for scan in range(1, 1000)), False),
        ([(11, 0), (11, 0), (12, 5), (13, 5), (14, 6), (15, 6)], True),
    ],
)
def test_settled_is_not_a_matter_of_how_often_one_looks(
    folder: KsmFolder, looks: Iterable[tuple[int, int]], settled: bool
) -> None:
    folder.write("run", 1)
    asked = ScriptedKsm(folder.path, looks)
    assert settle(asked, 10) is settled
    assert next(asked.looks, None) is None or not settled


def test_images_without_any_page(folder: KsmFolder) -> None:
    with MergeableMemory() as memory, pytest.raises(EmptyImageError, match="none of the images holds a page"):
        check_with_kernel(memory, folder, use_zero_pages=(True,))
