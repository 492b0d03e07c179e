"""Routines that the shim and the sidecar kernel both carry: formatting of numbers into text, and a polled 16550."""
