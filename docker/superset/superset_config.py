"""Superset's settings; secrets come from the environment."""

import os

from superset.security import SupersetSecurityManager

SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["SUPERSET_DATABASE_URL"]

# The dashboard is about minutes: what Superset has asked is not kept for longer than one.
DATA_CACHE_CONFIG = {"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 60}

from superset.config import TALISMAN_CONFIG  # noqa: E402

# Pages load pictures from Superset itself alone; its counting pixel is left out.
TALISMAN_CONFIG["content_security_policy"]["img-src"] = ["'self'", "blob:", "data:"]


class OnlyTheViews(SupersetSecurityManager):
    """Offer the schema `bi`, and no other, of the database "Anomaly".

    Postgres lets every log-in read its catalogue, so Superset would list tables that the log-in
    cannot read.
    """

    def get_schemas_accessible_by_user(self, database, catalog, schemas, hierarchical=True):
        """Give the schemas that Superset lists."""
        found = super().get_schemas_accessible_by_user(database, catalog, schemas, hierarchical)
        return found & {"bi"} if database.database_name == "Anomaly" else found


CUSTOM_SECURITY_MANAGER = OnlyTheViews
