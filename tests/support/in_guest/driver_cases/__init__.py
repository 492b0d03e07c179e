"""The driver's files used directly, without the client: `python3 -m driver_cases CASE [ARGUMENT ...]` prints JSON.

Every outcome is a number: what the call returned, or the name of its errno.
"""
