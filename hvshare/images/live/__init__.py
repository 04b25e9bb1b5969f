"""Running guests and processes."""
