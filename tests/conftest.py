"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Machines are shared: how long an example takes says nothing about it. With 40 examples a property, where a
# test does not ask for another number, all tests take less than five minutes on two slow processors.
settings.register_profile("hvshare", deadline=None, max_examples=40)
settings.load_profile("hvshare")
