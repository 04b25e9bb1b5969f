"""Experiments with guests made to order."""
