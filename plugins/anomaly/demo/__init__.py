"""The demo: everything that lets a fresh machine show the whole pipeline at work."""
