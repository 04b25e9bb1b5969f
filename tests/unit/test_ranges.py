from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvshare.errors import WorkerError
from hvshare.fingerprint.pages import ZERO_DIGEST
from hvshare.sharing import grouping, range_passes, range_pieces, range_pool, range_tally, ranges
from hvshare.sharing.grouping import group
from hvshare.sharing.range_pool import Task, add_up
from hvshare.sharing.ranges import RangeCounts, count_many, count_range

Vms = list[list[int]]

# Few values, so that they repeat; some differ in their lowest bit alone, some lie at the edges of ranges.
digests = st.one_of(
    st.sampled_from([0, 1, 2, 2**61 - 1, 2**61, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 2, ZERO_DIGEST]),
    st.integers(0, 2**64 - 1),
)
guests = st.lists(st.lists(digests, max_size=40), max_size=9)


def arrays(vms: Vms) -> list[NDArray[np.uint64]]:
    made = [np.array(vm, np.uint64) for vm in vms]
    for array in made:
        array.flags.writeable = False
    return made


def savings(vms: Vms) -> int:
    return sum(map(len, vms)) - len({digest for vm in vms for digest in vm})


def copies_of(vms: Sequence[list[int]]) -> dict[int, int]:
    copies = Counter(digest for vm in vms for digest in vm if digest != ZERO_DIGEST)
    return dict(Counter(copies.values()))


def check(counts: RangeCounts, vms: Vms, domains: list[int]) -> None:
    """Hold counts against sets and counters."""
    contents = [set(vm) - {ZERO_DIGEST} for vm in vms]
    assert counts.zero_of.tolist() == [vm.count(ZERO_DIGEST) for vm in vms]
    assert counts.nonzero_of.tolist() == [len(vm) - vm.count(ZERO_DIGEST) for vm in vms]
    assert counts.distinct_of.tolist() == [len(held) for held in contents]
    assert counts.distinct == len(set().union(*contents))
    others = [set().union(*contents[:index], *contents[index + 1 :]) for index in range(len(vms))]
    assert counts.exclusive_of.tolist() == [
        len(held - by_others) for held, by_others in zip(contents, others, strict=True)
    ]
    assert counts.copies == copies_of(vms)
    of_domains = [
        copies_of([vm for vm, domain in zip(vms, domains, strict=True) if domain == number])
        for number in range(max(domains, default=0) + 1)
    ]
    assert list(counts.domain_copies) == of_domains
    assert counts.domain_distinct == [sum(copies.values()) for copies in of_domains]
    assert counts.common_contents is not None
    assert counts.common_pages is not None
    assert counts.common_contents.tolist() == [[len(a & b) for b in contents] for a in contents]
    assert counts.common_pages.tolist() == [
        [sum(digest in held for digest in vm) for held in contents] for vm in vms
    ]


def same(one: RangeCounts, other: RangeCounts) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))


class Small:
    """Everything that depends on sizes happens to small inputs, too."""

    def __enter__(self) -> pytest.MonkeyPatch:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(range_passes, "_RUN_DIGESTS", 11)
        self._patch.setattr(range_passes, "_RANGE_DIGESTS", 1)
        self._patch.setattr(range_passes, "_ONE_PASS_DIGESTS", 9)
        self._patch.setattr(range_passes, "_CHUNK", 7)
        self._patch.setattr(range_pieces, "_PIECE_DIGESTS", 5)
        self._patch.setattr(range_tally, "_SMALL", 4)
        self._patch.setattr(grouping, "_RANGE_DIGESTS", 8)
        return self._patch

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


@given(guests, st.data())
def test_against_counters(vms: Vms, data: st.DataObject) -> None:
    domains = data.draw(st.lists(st.integers(0, 3), min_size=len(vms), max_size=len(vms)))
    check(count_many(arrays(vms), domains=domains, jobs=1), vms, domains)
    check(count_range(arrays(vms), domains), vms, domains)
    with Small():
        check(count_many(arrays(vms), domains=domains, jobs=1), vms, domains)
        check(count_range(arrays(vms), domains), vms, domains)


@given(guests)
def test_contribution_is_what_leaving_a_vm_out_costs(vms: Vms) -> None:
    assert count_many(arrays(vms)).contribution_of == [
        savings(vms) - savings(vms[:index] + vms[index + 1 :]) for index in range(len(vms))
    ]


@given(guests, st.data())
def test_zero_pages_in_holes_contribute(vms: Vms, data: st.DataObject) -> None:
    holes = data.draw(st.lists(st.integers(0, 2), min_size=len(vms), max_size=len(vms)))
    filled = [vm + [ZERO_DIGEST] * zero for vm, zero in zip(vms, holes, strict=True)]
    counts, expected = count_many(arrays(vms), zero_in_holes=holes), count_many(arrays(filled))
    assert same(counts, expected)
    assert counts.contribution_of == expected.contribution_of


@given(guests, st.randoms())
def test_order_of_vms_and_of_digests_changes_nothing(vms: Vms, random: Random) -> None:
    order = random.sample(range(len(vms)), len(vms))
    counts = count_many(arrays(vms), domains=[index % 3 for index in range(len(vms))])
    moved = count_many(
        arrays([random.sample(vms[index], len(vms[index])) for index in order]),
        domains=[index % 3 for index in order],
    )
    assert moved.copies == counts.copies
    assert [copies for copies in moved.domain_copies if copies] == [
        copies for copies in counts.domain_copies if copies
    ]
    for name in ("zero_of", "nonzero_of", "distinct_of", "exclusive_of"):
        assert getattr(moved, name).tolist() == getattr(counts, name)[order].tolist()
    for name in ("common_contents", "common_pages"):
        assert np.array_equal(getattr(moved, name), getattr(counts, name)[np.ix_(order, order)])


@given(guests, st.integers(0, 2**64 - 1))
def test_ranges_add_up_wherever_they_are_cut(vms: Vms, cut: int) -> None:
    below = arrays([[digest for digest in vm if digest < cut] for vm in vms])
    above = arrays([[digest for digest in vm if digest >= cut] for vm in vms])
    sent = pickle.dumps(count_range(above))
    added = count_range(below) + pickle.loads(sent)  # noqa: S301  # of our own
    assert same(added, count_range(arrays(vms)))


@given(guests)
def test_splitting_a_vm_keeps_what_is_pooled(vms: Vms) -> None:
    split = [part for vm in vms for part in (vm[: len(vm) // 2], vm[len(vm) // 2 :])]
    domains = list(range(len(vms)))
    whole = count_many(arrays(vms), domains=domains)
    halves = count_many(arrays(split), domains=[vm for vm in domains for _ in range(2)])
    assert halves.copies == whole.copies
    assert halves.domain_copies == whole.domain_copies
    assert halves.domain_distinct == whole.distinct_of.tolist() or not vms


def test_agrees_with_the_grouping_of_one_domain() -> None:
    vms = guests_of(5, 30_000)
    groups, counts = group(vms), count_many(vms, pairs=False)
    assert counts.distinct == groups.distinct
    assert counts.distinct_of.tolist() == groups.distinct_of.tolist()
    bins = Counter[int]()
    for copies, contents in counts.copies.items():
        bins[copies.bit_length() - 1] += contents
    assert groups.contents_by_copies.tolist() == [bins[index] for index in range(64)]
    assert counts.common_contents is None


def guests_of(vms: int, pages: int, zero: float = 0.2) -> list[NDArray[np.uint64]]:
    """Guests with zero pages, a fill pattern, contents of a template and contents of their own."""
    random = np.random.default_rng(1)
    template = random.integers(0, 2**64, pages, dtype=np.uint64)
    made = []
    for vm in range(vms):
        own = random.integers(0, 2**64, pages, dtype=np.uint64)
        kind = random.random(pages)
        own[kind < 0.3] = template[random.integers(0, max(1, pages * (vm + 1) // vms), pages)][kind < 0.3]
        own[(kind > 0.3) & (kind < 0.45)] = 0xCC
        own[kind > 1 - zero] = ZERO_DIGEST
        made.append(own)
    return made


@pytest.mark.parametrize("vms", [2, 11, 300])
def test_processes_and_ranges_change_nothing(vms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    many = guests_of(vms, 60_000 // vms)
    domains = [vm * 7 % 5 for vm in range(vms)]
    one = count_many(many, domains=domains, jobs=1)
    check(one, [vm.tolist() for vm in many], domains) if vms < 50 else None
    monkeypatch.setattr(ranges, "_WORTH_FORKING", 0)
    for name in ("_RUN_DIGESTS", "_RANGE_DIGESTS", "_ONE_PASS_DIGESTS"):
        monkeypatch.setattr(range_passes, name, 1 << 12)
    monkeypatch.setattr(range_pool, "_SENT_AT_ONCE", 3)
    for jobs in (1, 2, 5):
        assert same(count_many(many, domains=domains, jobs=jobs), one)
    assert not children(os.getpid())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def counting(number: int) -> RangeCounts:
    return count_range(arrays([[number]]))


def test_a_worker_that_dies_is_an_error() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    count: Task[RangeCounts] = partial(counting, 1)
    cases: list[list[list[Task[RangeCounts]]]] = [[[count, die]], [[die, die], [count]]]
    for steps in cases:
        with pytest.raises(WorkerError, match="signal 9"):
            add_up(steps, jobs=2)
        assert not children(os.getpid())


def test_a_defect_in_a_worker_is_told() -> None:
    def fail() -> None:
        raise KeyError("nothing of the sort")

    tasks: list[Task[RangeCounts]] = [partial(counting, 1), fail, partial(counting, 2)]
    with pytest.raises(WorkerError, match="KeyError: 'nothing of the sort'"):
        add_up([tasks], jobs=3)
    assert not children(os.getpid())


def test_steps_wait_for_each_other() -> None:
    shared = range_passes._shared(50)

    def fill(index: int) -> None:
        time.sleep(0.001)
        shared[index] = index + 1

    def count() -> RangeCounts:
        return count_range([shared.view(np.uint64)])

    fills: list[Task[RangeCounts]] = [partial(fill, index) for index in range(50)]
    steps: list[list[Task[RangeCounts]]] = [fills, [count, count]]
    assert add_up(steps, jobs=3).copies == {1: 100}


def test_processes_that_cannot_be_started_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork
    forked: list[bool] = []

    def fork_once() -> int:
        if forked:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        forked.append(True)
        return fork()

    monkeypatch.setattr(os, "fork", fork_once)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(WorkerError, match="cannot be started"):
        add_up([[partial(counting, number) for number in range(8)]], jobs=3)
    assert not children(os.getpid())
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_end_from_outside_leaves_no_process_behind(sent: signal.Signals) -> None:
    script = (
        "import time\n"
        "from hvshare.sharing.range_pool import add_up\n"
        "add_up([[lambda: time.sleep(0.2)] * 200], jobs=2)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.send_signal(sent)
        assert process.stderr is not None
        assert (b"KeyboardInterrupt" in process.stderr.read()) == (sent == signal.SIGINT)
    wait_for(lambda: not any(is_running(worker) for worker in workers))


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    # An orphan that nobody has waited for yet has ended all the same.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_hundreds_of_vms_in_pairs() -> None:
    vms = guests_of(300, 200)
    sets = [set(vm.tolist()) - {ZERO_DIGEST} for vm in vms]
    counts = count_many(vms)
    assert counts.common_contents is not None
    assert counts.common_contents.tolist() == [[len(a & b) for b in sets] for a in sets]


def test_mapped_files(tmp_path: Path) -> None:
    vms = guests_of(3, 5_000)
    mapped = []
    for index, vm in enumerate(vms):
        np.save(tmp_path / f"{index}.npy", vm)
        mapped.append(np.load(tmp_path / f"{index}.npy", mmap_mode="r"))
    assert same(count_many(mapped), count_many(vms))


def test_domains_are_checked() -> None:
    with pytest.raises(ValueError, match="no domains of 2 VMs"):
        count_many(arrays([[1], [2]]), domains=[0])
    with pytest.raises(ValueError, match="no domains"):
        count_many(arrays([[1], [2]]), domains=[0, -1])
