"""Finds the tables that have rows of images, and deletes the rows of some images in one of them."""

from collections.abc import Collection

from psycopg import sql

from data.catalog.tables import Connection
from data.privacy.tombstones import Image


def tables(connection: Connection) -> list[str]:
    """List the tables whose rows are about images: those with the columns `source` and `sha256`."""
    rows = connection.execute(
        "SELECT table_name FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
        " AND column_name IN ('source', 'sha256') GROUP BY table_name HAVING count(*) = 2 ORDER BY table_name"
    )
    return [row["table_name"] for row in rows]


def delete(connection: Connection, table: str, images: Collection[Image], pseudonym: str) -> int:
    """Delete the rows of the images and, where the table names patients, of the patient."""
    pairs = sorted(images)
    columns = {
        row["column_name"]
        for row in connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = %s",
            [table],
        )
    }
    of_patient = sql.SQL("OR patient_pseudonym = %(patient)s" if "patient_pseudonym" in columns else "")
    query = sql.SQL(
        "DELETE FROM {table} WHERE (source, sha256) IN"
        " (SELECT * FROM unnest(%(sources)s::text[], %(files)s::text[])) {of_patient}"
    ).format(table=sql.Identifier(table), of_patient=of_patient)
    values = {
        "sources": [value for value, _ in pairs],
        "files": [value for _, value in pairs],
        "patient": pseudonym,
    }
    return connection.execute(query, values).rowcount
