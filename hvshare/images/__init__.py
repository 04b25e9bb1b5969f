"""What a guest's memory is, and the formats that store it."""
