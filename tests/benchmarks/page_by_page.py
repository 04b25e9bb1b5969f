"""Read a dump page by page with libkdumpfile's bindings for Python, which come with Debian's own Python."""

from __future__ import annotations

import sys


def main() -> None:
    """Read as many pages as the second argument says from the dump that the first one names."""
    # Not at the top: it is missing where tests look for examples in this module.
    from kdumpfile import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        KDUMP_MACHPHYSADDR,
        kdumpfile,
    )

    dump = kdumpfile(sys.argv[1])
    for gfn in range(int(sys.argv[2])):
        dump.read(KDUMP_MACHPHYSADDR, gfn * 4096, 4096)


if __name__ == "__main__":
    main()
