"""Catalog, quarantine, dataset versions, predictions, API keys, desired state of serving, audit."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE samples (
        source text NOT NULL,
        sha256 text NOT NULL,                     -- of the original file
        label text NOT NULL,                      -- a name of the taxonomy
        source_label text NOT NULL,               -- as the source wrote it
        patient_pseudonym text NOT NULL,          -- keyed hash; never the source's own id
        group_key text NOT NULL,                  -- keyed hash; rows that stay on one side of a split
        sex text, age real, view text, site text, -- NULL is unknown, never guessed
        license text NOT NULL,
        raw_key text NOT NULL,                    -- sealed original, in bucket raw
        metadata jsonb NOT NULL DEFAULT '{}',
        ingested_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (source, sha256)
    );
    CREATE TABLE quarantine (
        source text NOT NULL,
        sha256 text NOT NULL,
        stage text NOT NULL,                      -- ingest or etl
        reason text NOT NULL,                     -- a reason code
        detail text NOT NULL,                     -- one line, free of patient data
        object_key text,                          -- sealed original, in bucket quarantine
        quarantined_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (source, sha256, stage)
    );
    CREATE TABLE dataset_versions (
        version text PRIMARY KEY,                 -- SHA-256 over sorted logical rows and settings
        manifest jsonb NOT NULL,                  -- settings, counts, rejects by reason, code commit
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE api_keys (
        key_sha256 text PRIMARY KEY,
        key_id text NOT NULL UNIQUE,              -- safe to log
        role text NOT NULL CHECK (role IN ('client', 'physician', 'operator')),
        created_at timestamptz NOT NULL DEFAULT now(),
        revoked_at timestamptz
    );
    CREATE TABLE serving_versions (
        model text NOT NULL,
        version text NOT NULL,                    -- version number in the MLflow registry
        bundle_key text NOT NULL,                 -- prefix of the release bundle, in bucket mlflow-artifacts
        weight double precision NOT NULL CHECK (weight >= 0 AND weight <= 1),
        role text NOT NULL CHECK (role IN ('champion', 'canary', 'previous')),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (model, version)
    );
    CREATE TABLE predictions (
        id uuid PRIMARY KEY,
        created_at timestamptz NOT NULL DEFAULT now(),
        client_key_id text NOT NULL REFERENCES api_keys (key_id),
        request_id text NOT NULL,
        body_sha256 text NOT NULL,                -- of image and fields; tells a retry from a conflict
        patient_pseudonym text,                   -- keyed hash of patient_key
        assignment jsonb NOT NULL,                -- sticky key kind, assigned version, arm, weights
        attempts jsonb NOT NULL,                  -- [{version, outcome, latency_ms}]
        model text NOT NULL,
        served_version text NOT NULL,
        answer jsonb NOT NULL,                    -- the 201 body
        image_key text NOT NULL,                  -- de-identified PNG, in bucket predictions
        metadata jsonb NOT NULL DEFAULT '{}'      -- sex, age, view
    );
    CREATE INDEX predictions_by_time ON predictions (created_at);
    CREATE TABLE explanations (
        prediction_id uuid PRIMARY KEY REFERENCES predictions (id),
        explanation jsonb NOT NULL,               -- text, model, grounded, fallback, disclaimer, checks
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE audit (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        actor text NOT NULL,                      -- a job, or the id of an API key
        action text NOT NULL,
        subject text NOT NULL,
        detail jsonb NOT NULL DEFAULT '{}'
    );
    CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the audit table is append-only';
    END $$;
    CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
    """)
