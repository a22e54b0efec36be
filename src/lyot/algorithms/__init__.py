"""Numerical kernels: arrays in, arrays out; no files, headers, loggers or threads."""
