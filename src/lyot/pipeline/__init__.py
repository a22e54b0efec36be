"""From an association to its products."""

from lyot.pipeline.coron3 import Coron3Pipeline
