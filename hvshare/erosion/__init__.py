"""What takes sharing away: large pages, ASLR and prefetching."""
