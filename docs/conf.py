"""How the documentation is built: offline, and with warnings as errors (`make docs`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from lyot._version import __version__

project, author = "lyot", "The lyot developers"
copyright = "The lyot developers, BSD-3-Clause"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_click",
    "mathml",
    "parameters",
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"lyot {release}"
html_static_path = ["_static"]
html_css_files = ["lyot.css"]
exclude_patterns = ["_build", "_ext"]
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_mock_imports = ["torch", "cupy", "stpsf"]

templates_path = ["_templates"]
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
