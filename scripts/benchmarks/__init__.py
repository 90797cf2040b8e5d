"""Measurements that back the numbers in the documentation.

Each module beside ``frame`` has ``run(report: Report) -> None``. What it says is always a ratio of two things that were
measured in turns in one run: a time alone says more about the machine than about the ledger.
"""
