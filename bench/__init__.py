"""Measurements: each module measures one thing on this host and returns figures; `document` writes them down.

Nothing here asserts: figures are compared by people, side by side, from one run.
"""
