#!/usr/bin/env bash
# Make the databases and log-ins; Postgres runs this once, on an empty volume.
set -euo pipefail

psql --set=ON_ERROR_STOP=1 --username=postgres \
    --set=airflow="$AIRFLOW_DB_PASSWORD" \
    --set=anomaly="$ANOMALY_DB_PASSWORD" \
    --set=bi="$BI_DB_PASSWORD" <<'SQL'
CREATE ROLE airflow LOGIN PASSWORD :'airflow';
CREATE DATABASE airflow OWNER airflow;
CREATE ROLE anomaly_app LOGIN CREATEROLE PASSWORD :'anomaly';
CREATE DATABASE anomaly OWNER anomaly_app;
CREATE ROLE anomaly_bi NOLOGIN;
CREATE ROLE bi_reader LOGIN PASSWORD :'bi' IN ROLE anomaly_bi;
ALTER ROLE bi_reader SET statement_timeout = '60s';
ALTER ROLE bi_reader SET idle_in_transaction_session_timeout = '5min';
SQL
