-- One number that grows with every change to the accounts, whoever makes it.
CREATE TABLE counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counter (name, value) VALUES ('account', 0);

-- A removed account stays as a row with an empty profile, so that other processes learn of it.
CREATE TABLE account (
    id       TEXT   PRIMARY KEY,
    sequence BIGINT NOT NULL,
    aor      TEXT   NOT NULL,
    msisdn   TEXT   NOT NULL,
    profile  TEXT   NOT NULL
);
CREATE INDEX account_sequence ON account (sequence);
CREATE INDEX account_aor ON account (aor);
CREATE INDEX account_msisdn ON account (msisdn);

CREATE TABLE message (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aor        TEXT   NOT NULL,
    key        BYTEA  NOT NULL,
    expires_at BIGINT NOT NULL,
    body       BYTEA  NOT NULL
);
CREATE UNIQUE INDEX message_key ON message (aor, key);
CREATE INDEX message_aor ON message (aor, id);
CREATE INDEX message_expires_at ON message (expires_at);

-- "C": keys are listed in byte order, as SQLite does.
CREATE TABLE document (
    collection TEXT   COLLATE "C" NOT NULL,
    key        TEXT   COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (collection, key)
);

CREATE TABLE charging (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at   BIGINT NOT NULL,
    line TEXT   NOT NULL
);
CREATE INDEX charging_at ON charging (at);

-- No index on what a refresh changes, and room in each page: refreshes stay heap-only updates.
CREATE TABLE binding (
    aor        TEXT   COLLATE "C" NOT NULL,
    key        TEXT   COLLATE "C" NOT NULL,
    node       TEXT   NOT NULL,
    expires_at BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (aor, key)
) WITH (fillfactor = 70);
