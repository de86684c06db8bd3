-- A log of changes to the bindings, one row a commit; see docs/decisions on the binding store.
CREATE TABLE segment (sequence INTEGER PRIMARY KEY, changes BLOB NOT NULL);
