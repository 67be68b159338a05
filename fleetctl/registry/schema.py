"""The shape of a registry file: what each schema version adds."""

APPLICATION_ID = 0x464C4354  # "FLCT": tells our files from other SQLite files

_FIRST = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE devices (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, location TEXT NOT NULL, type TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('active', 'retired')), created_at TEXT NOT NULL, retired_at TEXT
    ) WITHOUT ROWID""",
    "CREATE INDEX devices_by_type ON devices (type)",
    "CREATE INDEX devices_by_location ON devices (location)",
    """CREATE TABLE labels (
        device_id TEXT NOT NULL REFERENCES devices (id), key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device_id, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX labels_by_value ON labels (key, value, device_id)",
    """CREATE TABLE certificates (
        serial TEXT PRIMARY KEY, authority TEXT NOT NULL, profile TEXT NOT NULL, subject TEXT NOT NULL,
        device_id TEXT REFERENCES devices (id), not_before TEXT NOT NULL, not_after TEXT NOT NULL, fingerprint TEXT NOT NULL,
        pem TEXT NOT NULL, revoked_at TEXT, reason TEXT
    ) WITHOUT ROWID""",
    "CREATE INDEX certificates_by_device ON certificates (device_id)",
    "CREATE INDEX certificates_revoked ON certificates (authority, revoked_at) WHERE revoked_at IS NOT NULL",
    "CREATE TABLE crls (authority TEXT PRIMARY KEY, number INTEGER NOT NULL, this_update INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE twins (
        device_id TEXT PRIMARY KEY REFERENCES devices (id), version INTEGER NOT NULL, desired TEXT NOT NULL,
        digest TEXT NOT NULL, updated_at TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE reported (
        device_id TEXT PRIMARY KEY REFERENCES devices (id), version INTEGER NOT NULL, reported TEXT NOT NULL,
        received_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE presence (
        device_id TEXT PRIMARY KEY REFERENCES devices (id), status TEXT NOT NULL, session TEXT NOT NULL,
        firmware TEXT NOT NULL, digest TEXT NOT NULL, heartbeat REAL NOT NULL, document TEXT NOT NULL, received_at REAL NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL UNIQUE, payload BLOB NOT NULL, created_at TEXT NOT NULL
    )""",
    """CREATE TABLE rollouts (
        id TEXT PRIMARY KEY, release TEXT NOT NULL, state TEXT NOT NULL, plan_digest TEXT NOT NULL, record TEXT NOT NULL
    ) WITHOUT ROWID""",
    # A machine that resumes a rollout from its plan knows devices that its registry does not: hence no reference to devices.
    "CREATE TABLE orders (device_id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE update_status (
        device_id TEXT NOT NULL, rollout TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
        document TEXT NOT NULL, received_at REAL NOT NULL, PRIMARY KEY (rollout, device_id)
    ) WITHOUT ROWID""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""The statements that lead from schema version n to n + 1, at index n."""

VERSION = len(MIGRATIONS)
