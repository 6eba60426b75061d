"""The incidents room: from abnormal verdicts to what operators see and answer.

- `episodes` finds runs of abnormal readings. `onsets` finds when each began, its energy and its
  severity.
- `incident` is an episode with an identity and a state. `identity` lets an episode that is computed
  again keep its incident. `states` gives each incident its state.
- `labels` holds what people say about a machine, `changes` what a publication or a person changed.
- `refresh` updates the table in the publishing transaction, and returns what changed.
- `operator_feedback` writes labels and acknowledgements.
- `usual_band` is where most of a machine's readings lie, to draw beside an incident.

All but `refresh` and `operator_feedback` are pure functions. It may import
`database`, `readings` and the words that every room uses. It does not know scoring, models or
alerts: code that sends messages takes the `IncidentChanges` that `refresh` returns.
"""
