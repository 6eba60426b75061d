"""The scoring room: the one path from readings to published verdicts, and its rules.

From the outside in: `ticks` and `reconciling` decide which windows are scored; `scorer` makes one
attempt after the other at a window; `window_reader` reads and measures it, `look_behind` says how
far around it; `judging` opens the models in force and judges; `comparison` tells what is new or
has changed; `publishing` writes all of it in one transaction. The rules that it keeps have modules
of their own: `fencing` (never over a newer attempt), `affected_verdicts` (how far a change is
judged again), `retraction` (which verdicts may go), `chunks` (how much is read at once).
`new_machines` finds and registers machines that are not known yet. `mismatches` finds where
readings and verdicts disagree, without scoring. `record_scoring` judges records that are handed in,
without tables; `record_judging` judges them with what the meter table says of the time around.

It may import `incidents`, `database`, `models`, `detectors`, `readings` and the words that every
room uses. It knows nothing of
training, evaluation or the command line. Inside the room, too, imports point downward only.
"""
