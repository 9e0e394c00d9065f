"""camlink: several vision models over many cameras for a fraction of their cost.

The code lives in the top-level folders ``pipeline``, ``operators``, ``models`` and ``links``; this package is the
bridge that gives them one import name, for example ``from camlink.links.ensemble import Ensemble``.
"""

__version__ = "0.1.0"
