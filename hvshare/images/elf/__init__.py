"""ELF cores: of guests, of processes, of Xen domains."""
