"""The key vault: the separate store of keys and names.

Knows subjects and keys, knows nothing of events, and imports neither ``ledger`` nor ``api``. Start at
:func:`keyvault.opening.open_vault`; what the ledger relies on is written in ``ledger/ports``.
"""
