-- Add a shift of a site.
INSERT INTO anomaly.shifts (site, name, starts, ends) VALUES (:site, :name, :starts, :ends)
