"""How Hypothesis runs here."""

from __future__ import annotations

from hypothesis import settings

# A machine that is busy with other tests is slow, not wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
