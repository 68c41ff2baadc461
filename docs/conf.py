"""How Sphinx builds the documentation: ``nox -s docs``."""

from __future__ import annotations

import importlib.metadata
import pathlib
import sys

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import grpcpool
import grpcpool.aio
import grpcpool.events
import grpcpool.testing.aio

# Of the extension in this folder.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

project = "grpcpool"
author = "The grpcpool developers"
project_copyright = author
release = version = importlib.metadata.version("grpcpool")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "accessible"]
html_theme = "furo"
html_title = "grpcpool"
html_static_path = ["static"]
html_css_files = ["pages.css"]
# A decision begins as a copy of the template, which is not a page.
exclude_patterns = ["_build", "decisions/0000-template.md"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# What a fake inherits from gRPC is documented by gRPC.
autodoc_inherit_docstrings = False
autoclass_content = "both"
napoleon_numpy_docstring = False
# Prompts are not copied.
copybutton_prompt_text = "$ "

# In the docstrings, single backticks hold all code: names, parameters, values. Names get a link.
default_role = "py:obj"

nitpick_ignore_regex = [
    # As said above, not everything in backticks is a name.
    ("py:obj", r".*"),
    # Names of Python and gRPC: their pages are elsewhere, and the build needs no internet.
    ("py:.*", r"(grpc|datetime|dt|collections|contextlib|enum|logging|socket|typing|types|asyncio|concurrent)\..*"),
    # Names of the packages that the integrations are for.
    ("py:class", r"(opentelemetry|prometheus_client|starlette|uvicorn)\..*"),
    ("py:exc", r"[A-Z]\w*(Error|Warning)"),
    ("py:class", r"(str|int|float|bool|bytes|object|None|optional|callable|tuple|Callable|Sequence|Any|Self)"),
    # Private names: readers need what the text says of them, not a link.
    ("py:.*", r"(.*\.)?_\w.*"),
    ("py:.*", r".*\b(Configured|PickerName|Acquire|Credentials|SlotState|CloseReason|PoolBase)|.*\.C"),
]

_PUBLIC = {
    f"{value.__module__}.{value.__qualname__}": f"{module.__name__}.{name}"
    for module in (grpcpool.testing.aio, grpcpool.testing, grpcpool.events, grpcpool.aio, grpcpool)
    for name in module.__all__
    if isinstance(value := getattr(module, name), type)
}


def by_public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, _: nodes.Element) -> nodes.Node | None:
    """Resolves an annotation, which names the defining module, to the public name."""
    public = _PUBLIC.get(node.get("reftarget", ""))
    if public is None:
        return None
    found = env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, "class", public, node, nodes.literal(text=public.rpartition(".")[2])
    )
    return found or None


def setup(app: Sphinx) -> None:
    """Registers the resolver of public names."""
    app.connect("missing-reference", by_public_name)
