"""The restore guard's half that sees vault and ledgers together: what does not fit, and how it is mended.

``looking`` tells whether anything came back from an older copy. ``mending`` does again what is known to have been done:
erasures first, from wherever they are known (the ledger's events, the journal's lines, receipts), then restrictions,
then what the journal says of names and epochs. It takes nothing away that lives, so it is done without asking, before
anything is served. What is lost with an older copy, keys or events, it cannot bring back: then a person decides
(``going_on``), who may still find a newer copy.
"""
