-- Identifiers are 16 bytes, hashes 32, times Unix milliseconds.

-- A cookie's hash and whose conversations it opens. A cookie that is not here opens those of an owner made of its hash.
CREATE TABLE session (
  token_hash BLOB PRIMARY KEY,
  owner      BLOB NOT NULL,
  created_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX session_by_owner ON session (owner);

-- Links by which another device gets at an owner's conversations, each used once.
CREATE TABLE link (
  code_hash  BLOB PRIMARY KEY,
  owner      BLOB NOT NULL,
  expires_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE conversation (
  id         BLOB PRIMARY KEY,
  owner      BLOB NOT NULL,
  title      TEXT NOT NULL,
  system     TEXT NOT NULL,
  leaf       BLOB,
  updated_ms INTEGER NOT NULL,
  deleted_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX conversation_by_owner ON conversation (owner, updated_ms DESC, id DESC) WHERE deleted_ms IS NULL;
CREATE INDEX conversation_deleted ON conversation (deleted_ms) WHERE deleted_ms IS NOT NULL;

CREATE TABLE message (
  number       INTEGER PRIMARY KEY,
  id           BLOB NOT NULL UNIQUE,
  conversation BLOB NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
  parent       BLOB,
  role         TEXT NOT NULL CHECK (role IN ('system', 'user', 'exec', 'assistant')),
  text         TEXT NOT NULL,
  created_ms   INTEGER NOT NULL,
  -- Of an answer only. Token ids are 4 bytes each, little endian; sampling, stats and end are JSON.
  generation   BLOB,
  prompt_ids   BLOB,
  prompt_hash  BLOB,
  token_ids    BLOB,
  sampling     TEXT,
  seed         INTEGER,
  weights_hash BLOB,
  stats        TEXT,
  -- The last event that text and token_ids cover.
  seq          INTEGER,
  -- Why it ended; absent while it runs.
  end          TEXT
);
CREATE INDEX message_by_conversation ON message (conversation, number);
CREATE INDEX message_running ON message (conversation) WHERE generation IS NOT NULL AND end IS NULL;

-- Commands that were carried out, so that one that is sent again after a restart is not carried out twice.
CREATE TABLE command (
  request      BLOB PRIMARY KEY,
  owner        BLOB NOT NULL,
  conversation BLOB NOT NULL REFERENCES conversation (id) ON DELETE CASCADE,
  message      BLOB,
  answer       BLOB NOT NULL,
  created_ms   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX command_by_time ON command (created_ms);
CREATE INDEX command_by_conversation ON command (conversation);
