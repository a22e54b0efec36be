"""Reference images: stacked, prepared, aligned, vetted, and chosen from a library."""
