"""Pages to digests."""
