-- What users said to each other, for those who want it kept.
CREATE TABLE history (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner      TEXT   NOT NULL,
    key        BYTEA  NOT NULL,
    at         BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    peer       TEXT   NOT NULL,
    speaker    TEXT   NOT NULL,
    outgoing   BIGINT NOT NULL,
    media_type TEXT   NOT NULL,
    message_id TEXT   NOT NULL,
    body       BYTEA  NOT NULL
);
CREATE UNIQUE INDEX history_key ON history (owner, key);
CREATE INDEX history_at ON history (owner, at, id);
CREATE INDEX history_expires_at ON history (expires_at);
