"""What is wrong with a dataset: unreadable files, copies, leaks, shortcuts.

The search for copies, from the inside out: `keypoints` (one image), `pixel_match` (one pair),
`near_duplicates` (the whole set).
"""
