"""The kernel as oracle: have KSM merge memory, and hold its counters against the prediction."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hvshare.caveats import Caveat
from hvshare.errors import EmptyImageError, ResourceError
from hvshare.sharing.ksm import KsmCounters, predict
from hvshare.sharing.ksm_result import JUDGED, KsmCheck, KsmRun
from hvshare.sharing.ksm_settings import ACCOUNT, KsmFolder, SettingsGuardian, clear_chains
from hvshare.sharing.ksm_users import check_unused, ksm_stat
from hvshare.units import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hvshare.sharing.ksm_memory import MergeableMemory

_COUNTERS: Final = tuple(KsmCounters.__dataclass_fields__)
_GLOBAL: Final = (*_COUNTERS, "general_profit")
_OWN: Final = ("ksm_merging_pages", "ksm_rmap_items", "ksm_zero_pages", "ksm_process_profit")
# Batches of a tenth of a second at the most, so that ksmd stops soon when it is told to.
_PAGES_TO_SCAN: Final = 20_000
_LEAST_SCANS: Final = 4
_MOST_SCANS: Final = 24
_PROC: Final = Path("/proc")


def check_ready(folder: KsmFolder) -> None:
    """Make sure that this machine can be asked, before anything is read.

    Raises
    ------
    ResourceError
        If it has no KSM, pages of another size, KSM is in use, or the user may not change its settings.
    """
    if not folder.has("run"):
        raise ResourceError(
            "this kernel has no KSM", path=str(folder.path), advice="use Linux with CONFIG_KSM"
        )
    if os.sysconf("SC_PAGE_SIZE") != PAGE_SIZE:
        raise ResourceError(
            f"pages of this machine have {os.sysconf('SC_PAGE_SIZE'):,} bytes",
            advice=f"check on a machine with pages of {PAGE_SIZE:,} bytes",
        )
    if os.geteuid() or not os.access(folder.path / "run", os.W_OK):
        raise ResourceError(
            "only root may change the settings of KSM", path=str(folder.path), advice="run it with sudo"
        )
    check_unused(folder)


def check_with_kernel(
    memory: MergeableMemory,
    folder: KsmFolder,
    *,
    use_zero_pages: Sequence[bool],
    max_page_sharing: int | None = None,
    further_caveats: Sequence[Caveat] = (),
    tell: Callable[[str], None] | None = None,
) -> KsmCheck:
    """Have KSM merge memory, and compare its counters with the prediction.

    Parameters
    ----------
    memory : MergeableMemory
        Filled with the images.
    folder : KsmFolder
        The settings; they are put back whatever happens.
    use_zero_pages : sequence of bool
        The settings of that name to check with.
    max_page_sharing : int, optional
        The setting of that name; as it is by default.
    further_caveats : sequence of Caveat
        Facts that are known to the caller.
    tell : callable, optional
        Receives what is done.

    Raises
    ------
    EmptyImageError
        If no page of the images is known.
    ResourceError
        If KSM is in use by others, or the kernel refuses something.
    """
    if not memory.pages:
        raise EmptyImageError("none of the images holds a page", advice="take a full dump")
    copies, zero_pages = memory.copies(), memory.zero_pages
    lock = folder.lock()
    try:
        check_unused(folder)
        with SettingsGuardian(folder, (lock,)) as guardian, memory:
            limit = max_page_sharing or folder.count("max_page_sharing")
            _set_up(folder, guardian.found, limit)
            runs: list[KsmRun] = []
            # Zero pages last: older kernels do not undo what use_zero_pages has merged.
            for uses in sorted(set(use_zero_pages)):
                if tell:
                    tell(f"ksmd merges {memory.pages:,} pages with use_zero_pages {int(uses)}")
                if runs:
                    memory.withdraw()
                    _forget(folder)
                predicted = predict(copies, zero_pages, use_zero_pages=uses, max_page_sharing=limit)
                runs.append(_run(memory, folder, predicted, uses=uses))
    finally:
        os.close(lock)
    caveats = (*memory.caveats, *further_caveats, *_caveats(runs))
    return KsmCheck(os.uname().release, limit, tuple(memory.images), tuple(runs), caveats)


def _set_up(folder: KsmFolder, found: Mapping[str, str], max_page_sharing: int) -> None:
    """Choose settings under which KSM counts what the prediction is about, and hurries."""
    wanted: dict[str, str | int] = {
        "advisor_mode": "none",
        "max_page_sharing": max_page_sharing,
        "merge_across_nodes": 1,
        "smart_scan": 0,  # pages that it skips are counted as volatile
        "pages_to_scan": _PAGES_TO_SCAN,
        "sleep_millisecs": 0,
    }
    for name, value in wanted.items():
        if name in found and found[name] != str(value):
            folder.write(name, value)


def _run(memory: MergeableMemory, folder: KsmFolder, predicted: KsmCounters, *, uses: bool) -> KsmRun:
    if folder.has("use_zero_pages"):
        folder.write("use_zero_pages", int(uses))
    first, scanned, worked = folder.count("full_scans"), folder.number("pages_scanned"), _ksmd_seconds()
    memory.offer()
    folder.write("run", 1)
    settled = settle(folder, first)
    # Stopped, it is between two pages; otherwise one of them may be in no count.
    folder.write("run", 0)
    actual = {name: value for name in _GLOBAL if (value := folder.number(name)) is not None}
    stat = ksm_stat()
    return KsmRun(
        uses,
        predicted,
        actual,
        {name: int(stat[name]) for name in _OWN if name in stat},
        folder.count("full_scans") - first,
        None if scanned is None else folder.count("pages_scanned") - scanned,
        None if worked is None else (_ksmd_seconds() or worked) - worked,
        settled,
    )


def settle(folder: KsmFolder, first: int) -> bool:
    """Wait until full scans change nothing any more, and tell whether that came in time.

    Parameters
    ----------
    folder : KsmFolder
        The settings and counters.
    first : int
        ``full_scans`` when ksmd was told to go.

    Returns
    -------
    bool
        False if counters changed between two looks of which the first came after 24 full scans: memory that
        nobody writes to has long settled by then (see `ksm_scan`). How many scans pass between two looks says
        nothing, since a busy machine lets ksmd work and this process wait.

    Raises
    ------
    ResourceError
        If somebody else stops ksmd.
    """
    seen, before = first, None
    while True:
        time.sleep(0.005)
        if folder.text("run") != "1":
            raise ResourceError(
                "somebody else has stopped ksmd", path=str(folder.path), advice="end ksmtuned, for example"
            )
        scans = folder.count("full_scans")
        if scans == seen:
            continue
        now = [folder.count(name) for name in (*JUDGED, "stable_node_dups")]
        if before is not None:
            if now == before and scans - first >= _LEAST_SCANS:
                return True
            if now != before and seen - first >= _MOST_SCANS:
                return False
        seen, before = scans, now


def _forget(folder: KsmFolder) -> None:
    """Have ksmd forget memory that may not be merged any more, before it is offered again."""
    first = folder.count("full_scans")
    folder.write("run", 1)
    while any(map(folder.count, ACCOUNT)) and folder.count("full_scans") < first + _LEAST_SCANS:
        time.sleep(0.005)
    folder.write("run", 0)
    clear_chains(folder)


def _ksmd_seconds() -> float | None:
    """Tell the processor time that ksmd has taken so far."""
    for process in _PROC.glob("[0-9]*"):
        try:
            # The name, in brackets, comes second; times in user and kernel mode are fields 14 and 15.
            name, _, fields = (process / "stat").read_text(errors="replace").rpartition(")")
        except OSError:  # it has ended
            continue
        if name.endswith(" (ksmd"):
            user, system = fields.split()[11:13]
            return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return None


def _caveats(runs: Sequence[KsmRun]) -> Iterator[Caveat]:
    for run in runs:
        others = (
            run.actual["pages_shared"] + run.actual["pages_sharing"] - run.own.get("ksm_merging_pages", 0)
        )
        if "ksm_merging_pages" in run.own and others:
            yield Caveat(
                "ksm-others-merged",
                f"with use_zero_pages {int(run.use_zero_pages)}, {others:,} of the pages that KSM counts as "
                "merged are of other processes",
                "check again when nobody else uses KSM",
            )
        if not run.settled:
            yield Caveat(
                "ksm-not-settled",
                f"with use_zero_pages {int(run.use_zero_pages)}, counters still changed after "
                f"{run.full_scans:,} full scans",
                "check again when the machine has memory to spare and nobody else uses KSM",
            )
