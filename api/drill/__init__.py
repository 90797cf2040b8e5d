"""The drill of an erasure: a made-up person goes the whole way, and then every copy that can be seen is looked into.

Start at :func:`api.drill.running.run_drill`. ``checks.py`` says what a finding is, ``searching.py`` what is looked for,
``places.py`` and ``files.py`` where, ``readers.py`` who is asked, ``report.py`` and ``page.py`` what is written.
"""
