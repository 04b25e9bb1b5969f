"""How long ksmd takes, and how fast it has to be told to go.

Source: Linux, ``mm/ksm.c``. ksmd looks at ``pages_to_scan`` pages, sleeps for ``sleep_millisecs``, and so on.
The batch that comes to the end of the last process ends there, so a full scan of n pages takes n //
pages_to_scan + 1 batches. When ksmd first sees a page it notes a checksum. Only a page that has the same
checksum in the next scan is compared with others and merged. So after one full scan nothing is merged, and
memory that nobody writes to has settled after two; a third one only drops the account of zero pages. Smart
scanning skips no page before its fourth scan.

What is told here is the time that ksmd sleeps, which is the least that it can take. What it works comes on
top, and depends on the processor; `hvshare ksm-check` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_PAGES_TO_SCAN: Final = 100
DEFAULT_SLEEP_MILLISECS: Final = 20

SETTLING_SCANS: Final = 2
"""Full scans after which pages that nobody writes to are merged."""


@dataclass(frozen=True)
class KsmScan:
    """What a full scan takes at some settings.

    Attributes
    ----------
    pages : int
        Pages to look at: all memory that is marked with MADV_MERGEABLE and was touched, zero pages too.
    pages_to_scan, sleep_millisecs : int
        The kernel's settings of these names.
    one_scan_seconds, two_scans_seconds : float
        The least time from the first page until ``full_scans`` is higher by one and by two: that asleep.
    within_seconds : float or None
        The time in which the user wants two full scans.
    wanted_pages_to_scan : int or None
        The least ``pages_to_scan`` that leaves so little sleep; None if none does, or nothing is wanted.
    """

    pages: int
    pages_to_scan: int
    sleep_millisecs: int
    one_scan_seconds: float
    two_scans_seconds: float
    within_seconds: float | None = None
    wanted_pages_to_scan: int | None = None


def plan_scan(
    pages: int,
    *,
    pages_to_scan: int = DEFAULT_PAGES_TO_SCAN,
    sleep_millisecs: int = DEFAULT_SLEEP_MILLISECS,
    within_seconds: float | None = None,
) -> KsmScan:
    """Tell how long ksmd takes, and the setting that would take no longer than wanted.

    Parameters
    ----------
    pages : int
        Pages to look at.
    pages_to_scan, sleep_millisecs : int
        The kernel's settings, with its defaults.
    within_seconds : float, optional
        Time in which two full scans should be done.

    Examples
    --------
    >>> scan = plan_scan(1 << 20, within_seconds=60)
    >>> round(scan.one_scan_seconds), round(scan.two_scans_seconds), scan.wanted_pages_to_scan
    (210, 419, 700)
    """
    return KsmScan(
        pages,
        pages_to_scan,
        sleep_millisecs,
        asleep_seconds(pages, 1, pages_to_scan=pages_to_scan, sleep_millisecs=sleep_millisecs),
        asleep_seconds(pages, 2, pages_to_scan=pages_to_scan, sleep_millisecs=sleep_millisecs),
        within_seconds,
        None if within_seconds is None else least_pages_to_scan(pages, within_seconds, sleep_millisecs),
    )


def asleep_seconds(pages: int, scans: int, *, pages_to_scan: int, sleep_millisecs: int) -> float:
    """Tell how long ksmd sleeps during some full scans.

    Examples
    --------
    >>> asleep_seconds(1000, 1, pages_to_scan=100, sleep_millisecs=20)
    0.2
    """
    if not pages:
        return 0.0
    return (scans * (pages // pages_to_scan + 1) - 1) * sleep_millisecs / 1000


def least_pages_to_scan(
    pages: int, seconds: float, sleep_millisecs: int, scans: int = SETTLING_SCANS
) -> int | None:
    """Find the least ``pages_to_scan`` with which ksmd sleeps no longer than wanted.

    Parameters
    ----------
    pages : int
        Pages to look at.
    seconds : float
        Time for all scans.
    sleep_millisecs : int
        The kernel's setting.
    scans : int
        Full scans to be done.

    Returns
    -------
    int or None
        None if even with one batch a scan it would sleep longer: then `sleep_millisecs` has to be less.

    Examples
    --------
    >>> least_pages_to_scan(1 << 20, 60, 20), least_pages_to_scan(1 << 20, 0.01, 20)
    (700, None)
    """
    if not pages:
        return 1
    if not sleep_millisecs:
        return 1
    # Half a microsecond makes up for what binary fractions lose.
    sleeps = int((seconds * 1000 + 5e-4) / sleep_millisecs)
    batches = (sleeps + 1) // scans
    return pages // batches + 1 if batches else None
