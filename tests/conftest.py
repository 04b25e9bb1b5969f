"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Machines are shared: how long an example takes says nothing about it. With 60 examples a property, where a
# test does not ask for another number, all tests take three minutes on two processors instead of four.
settings.register_profile("hvshare", deadline=None, max_examples=60)
settings.load_profile("hvshare")
