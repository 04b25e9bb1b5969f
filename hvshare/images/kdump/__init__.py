"""kdump-compressed dumps, and the flattened layout of makedumpfile."""
