-- Events and their pictures. The primary keys make sure that each is stored once, however late an event is repeated.
CREATE TABLE IF NOT EXISTS events (
    message_id    text PRIMARY KEY,          -- Nats-Msg-Id: the box and X-Event-Id
    box           text NOT NULL,             -- as in the subject
    kind          text NOT NULL,             -- realtime, history
    happened_at   timestamptz NOT NULL,
    score         double precision NOT NULL,
    identity_id   text NOT NULL,
    identity_name text NOT NULL,
    body          jsonb NOT NULL             -- the event without its pictures
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (happened_at);
CREATE INDEX IF NOT EXISTS events_by_person ON events (identity_id, happened_at);

CREATE TABLE IF NOT EXISTS pictures (
    sha256 text PRIMARY KEY,                 -- a person's registered picture is the same in every event, and stored once
    jpeg   bytea NOT NULL
);

CREATE TABLE IF NOT EXISTS event_pictures (
    message_id text NOT NULL REFERENCES events ON DELETE CASCADE,
    name       text NOT NULL,                -- reg_pic, ext_data/spot_pic, …
    sha256     text NOT NULL REFERENCES pictures,
    PRIMARY KEY (message_id, name)
);

-- The last state report of each box.
CREATE TABLE IF NOT EXISTS boxes (
    box      text PRIMARY KEY,
    heard_at timestamptz NOT NULL,
    report   jsonb NOT NULL
);
