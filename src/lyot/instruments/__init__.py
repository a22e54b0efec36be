"""What is known about the instruments: filters, coronagraphs, pixel scales, optics."""
