"""What comes out of a reduction: contrast limits, detections and companions.

Results are frozen values with units; `to_table` gives them as astropy tables.
"""
