"""Real programs and libraries, mapped as a loader does and relocated by their own relocation tables."""
