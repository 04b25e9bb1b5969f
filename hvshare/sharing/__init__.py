"""Digests to the counts of page sharing."""
