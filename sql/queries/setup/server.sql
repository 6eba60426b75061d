-- The server, this database and this log-in, as far as they matter to the product.
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_text,
       clock_timestamp() AS now,
       (SELECT reset_val FROM pg_settings WHERE name = 'TimeZone') AS time_zone,
       current_database() AS database,
       pg_postmaster_start_time() AS started_at,
       session_user AS login,
       (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS is_superuser,
       (SELECT rolcreaterole AND NOT rolsuper FROM pg_roles WHERE rolname = session_user) AS may_make_roles,
       pg_is_in_recovery() AS is_standby
