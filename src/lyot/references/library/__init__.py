"""Reference libraries: frames made ready for them, chosen from them, and checked.

What a library is on disk is in `lyot.files.library_store`.
"""

from lyot.references.library.build import add, build, read_wavefronts, spectral_number, zone_pixels
from lyot.references.library.check import check, gram_over
from lyot.references.library.select import select
