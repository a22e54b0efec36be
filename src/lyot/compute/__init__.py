"""Where work runs: threads, devices and clusters; results do not depend on it."""
