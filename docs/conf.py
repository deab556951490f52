"""The site of these pages (``make docs``): Sphinx, with the reference from docstrings."""

from frostbit.export.version import VERSION

project = "Frostbit"
author = "the Frostbit authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"Frostbit {VERSION}"
exclude_patterns = ["sweeps"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports: list[str] = []
napoleon_google_docstring = True
napoleon_use_ivar = True
html_copy_source = False
html_show_sphinx = False
# Cross-references in docstrings name private modules too, which have no page: they stay plain text.
nitpicky = False
