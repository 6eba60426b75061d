"""The life of a model version: trained, judged, put in force, rolled back, retired.

`training` trains and registers a version, `gate` judges it against the one in force, `model_card`
writes down the judgement for people, `promotion` puts a version in force, by hand or by itself,
`reproduction` trains a version again and compares the two, and `replay` shows what weekly
retraining would have done with past readings.

`gate`, `model_card` and `replay` are pure functions of models and readings. The others work on the
database, through `anomaly.database`. This room may import every room below it: evaluation, scoring,
incidents, database, models, detectors, readings, and the words that every room uses. It must not
import operations, entry points or Airflow: the DAGs call it.
"""
