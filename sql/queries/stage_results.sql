-- Where an attempt lays its verdicts before they are merged.
--
-- behind  the row lies behind the window: it is re-scored because readings in
--         the window changed, and only where a verdict on this reading exists already.
CREATE TEMP TABLE staged_results (
    machine_id    integer NOT NULL,
    utc_timestamp timestamptz NOT NULL,
    reading       double precision NOT NULL,
    power_kw      double precision,
    power_diff    double precision,
    anomaly_score double precision,
    threshold     double precision NOT NULL,
    anomaly       smallint NOT NULL,
    reason        text,
    quality       anomaly.reading_quality NOT NULL,
    origin        anomaly.run_origin NOT NULL,
    model_version integer NOT NULL,
    expected_kw   double precision,
    behind        boolean NOT NULL
) ON COMMIT DROP
