"""Who runs a command, for the record."""

import getpass
import os


def current_user() -> str:
    """Name of the account; in a container it may have none, then its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
