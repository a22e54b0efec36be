"""Running a recipe on models: stack, align, subtract, combine.

Shared by the steps and the analysis, so that they cannot drift apart.
"""
