-- The log-in, if it may create roles and is not a superuser.
SELECT rolname AS name FROM pg_roles
 WHERE rolname = session_user AND rolcreaterole AND NOT rolsuper
