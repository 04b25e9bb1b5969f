"""64-bit Windows crash dumps."""
