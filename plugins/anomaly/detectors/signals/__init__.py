"""The detector `signals`: several signals per machine, each with a forest, and an alert budget.

To score: `usual_day` (what is usual at each time of day), `signals` (which signals there are, and
how each is measured), `shape` (the course of the last hours), `explaining` (reasons in words) and
`detector`. To train: `level_changes` (from when on to learn), `holiday_calendars`,
`usual_day_training`, `forests`, `calibration` (tails and limits), `fleet` (the row for machines
that training has not seen) and `training`, which does all of it.

The modules for scoring never import those for training, nor scikit-learn. A new signal is a name in
`signals.NAMES`, its measurement there, its words in `explaining`, and its smallest spread in
`forests`. Artefacts name their signals, so it needs a new training.
"""
