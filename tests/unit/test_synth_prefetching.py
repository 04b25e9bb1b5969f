"""Prefetchers and the memory that they fill, against models that go page by page and hour by hour."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from hvshare.errors import BudgetError, PresetError
from hvshare.synth.draws import Draws
from hvshare.synth.prefetching.markov import PairChains
from hvshare.synth.prefetching.memory import PageCache
from hvshare.synth.prefetching.orders import MOST_PAGES, first_of_each, new_pages
from hvshare.synth.prefetching.preload import ONE, MemoryShares, Preload
from hvshare.synth.prefetching.superfetch import SuperFetch
from hvshare.synth.prefetching.usage import HOURS, MOST_USES, UsageHistory, draw_history, draw_running

TEMPLATE = Draws.of("template", 1)
VM, OTHER_VM = Draws.of("vm", 1), Draws.of("vm", 2)

# Few pages, so that they meet again; some as far out as a disk may have them.
pages = st.one_of(st.integers(0, 15), st.sampled_from([MOST_PAGES - 1, MOST_PAGES - 2]))
page_lists = st.lists(pages, max_size=24)
counts = st.integers(0, 14)
# Few hours, so that they are alike, side by side, or those of two days; a week ends where it begins.
hours = st.sampled_from([0, 1, 23, 24, 90, 91, 144, 166, 167])


def disk(numbers: list[int]) -> NDArray[np.int64]:
    made = np.array(numbers, np.int64)
    made.flags.writeable = False
    return made


@given(page_lists, st.sets(pages), st.sets(pages))
def test_each_page_once_in_the_order_of_its_first_place(
    numbers: list[int], one: set[int], other: set[int]
) -> None:
    assert first_of_each(disk(numbers)).tolist() == list(dict.fromkeys(numbers))
    apart = other - one
    fresh = new_pages(disk(numbers), disk(sorted(one)), disk(sorted(apart)))
    assert fresh.tolist() == [page for page in dict.fromkeys(numbers) if page not in one | apart]


@pytest.mark.parametrize("page", [-1, MOST_PAGES])
def test_pages_that_no_disk_has_are_refused(page: int) -> None:
    with pytest.raises(PresetError, match=str(page)):
        first_of_each(disk([3, page]))


class PlainMemory:
    """What `PageCache` says of itself, one page after the other."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.anonymous = capacity, 0
        self.mapped: list[int] = []
        self.read_pages: list[int] = []
        self.prefetched: list[int] = []

    @property
    def cached(self) -> list[int]:
        return self.read_pages[::-1] + self.prefetched

    @property
    def free(self) -> int:
        return self.capacity - self.anonymous - len(self.mapped) - len(self.cached)

    def forget(self, page: int) -> None:
        self.read_pages = [each for each in self.read_pages if each != page]
        self.prefetched = [each for each in self.prefetched if each != page]

    def make_room(self) -> bool:
        if self.free == 0 and self.prefetched:
            self.prefetched.pop()
        elif self.free == 0 and self.read_pages:
            self.read_pages.pop(0)
        return self.free > 0

    def demand(self, number: int) -> None:
        for _ in range(number):
            if not self.make_room():
                raise MemoryError
            self.anonymous += 1

    def map(self, numbers: list[int]) -> None:
        for page in numbers:
            if page not in self.mapped:
                self.forget(page)
                if not self.make_room():
                    raise MemoryError
                self.mapped.append(page)

    def read(self, numbers: list[int]) -> None:
        for page in numbers:
            if page not in self.mapped:
                self.forget(page)
                if self.make_room():
                    self.read_pages.append(page)

    def prefetch(self, numbers: list[int], most: int) -> list[int]:
        brought: list[int] = []
        for page in numbers:
            if len(brought) < most and self.free > 0 and page not in self.mapped + self.cached:
                self.prefetched.append(page)
                brought.append(page)
        return brought

    def copy(self) -> PlainMemory:
        other = PlainMemory(self.capacity)
        other.anonymous, other.mapped = self.anonymous, list(self.mapped)
        other.read_pages, other.prefetched = list(self.read_pages), list(self.prefetched)
        return other


class MemoryAgainstPlainOne(RuleBasedStateMachine):
    """Whatever happens to a guest's memory, in any order."""

    @initialize(capacity=st.integers(0, 14))
    def start(self, capacity: int) -> None:
        self.memory, self.plain = PageCache(capacity), PlainMemory(capacity)

    def both(self, real: Callable[[], None], change: Callable[[PlainMemory], None]) -> None:
        """Do it to both; what is impossible is so for both, and changes nothing."""
        tried = self.plain.copy()
        try:
            change(tried)
        except MemoryError:
            with pytest.raises(BudgetError, match="demand"):
                real()
        else:
            real()
            self.plain = tried

    @rule(number=counts)
    def demand(self, number: int) -> None:
        free, cached = self.memory.free, self.memory.cached.tolist()
        self.both(lambda: self.memory.demand(number), lambda plain: plain.demand(number))
        given_up = len(cached) - self.memory.cached_count
        assert self.memory.cached.tolist() == cached[: len(cached) - given_up]
        assert given_up in {0, number - free}

    @rule(number=counts)
    def release(self, number: int) -> None:
        if number > self.plain.anonymous:
            with pytest.raises(BudgetError, match="give back"):
                self.memory.release(number)
        else:
            self.memory.release(number)
            self.plain.anonymous -= number

    @rule(numbers=page_lists)
    def map(self, numbers: list[int]) -> None:
        self.both(lambda: self.memory.map(disk(numbers)), lambda plain: plain.map(numbers))

    @rule(numbers=page_lists)
    def read(self, numbers: list[int]) -> None:
        held = self.memory.used, self.memory.resident.tolist()
        self.memory.read(disk(numbers))
        self.plain.read(numbers)
        assert (self.memory.used, self.memory.resident.tolist()) == held

    @rule(numbers=page_lists, most=counts)
    def prefetch(self, numbers: list[int], most: int) -> None:
        used, free, cached = self.memory.used, self.memory.free, self.memory.cached.tolist()
        brought = self.memory.prefetch(disk(numbers), most).tolist()
        assert brought == self.plain.prefetch(numbers, most)
        assert self.memory.cached.tolist() == cached + brought
        assert (self.memory.used, self.memory.free) == (used, free - len(brought))

    @invariant()
    def every_page_is_counted_once(self) -> None:
        memory = self.memory
        assert memory.free + memory.used + memory.cached_count == memory.capacity
        assert min(memory.free, memory.used, memory.cached_count) >= 0
        held = [*memory.cached.tolist(), *memory.resident.tolist()]
        assert len(set(held)) == len(held)

    @invariant()
    def both_hold_the_same(self) -> None:
        assert self.memory.cached.tolist() == self.plain.cached
        assert self.memory.resident.tolist() == self.plain.mapped
        assert (self.memory.free, self.memory.cached_count) == (self.plain.free, len(self.plain.cached))


TestMemory = MemoryAgainstPlainOne.TestCase


@given(page_lists, page_lists, st.integers(4, 20), counts, counts)
def test_a_larger_budget_prefetches_the_same_and_more(
    numbers: list[int], read: list[int], capacity: int, one: int, other: int
) -> None:
    less, more = sorted((one, other))
    brought = []
    for most in (less, more):
        memory = PageCache(capacity, used=4)
        memory.read(disk(read))
        brought.append(memory.prefetch(disk(numbers), most).tolist())
    assert brought[1][: len(brought[0])] == brought[0]
    assert len(brought[0]) <= less


def test_more_used_than_there_is() -> None:
    with pytest.raises(BudgetError, match="demand 9 pages, and 8 of 8 are free"):
        PageCache(8, used=9)


@pytest.mark.parametrize(
    "change",
    [
        lambda memory: memory.demand(-1),
        lambda memory: memory.release(-1),
        lambda memory: memory.prefetch(disk([1]), -1),
        lambda _: PageCache(-1),
    ],
)
def test_fewer_than_no_pages(change: Callable[[PageCache], None]) -> None:
    memory = PageCache(8, used=3)
    with pytest.raises(BudgetError, match="at least 0"):
        change(memory)
    assert (memory.free, memory.used, memory.cached_count) == (5, 3, 0)


def plain_weight(uses: list[int], hour: int) -> int:
    total = 0
    for at, count in enumerate(uses):
        if at == hour:
            total += 64 * count
        elif at in {(hour - 1) % HOURS, (hour + 1) % HOURS}:
            total += 32 * count
        elif at % 24 == hour % 24:
            total += 16 * count
        else:
            total += count
    return total


@st.composite
def usages(draw: st.DrawFn) -> tuple[UsageHistory, list[list[int]]]:
    programs = draw(st.integers(0, 4))
    uses = np.zeros((programs, HOURS), np.int64)
    cells = st.tuples(st.integers(0, max(programs - 1, 0)), hours, st.integers(1, 3))
    for program, hour, count in draw(st.lists(cells, max_size=8 if programs else 0)):
        uses[program, hour] = count
    return UsageHistory(uses), draw(st.lists(page_lists, min_size=programs, max_size=programs))


@given(usages(), hours, st.one_of(st.none(), page_lists))
def test_superfetch_puts_what_is_most_wanted_first(
    usage: tuple[UsageHistory, list[list[int]]], hour: int, rest: list[int] | None
) -> None:
    history, files = usage
    assert history.wanted(hour).tolist() == [plain_weight(uses, hour) for uses in history.uses.tolist()]
    weights: Counter[int] = Counter()
    for uses, numbers in zip(history.uses.tolist(), files, strict=True):
        for page in dict.fromkeys(numbers):
            weights[page] += plain_weight(uses, hour)
    expected = [page for page in sorted(weights, key=lambda page: -weights[page]) if weights[page]]
    expected += [page for page in dict.fromkeys(rest or []) if page not in expected]
    superfetch = SuperFetch(history, [disk(each) for each in files], None if rest is None else disk(rest))
    assert superfetch.order(hour).tolist() == expected


@pytest.mark.parametrize(
    ("used", "hour", "weight"),
    [(5, 5, 64), (0, 167, 32), (167, 0, 32), (5, 4, 32), (5, 6, 32), (5, 149, 16), (149, 5, 16), (5, 7, 1)],
)
def test_a_week_ends_where_it_begins(used: int, hour: int, weight: int) -> None:
    uses = np.zeros((1, HOURS), np.int64)
    uses[0, used] = 1
    assert UsageHistory(uses).wanted(hour).tolist() == [weight]


def drawn_superfetch(vm: Draws, diversity: int) -> SuperFetch:
    files = [np.arange(program * 10, program * 10 + 14) for program in range(40)]
    return SuperFetch(draw_history(40, TEMPLATE, vm, diversity), files)


def test_superfetch_orders_the_same_pages_anew_with_the_hour() -> None:
    superfetch = drawn_superfetch(VM, 300)
    orders = [superfetch.order(hour).tolist() for hour in (2, 10, 20)]
    assert all(sorted(order) == list(range(404)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_superfetch_fills_free_memory_in_its_order() -> None:
    superfetch, memory = drawn_superfetch(VM, 300), PageCache(300, used=50)
    order = superfetch.order(10).tolist()
    memory.map(disk(order[:30]))
    assert superfetch.prefetch(memory, 10, most=100).tolist() == order[30:130]
    assert superfetch.prefetch(memory, 10, most=1_000).tolist() == order[130:250]
    assert memory.cached.tolist() == order[30:250]
    assert memory.free == 0


def test_vms_of_a_template_are_used_alike_with_diversity_0_alone() -> None:
    orders = [
        [drawn_superfetch(vm, diversity).order(10).tolist() for vm in (VM, OTHER_VM)]
        for diversity in (0, 100, 1_000)
    ]
    assert orders[0][0] == orders[0][1]
    assert orders[1][0] != orders[1][1]
    assert orders[2][0] != orders[2][1]
    # Both ends are one history each, and nothing of the other.
    own = draw_history(40, TEMPLATE, VM, 1_000).uses
    assert own.tolist() == draw_history(40, Draws.of("template", 2), VM, 1_000).uses.tolist()
    assert own.tolist() == draw_history(40, VM, TEMPLATE, 0).uses.tolist()
    # Anything between is their weighted mean, rounded down.
    common = draw_history(40, TEMPLATE, VM, 0).uses
    rest = common * 667 + own * 333 - draw_history(40, TEMPLATE, VM, 333).uses * 1_000
    assert rest.min() >= 0
    assert rest.max() < 1_000


def test_the_more_diverse_the_farther_apart() -> None:
    common = draw_history(40, TEMPLATE, VM, 0).uses
    apart = [
        int(np.abs(draw_history(40, TEMPLATE, VM, diversity).uses - common).sum())
        for diversity in (0, 1, 10, 100, 500, 999, 1_000)
    ]
    assert all(less < more for less, more in pairwise(apart))


def test_few_programs_are_used_most_and_each_in_its_time() -> None:
    uses = draw_history(200, TEMPLATE, VM).uses
    totals = np.sort(uses.sum(axis=1))[::-1]
    assert totals[:20].sum() > totals[20:].sum()
    assert totals[-1] > 0
    hours = np.arange(HOURS)
    office = (hours < 120) & (hours % 24 >= 8) & (hours % 24 < 18)
    night = hours % 24 < 5
    shares = [uses[:, times].sum(axis=1) / uses.sum(axis=1) for times in (office, night)]
    assert (shares[0] > 0.8).sum() > 50
    assert (shares[1] > 0.5).sum() > 10
    assert ((shares[0] < 0.35) & (shares[1] < 0.3)).sum() > 50


def test_what_is_used_more_runs_more() -> None:
    history = draw_history(30, TEMPLATE, VM)
    running = draw_running(history, 3, VM)
    assert running.shape == (3 * HOURS, 30)
    halved = history.uses.copy()
    halved[1:] //= 2
    halved[0, :2] = history.uses.max(), 0
    less = draw_running(UsageHistory(halved), 3, VM)
    assert not (less[:, 1:] & ~running[:, 1:]).any()
    assert less[:, 1:].sum() < running[:, 1:].sum()
    assert not less[1::HOURS, 0].any()
    assert (running[:HOURS] != running[HOURS : 2 * HOURS]).any()


def test_a_program_runs_with_the_odds_of_its_uses() -> None:
    uses = np.zeros((3, HOURS), np.int64)
    uses[0, 0], uses[1], uses[2] = 1_600, 100, 300
    ran = draw_running(UsageHistory(uses), 100, VM).mean(axis=0)
    # 100 against 100, 300 against 100; 16,800 drawings have a standard deviation of at most 0.004.
    assert ran[1:] == pytest.approx([0.5, 0.75], abs=0.02)


@pytest.mark.parametrize(
    ("uses", "told"),
    [
        (np.zeros((3, 24), np.int64), "shape"),
        (np.zeros(HOURS, np.int64), "shape"),
        (np.full((1, HOURS), -1), "from -1"),
        (np.full((1, HOURS), MOST_USES + 1), str(MOST_USES + 1)),
    ],
)
def test_a_history_that_is_none(uses: NDArray[np.int64], told: str) -> None:
    with pytest.raises(PresetError, match=told):
        UsageHistory(uses)


@pytest.mark.parametrize("hour", [-1, HOURS])
def test_an_hour_that_no_week_has(hour: int) -> None:
    with pytest.raises(PresetError, match=f"hour {hour}"):
        drawn_superfetch(VM, 0).order(hour)


@pytest.mark.parametrize(("programs", "diversity"), [(3, -1), (3, 1_001), (-1, 0)])
def test_a_history_that_cannot_be_drawn(programs: int, diversity: int) -> None:
    with pytest.raises(PresetError, match=r"parts per 1,000|programs"):
        draw_history(programs, TEMPLATE, VM, diversity)


def test_a_history_of_other_programs() -> None:
    with pytest.raises(PresetError, match="3 programs, and files are of 1"):
        SuperFetch(draw_history(3, TEMPLATE, VM), [disk([1])])


observations = st.integers(0, 4).flatmap(
    lambda programs: st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=programs, max_size=programs), st.sampled_from([1, 20, 3600])
        ),
        min_size=1,
        max_size=12,
    )
)
Observed = list[tuple[list[bool], int]]


def observed(seen: Observed) -> PairChains:
    chains = PairChains(len(seen[0][0]))
    for running, seconds in seen:
        chains.observe(np.array(running, np.bool_), seconds)
    return chains


class PlainPair:
    """A pair of programs, observation by observation."""

    def __init__(self, seen: Observed, other: int, one: int) -> None:
        self.stayed: Counter[tuple[bool, bool]] = Counter()
        self.moves: Counter[tuple[tuple[bool, bool], tuple[bool, bool]]] = Counter()
        last = None
        for running, seconds in seen:
            now = running[other], running[one]
            self.stayed[now] += seconds
            if last is not None and last != now:
                self.moves[last, now] += 1
            last = now

    def starts(self, now: tuple[bool, bool], soon: int) -> float:
        left = sum(count for (before, _), count in self.moves.items() if before == now)
        to_start = sum(count for (before, after), count in self.moves.items() if before == now and after[1])
        if not left:
            return 0.0
        rate = left / self.stayed[now]
        return rate * soon / (1 + rate * soon) * to_start / left

    def correlation(self) -> float:
        drawn = [state for state, seconds in self.stayed.items() for _ in range(seconds)]
        columns = [[float(state[which]) for state in drawn] for which in (0, 1)]
        return 0.0 if any(len(set(each)) < 2 for each in columns) else statistics.correlation(*columns)


@given(observations)
def test_chains_count_what_each_pair_did(seen: Observed) -> None:
    chains = observed(seen)
    states = [(False, False), (True, False), (False, True), (True, True)]
    programs = range(chains.programs)
    for other, one in [(other, one) for other in programs for one in programs]:
        plain = PlainPair(seen, other, one)
        assert chains.stayed[other, one].tolist() == [plain.stayed[state] for state in states]
        assert chains.moves[other, one].tolist() == [
            [plain.moves[before, after] for after in states] for before in states
        ]
    assert chains.elapsed == sum(seconds for _, seconds in seen)
    assert chains.ran.tolist() == [
        sum(seconds for running, seconds in seen if running[at]) for at in programs
    ]


@given(observations, st.integers(0, 12))
def test_periods_can_be_observed_one_by_one_or_together(seen: Observed, cut: int) -> None:
    rows = np.array([running for running, _ in seen], np.bool_)
    together = PairChains(rows.shape[1])
    together.observe(rows[:cut], 20)
    together.observe(rows[:0], 20)
    together.observe(rows[cut:], 20)
    one_by_one = observed([(running, 20) for running, _ in seen])
    for name in ("stayed", "moves", "ran"):
        assert getattr(together, name).tolist() == getattr(one_by_one, name).tolist()
    assert together.elapsed == one_by_one.elapsed


@given(observations, st.data())
def test_probabilities_are_those_of_all_pairs(seen: Observed, data: st.DataObject) -> None:
    seen = [(running, min(seconds, 60)) for running, seconds in seen]
    programs = len(seen[0][0])
    now = data.draw(st.lists(st.booleans(), min_size=programs, max_size=programs))
    maps = [data.draw(st.lists(st.integers(0, 2), max_size=3)) for _ in range(programs)]
    numbers = [data.draw(page_lists) for _ in range(3)]
    preload = Preload([disk(each) for each in maps], [disk(each) for each in numbers])
    for running, seconds in seen:
        preload.observe(np.array(running, np.bool_), seconds)
    expected = []
    for one in range(programs):
        misses = 1.0
        for other in set(range(programs)) - {one}:
            pair = PlainPair(seen, other, one)
            misses *= 1 - pair.starts((now[other], now[one]), 20) * abs(pair.correlation())
        expected.append(0.0 if now[one] else 1 - misses)
    running_now = np.array(now, np.bool_)
    probabilities = preload.probabilities(running_now)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert probabilities.tolist() == pytest.approx(expected, abs=1e-9)

    needed = []
    for number in range(3):
        misses = 1.0
        for program in range(programs):
            misses *= 1 - expected[program] if number in maps[program] else 1.0
        in_use = any(now[program] and number in maps[program] for program in range(programs))
        needed.append(0.0 if in_use else (1 - misses) * ONE)
    needs = preload.needs(running_now).tolist()
    assert needs == pytest.approx(needed, abs=0.5 + 1e-3)
    in_order = sorted((number for number in range(3) if needs[number]), key=lambda number: -needs[number])
    wanted = dict.fromkeys(page for number in in_order for page in numbers[number])
    assert preload.order(running_now).tolist() == list(wanted)


def episodes(followed: int, alone: int, bystander: int) -> Preload:
    """Observe program 0 start some times, followed by 1 in some of them; 2 comes and goes by itself."""
    preload = Preload([disk([0]), disk([1]), disk([2])], [disk([7]), disk([8]), disk([9])])
    for number in range(followed + alone):
        second = number < followed
        beside = number % bystander == 0
        for running in ([False] * 3, [True, False, beside], [True, second, False], [False] * 3):
            preload.observe(np.array(running), 60)
    return preload


@given(st.integers(1, 20), st.integers(2, 4))
def test_what_always_follows_a_program_that_runs_comes_first(times: int, bystander: int) -> None:
    preload = episodes(times, 0, bystander)
    # Program 2 is there half as often as 1 at most, and starts without regard to it.
    assert preload.order(np.array([True, False, False])).tolist()[0] == 8


@given(st.integers(0, 12), st.integers(0, 12))
def test_the_oftener_it_followed_the_more_probable(one: int, other: int) -> None:
    less, more = sorted((one, other))
    now = np.array([True, False, False])
    found = [episodes(followed, 12 - followed, 13).probabilities(now)[1] for followed in (less, more)]
    assert found[0] <= found[1]
    assert (found[0] < found[1]) == (less < more)
    assert (found[0] > 0) == (less > 0)


def test_what_nothing_was_learnt_of_is_not_prefetched() -> None:
    preload = Preload([disk([0]), disk([1])], [disk([7]), disk([8])])
    assert preload.order(np.array([True, False])).tolist() == []
    preload.observe(np.array([True, False]), 60)
    assert preload.order(np.array([True, False])).tolist() == []


@given(
    st.integers(-100, 100),
    st.integers(-100, 100),
    st.integers(-100, 100),
    st.tuples(*[st.integers(0, 99)] * 3),
)
def test_shares_of_memory(total: int, free: int, cached: int, memory: tuple[int, int, int]) -> None:
    most = MemoryShares(total, free, cached).most(*memory)
    of_free = max(0.0, (memory[0] * total + memory[1] * free) / 100)
    assert 0 <= max(0.0, of_free + memory[2] * cached / 100) - most < 1
    assert most >= 0


@cache
def large_preload() -> Preload:
    """Learn once for all examples, since nothing is learnt by prefetching."""
    files = [np.arange(program * 10, program * 10 + 14) for program in range(40)]
    preload = Preload([disk([program]) for program in range(40)], files)
    preload.observe(draw_running(draw_history(40, TEMPLATE, VM), 4, VM), 3600)
    return preload


@given(st.integers(0, 8), st.integers(10, 600), st.integers(0, 10))
def test_cycles_together_read_ahead_what_one_after_the_other_does(
    cycles: int, capacity: int, used: int
) -> None:
    preload, now = large_preload(), np.arange(40) % 7 == 0
    one, other = PageCache(capacity, used), PageCache(capacity, used)
    together = preload.prefetch(one, now, cycles).tolist()
    apart = [page for _ in range(cycles) for page in preload.prefetch(other, now).tolist()]
    assert together == apart == preload.order(now).tolist()[: len(apart)]
    assert one.cached.tolist() == other.cached.tolist() == apart
    # By default a fifth of all memory stays free.
    assert one.free >= min(capacity - used, capacity // 5)


def test_preload_reads_ahead_nothing_that_runs() -> None:
    preload, now = large_preload(), np.arange(40) % 7 == 0
    order = preload.order(now).tolist()
    assert len(order) > 200
    assert len(set(order)) == len(order)
    # The middle of what a program maps is mapped by no other.
    assert not {int(program) * 10 + 7 for program in np.flatnonzero(now)} & set(order)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Preload([disk([2])], [disk([7])]), "program 0 uses maps 2 to 2, and there are 1"),
        (lambda: Preload([disk([0])], [disk([7])], cycle=0), "cycle of 0"),
        (lambda: MemoryShares(free=101), "101 per cent"),
        (lambda: PairChains(2).observe(np.zeros(2, np.bool_), 0), "0 seconds"),
        (lambda: PairChains(2).observe(np.zeros(3, np.bool_), 1), "3 programs, and there are 2"),
        (lambda: PairChains(2).starts(np.zeros(3, np.bool_), 1), "3 programs, and there are 2"),
    ],
)
def test_what_cannot_be_modelled(build: Callable[[], object], told: str) -> None:
    with pytest.raises(PresetError, match=told):
        build()
