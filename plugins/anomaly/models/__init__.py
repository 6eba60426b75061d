"""Models: a trained detector together with what training saw of each machine, and its files.

`model` is the model and its arrays, `verdicts` its verdicts on measured readings, `drift` how far
readings have moved since a training. `artefacts` writes, verifies and opens the files of a version;
`artefact_store` keeps them in a folder or in a bucket.

This room may import `anomaly.detectors`, `anomaly.readings` and the words that every room uses. It
knows no database: which version is in force is said by `anomaly.database.model_in_force`, and how a
version is trained and promoted by `anomaly.lifecycle`. Only `artefacts` opens pickles.
"""
