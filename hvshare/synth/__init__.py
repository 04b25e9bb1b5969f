"""Guests made to order, with every factor a switch."""
