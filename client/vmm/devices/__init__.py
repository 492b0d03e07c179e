"""Devices that a guest without drivers can use: a serial port (uart), and a port that ends the machine (debug_exit)."""
