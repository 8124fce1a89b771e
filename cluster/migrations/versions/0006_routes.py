"""Routes: which points of the keys a version has, and a revision that tells the newer ones; mirrored images."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
    CREATE TABLE serving_routes (
        model text PRIMARY KEY,
        routes jsonb NOT NULL,                    -- serve.routing.routes.Routes, whole
        revision bigint NOT NULL,                 -- the same number as in it
        updated_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE serving_front_door (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        bundle_key text NOT NULL                  -- whose code package the front door runs; a rollout never changes it
    );
    CREATE TABLE mirrored_requests (
        id uuid PRIMARY KEY,
        created_at timestamptz NOT NULL,
        model text NOT NULL,
        patient_pseudonym text,
        assignment jsonb NOT NULL,                -- of the request that was answered
        served jsonb NOT NULL,                    -- the attempt that answered, with its label
        shown jsonb NOT NULL,                     -- the attempt that nobody waited for
        committed_by xid8 NOT NULL DEFAULT pg_current_xact_id()
    );
    CREATE INDEX mirrored_requests_in_order ON mirrored_requests (committed_by);
    INSERT INTO serving_routes (model, routes, revision)
    SELECT model,
           jsonb_build_object('model', model, 'salt', '', 'revision', 1, 'targets', jsonb_agg(jsonb_build_object(
               'version', version, 'role', role, 'bundle_key', bundle_key, 'mirror', 0, 'spans', '[]'::jsonb)
               ORDER BY version)),
           1
    FROM serving_versions GROUP BY model;
    INSERT INTO serving_front_door (bundle_key)
    SELECT bundle_key FROM serving_versions WHERE model = 'xray-vit' AND role = 'champion';
    DROP TABLE serving_versions;
    """)
