"""Time travel: states, differences and histories at any moment, and the snapshots that make them cheap."""
