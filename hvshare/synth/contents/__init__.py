"""What pages of guests hold: each follows from its kind, its key, and where what it points to lies."""
