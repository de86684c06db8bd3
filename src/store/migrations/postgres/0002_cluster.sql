-- The processes that write bindings, and when each last said that it is there (unix seconds).
CREATE TABLE binding_origin (
    origin BIGINT PRIMARY KEY,
    node   TEXT   NOT NULL,
    at     BIGINT NOT NULL
);

-- What each of them changed, in the order of its commits.
CREATE TABLE binding_change (
    origin   BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    at       BIGINT NOT NULL,
    aors     TEXT[] NOT NULL,
    PRIMARY KEY (origin, sequence)
);

-- Which node delivers a user's waiting messages, and until when nobody else may (unix seconds).
CREATE TABLE message_lease (
    aor   TEXT   PRIMARY KEY,
    node  TEXT   NOT NULL,
    until BIGINT NOT NULL
);
