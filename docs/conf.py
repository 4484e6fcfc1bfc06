"""Configuration of Sphinx; docs/contributing.md has the command to build with."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the two modules beside it

# One thread: the networks of the gallery are small, and two cores may be all there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from reference import escape, public_names

import curvdetect

project = "curvdetect"
author = "the curvdetect authors"
copyright = "the curvdetect authors, MIT licence"
version = release = curvdetect.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas can be read without a network
]
exclude_patterns = ["_build", "examples", "gallery"]
templates_path = ["_templates"]
nitpicky = True

# Markdown: $...$ for mathematics, {#name} for targets.
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = ">>> |... |$ "
copybutton_only_copy_prompt_lines = False

# Reference: what each module's __all__ names, from its docstrings. Types are in the
# docstrings, so signatures go without annotations.
autosummary_generate = True
autodoc_typehints = "none"
# It brings torchvision, for which the rest of this environment has no use.
autodoc_mock_imports = ["pytorch_ood"]
_page = Path(__file__).parent / "api" / "index.md"
autosummary_context = public_names(_page.read_text(), autodoc_mock_imports)
numpydoc_show_class_members = False  # the template lists them
numpydoc_class_members_toctree = False

# An example that fails, or warns as Sphinx does, fails the build.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "image_scrapers": ("matplotlib",),
    "image_srcset": ["2x"],
    "reset_modules": ("matplotlib", "gallery_style.reset"),
    "doc_module": ("curvdetect",),
    "reference_url": {"curvdetect": None},
    "backreferences_dir": "auto_gallery/backreferences",
    "inspect_global_variables": False,
    "remove_config_comments": True,
    "capture_repr": (),  # what is worth showing is printed
    "min_reported_time": 1,
}

html_theme = "pydata_sphinx_theme"
html_title = "curvdetect"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
# No empty navigation beside pages that have no others below them.
html_sidebars = {page: [] for page in ("start", "theory", "contributing", "changelog")}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navigation_with_keys": False,
    # None beside the gallery and the tables of results: their lines are long.
    "secondary_sidebar_items": {
        page: ["page-toc"]
        for page in ("start", "guide/*", "theory", "api/**", "contributing")
    },
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version", "theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app):
    """Before numpydoc, whose priority is 500, reads the docstrings."""
    app.connect("autodoc-process-docstring", escape, priority=400)
