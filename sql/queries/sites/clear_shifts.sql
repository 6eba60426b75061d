-- Forget the shifts of a site.
DELETE FROM anomaly.shifts WHERE site = :site
