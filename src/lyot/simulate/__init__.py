"""Synthetic observations with known truth."""

from lyot.simulate.observation import Companion, Disc, Scene, simulate_observation
