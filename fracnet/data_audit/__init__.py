"""What is wrong with a data set: duplicates, leaks, shortcuts.

Duplicates, from inside out: `features` (one image), `candidates` (which pairs to look at),
`geometry` and `verify` (one pair), `duplicates` (the whole set).
"""
