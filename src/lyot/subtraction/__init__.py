"""The stellar image, modelled from reference frames and subtracted."""
