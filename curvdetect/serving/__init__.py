"""A guard over HTTP: the service that ``curvdetect serve`` runs (extra "serve").

:func:`create_app` makes an application of a fitted guard, for this package's server or
for a service of one's own.
"""

from curvdetect.serving.application import create_app
from curvdetect.serving.limits import Limits
from curvdetect.serving.server import run_server

__all__ = ["Limits", "create_app", "run_server"]
