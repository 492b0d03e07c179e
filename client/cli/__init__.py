"""The commands of `sidecarctl`, one module each: parse, call the library, print. `frame` holds what they share."""
