"""The compiler beside what a user would run instead.

``engines`` is the table of contents: one row for each, and the module that prepares and loads it.
Every engine lives in a process of its own (``worker``), which ``process`` starts and asks; ``cell``
times all of them in rounds.
"""
