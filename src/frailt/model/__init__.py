"""The idea itself: blocks, groups that loop, iteration encodings. Start with ``frailt.py``."""
