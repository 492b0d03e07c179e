"""Random behaviour of a driver, legal and not, on a machine without Linux, judged by a reference model in Python.

`steps` makes the steps out of a seed, `model` says what each must lead to, `player` does them on a machine and
compares. `sidecar fuzz` plays for minutes; the tests play the same steps in orders that Hypothesis finds.
"""
