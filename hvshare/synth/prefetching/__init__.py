"""What fills a guest's free memory with pages of its disk, what it goes by, and the memory that it fills."""
