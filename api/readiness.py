"""That the service cannot work now, and why."""

from __future__ import annotations


class NotReadyError(Exception):
    """Dependencies that the service cannot do without are not there. ``states``: each one by name."""

    def __init__(self, states: dict[str, str]) -> None:
        super().__init__("dependencies are not there")
        self.states = states
