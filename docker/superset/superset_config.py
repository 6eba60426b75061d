"""Superset's settings; secrets come from the environment."""

import os

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]

# The dashboard is about minutes: what Superset has asked is not kept for longer than one.
DATA_CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 60}

from superset.config import TALISMAN_CONFIG  # noqa: E402

# Pages load pictures from Superset itself alone; its counting pixel is left out.
TALISMAN_CONFIG["content_security_policy"]["img-src"] = ["'self'", "blob:", "data:"]
