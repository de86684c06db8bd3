-- One number that grows with every change to the accounts, whoever makes it.
CREATE TABLE counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL) WITHOUT ROWID;
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
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    aor        TEXT    NOT NULL,
    key        BLOB    NOT NULL,
    expires_at BIGINT  NOT NULL,
    body       BLOB    NOT NULL
);
CREATE UNIQUE INDEX message_key ON message (aor, key);
CREATE INDEX message_aor ON message (aor, id);
CREATE INDEX message_expires_at ON message (expires_at);

CREATE TABLE document (
    collection TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    version    BIGINT NOT NULL,
    body       BLOB   NOT NULL,
    PRIMARY KEY (collection, key)
);

CREATE TABLE charging (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    at   BIGINT  NOT NULL,
    line TEXT    NOT NULL
);
CREATE INDEX charging_at ON charging (at);
