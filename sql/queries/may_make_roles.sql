-- The log-in, if it may make roles and is no superuser.
SELECT rolname AS name FROM pg_roles
 WHERE rolname = session_user AND rolcreaterole AND NOT rolsuper
