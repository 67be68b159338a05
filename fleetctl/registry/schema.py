"""The shape of a registry file: what each schema version adds."""

from fleetctl.errors import FleetError
from fleetctl.model.device import rank
from fleetctl.registry.engine import Engine

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

# The life of a device from the factory on; foreign keys are off while a registry migrates, so that a table may change places.
_IDENTITY = (
    """CREATE TABLE devices_now (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, location TEXT NOT NULL, type TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('manufactured', 'claimed', 'active', 'renewing', 'suspended', 'revoked', 'retired')),
        created_at TEXT NOT NULL, retired_at TEXT, serial TEXT UNIQUE, batch TEXT, profile TEXT
    ) WITHOUT ROWID""",
    """INSERT INTO devices_now (id, tenant, location, type, state, created_at, retired_at)
        SELECT id, tenant, location, type, state, created_at, retired_at FROM devices""",
    "DROP TABLE devices",
    "ALTER TABLE devices_now RENAME TO devices",
    "CREATE INDEX devices_by_type ON devices (type)",
    "CREATE INDEX devices_by_location ON devices (location)",
    "CREATE INDEX devices_by_batch ON devices (batch, state) WHERE batch IS NOT NULL",
    """CREATE TABLE timeline (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device_id TEXT NOT NULL REFERENCES devices (id), at TEXT NOT NULL,
        event TEXT NOT NULL, state_before TEXT, state_after TEXT NOT NULL, reason TEXT, actor TEXT
    )""",
    "CREATE INDEX timeline_by_device ON timeline (device_id, id)",
    "ALTER TABLE certificates ADD COLUMN spki TEXT",
    "ALTER TABLE certificates ADD COLUMN replaces TEXT",
    "ALTER TABLE certificates ADD COLUMN proven_at TEXT",
    "CREATE INDEX certificates_by_key ON certificates (spki) WHERE spki IS NOT NULL",
    "CREATE INDEX certificates_by_end ON certificates (not_after)",
    "ALTER TABLE crls ADD COLUMN next_update INTEGER",
    """CREATE TABLE authorities (
        name TEXT PRIMARY KEY, role TEXT NOT NULL CHECK (role IN ('devices', 'people', 'claims', 'registered')),
        kind TEXT NOT NULL CHECK (kind IN ('root', 'issuing')),
        state TEXT NOT NULL CHECK (state IN ('active', 'superseded', 'retired')),
        profile TEXT, pem TEXT NOT NULL, created_at TEXT NOT NULL
    ) WITHOUT ROWID""",
    """INSERT INTO authorities
        SELECT subject, CASE subject WHEN 'fleet-ca' THEN 'people' ELSE 'devices' END,
            CASE subject WHEN 'device-issuing' THEN 'issuing' ELSE 'root' END, 'active', NULL, pem, not_before
        FROM certificates WHERE profile = 'authority' AND subject IN ('device-root', 'device-issuing', 'fleet-ca')""",
    "CREATE TABLE profiles (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE batches (
        name TEXT PRIMARY KEY, profile TEXT, location TEXT, type TEXT, quota INTEGER, not_before TEXT, not_after TEXT,
        state TEXT NOT NULL CHECK (state IN ('open', 'closed')), labels TEXT NOT NULL, created_at TEXT NOT NULL, closed_at TEXT
    ) WITHOUT ROWID""",
    """CREATE TABLE claims (
        name TEXT PRIMARY KEY, batch TEXT NOT NULL REFERENCES batches (name), certificate TEXT NOT NULL, quota INTEGER,
        not_after TEXT, state TEXT NOT NULL CHECK (state IN ('active', 'revoked')), created_at TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE enrolments (
        id TEXT PRIMARY KEY, method TEXT NOT NULL CHECK (method IN ('claim', 'est', 'jit')), claim TEXT, serial TEXT,
        device_id TEXT, spki TEXT, csr TEXT,
        state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'issued', 'active', 'rejected')), code TEXT,
        certificate TEXT, requested_at TEXT NOT NULL, decided_at TEXT, actor TEXT, reason TEXT
    ) WITHOUT ROWID""",
    "CREATE INDEX enrolments_by_serial ON enrolments (serial)",
    "CREATE INDEX enrolments_by_device ON enrolments (device_id)",
    "CREATE INDEX enrolments_by_state ON enrolments (state, requested_at)",
    """CREATE TABLE tokens (
        digest TEXT PRIMARY KEY, device_id TEXT NOT NULL REFERENCES devices (id), created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL, used_at TEXT, certificate TEXT, actor TEXT
    ) WITHOUT ROWID""",
)

# A million devices: `rank` is a device's place in every share (`model.selector.rank`), so that a limit is the head of an index.
_SCALE = (
    "ALTER TABLE devices ADD COLUMN rank INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX devices_by_rank ON devices (rank, id)",
    "ALTER TABLE labels ADD COLUMN rank INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX labels_by_rank ON labels (key, value, rank, device_id)",
    "CREATE INDEX presence_by_firmware ON presence (firmware, device_id)",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, actor TEXT, action TEXT NOT NULL, subject TEXT NOT NULL,
        device_id TEXT, reason TEXT, detail TEXT
    )""",
    "CREATE INDEX audit_by_device ON audit (device_id, id)",
    "CREATE TABLE groups (name TEXT PRIMARY KEY, selector TEXT NOT NULL, created_at TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE twin_history (
        device_id TEXT NOT NULL, version INTEGER NOT NULL, desired TEXT NOT NULL, digest TEXT NOT NULL, at TEXT NOT NULL,
        actor TEXT, reason TEXT, PRIMARY KEY (device_id, version)
    ) WITHOUT ROWID""",
    "INSERT INTO twin_history SELECT device_id, version, desired, digest, updated_at, NULL, NULL FROM twins",
    "CREATE TABLE twin_schemas (type TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE bulk_writes (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, document TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL,
        after_id TEXT NOT NULL, created_at TEXT NOT NULL, finished_at TEXT
    ) WITHOUT ROWID""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _IDENTITY, _SCALE)
"""The statements that lead from schema version n to n + 1, at index n."""

VERSION = len(MIGRATIONS)


def fill(engine: Engine, before: int) -> None:
    """What no statement can compute when a registry comes from version `before`."""
    if before < 3:
        for name in [row[0] for row in engine.read("SELECT id FROM devices WHERE rank = 0", ())]:
            engine.write("UPDATE devices SET rank = ? WHERE id = ?", (rank(name), name))
        engine.write("UPDATE labels SET rank = (SELECT rank FROM devices WHERE id = device_id)", ())


def newer(name: str, version: int) -> FleetError:
    """What is said of a registry that a newer fleetctl wrote."""
    return FleetError(
        f"registry `{name}` was written by a newer fleetctl (schema {version}, this one knows {VERSION})",
        "pip install --upgrade fleetctl",
    )
