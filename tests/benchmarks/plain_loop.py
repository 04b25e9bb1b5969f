"""What a person would write in a minute: hash each page of a file and count in a dictionary."""

from __future__ import annotations

import sys
from functools import partial

from xxhash import xxh3_64_intdigest


def main() -> None:
    """Tell how many pages a file has and how many contents."""
    copies: dict[int, int] = {}
    with open(sys.argv[1], "rb") as file:
        for page in iter(partial(file.read, 4096), b""):
            digest = xxh3_64_intdigest(page)
            copies[digest] = copies.get(digest, 0) + 1
    sys.stdout.write(f"{sum(copies.values())} pages, {len(copies)} contents\n")


if __name__ == "__main__":
    main()
