"""Score 15-minute meter readings of machines, in rooms that import downward only.

``cli`` and ``demo`` come in from outside. ``operations``, ``lifecycle``, ``evaluation``,
``loading``, ``scoring`` and ``incidents`` are the use cases. ``database`` speaks SQL. ``models``,
``detectors`` and ``readings`` are pure. The words that every room uses are the modules beside the
rooms: ``settings``, ``windows``, ``wording``, ``arrays``, ``current_user``, ``errors``,
``installation`` and ``config_file``.
Each room's ``__init__.py`` says what lives there and what it may import;
``[tool.importlinter]`` in pyproject.toml has the order.
"""

__version__ = "0.1.0"
