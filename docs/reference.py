"""What the API reference lists: the names in each module's __all__, sorted by kind."""

import ast
import importlib
import inspect
import re
from pathlib import Path

from sphinx.ext.autodoc.mock import mock


def public_names(page, mocked):
    """Return what the templates list, of each module that a page names."""
    modules = re.findall(r"^   (curvdetect[\w.]*)$", page, flags=re.MULTILINE)
    with mock(mocked):
        public, listed = {}, []
        for name in modules:
            public[name] = _by_kind(importlib.import_module(name), listed)
        return {"public": public, "members_of": _classes(public)}


def _classes(public):
    """Return properties and methods that the public classes have from this package."""
    return {
        f"{module}.{name}": _members(getattr(importlib.import_module(module), name))
        for module, names in public.items()
        for name in names["classes"]
    }


def _members(cls):
    ours = [base for base in cls.__mro__ if base.__module__.startswith("curvdetect")]
    found = {"properties": [], "methods": []}
    for name in dict.fromkeys(name for base in reversed(ours) for name in vars(base)):
        value = inspect.getattr_static(cls, name)
        if (name.startswith("_") and name != "__call__") or not value.__doc__:
            continue
        if isinstance(value, property):
            found["properties"].append(name)
        elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
            found["methods"].append(name)
    return found


def _by_kind(module, listed):
    """Return a module's names by kind, but for listed classes; lists the others.

    TorchModel, for one, is both curvdetect's and curvdetect.network's.
    """
    kinds = {"classes": [], "functions": [], "others": {}}
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            if value not in listed:
                kinds["classes"].append(name)
                listed.append(value)
        elif inspect.isroutine(value):
            kinds["functions"].append(name)
        else:
            kinds["others"][name] = _comment(module, name)
    return kinds


def _comment(module, name):
    """Return the ``#:`` lines above the assignment of a name, here or where it is from.

    Autodoc reads them only in the module that assigns, and __all__ names others' too.
    """
    home = module
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and name in {a.name for a in node.names}:
            home = importlib.import_module(node.module)
    lines = Path(home.__file__).read_text().splitlines()
    (row,) = (
        k for k, line in enumerate(lines) if re.match(rf"[\w, ]*\b{name}\b.* = ", line)
    )
    text = []
    while lines[row - 1].startswith("#:"):
        row -= 1
        text.insert(0, lines[row][2:].strip())
    if not text:
        raise ValueError(f"{home.__name__}.{name} has no comment that begins with #:")
    return f"{_escaped(' '.join(text))} ``{getattr(module, name)!r}``"


def escape(app, what, name, obj, options, lines):
    r"""Escape what reStructuredText would read as markup and docstrings mean as it is.

    The star of (n, *input_shape), the end of n_features_in_, the bars of \|g\|; not in
    code or mathematics.
    """
    in_math = False
    for k, line in enumerate(lines):
        in_math = line.lstrip().startswith(".. math::") or (in_math and line.strip())
        if not (in_math or line.lstrip().startswith((">>>", "..."))):
            lines[k] = _escaped(line)


def _escaped(text):
    parts = re.split(r"(``.*?``|`.*?`)", text)
    parts[::2] = [
        re.sub(
            r"(?<![\\\w*])(\*(?=\w+[,)])|\|(?=\w))|(?<=[\w)])(\||_(?=[,)]))",
            r"\\\1\2",
            part,
        )
        for part in parts[::2]
    ]
    return "".join(parts)
