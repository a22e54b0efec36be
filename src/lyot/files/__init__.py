"""Science files and what they mean: associations, exposures, products.

The only place where science files are opened.
"""
