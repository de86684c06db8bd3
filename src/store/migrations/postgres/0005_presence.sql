-- Publications and subscriptions; as binding, binding_origin and binding_change.
CREATE TABLE presence (
    aor        TEXT   COLLATE "C" NOT NULL,
    key        TEXT   COLLATE "C" NOT NULL,
    node       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (aor, key)
) WITH (fillfactor = 70);

CREATE TABLE presence_origin (
    origin BIGINT PRIMARY KEY,
    node   TEXT   NOT NULL,
    at     BIGINT NOT NULL
);

CREATE TABLE presence_change (
    origin   BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    aors     TEXT[] NOT NULL,
    PRIMARY KEY (origin, sequence)
);
