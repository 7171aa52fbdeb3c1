# SPDX-License-Identifier: Apache-2.0
"""Whose key of protected settings is whose, so that no two machines have the same."""

import hashlib

import sqlalchemy as sa
from alembic import op
from cryptography import x509
from cryptography.hazmat.primitives import serialization

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("settings_certificates", sa.Column("key", sa.String(length=64), nullable=True))
    op.create_index("ix_settings_certificates_key", "settings_certificates", ["key"], unique=False)
    known = sa.table("settings_certificates", sa.column("machine_id"), sa.column("certificate"), sa.column("key"))
    bind = op.get_bind()
    for machine_id, certificate in bind.execute(sa.select(known.c.machine_id, known.c.certificate)).all():
        public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.sha256(der).hexdigest()
        bind.execute(sa.update(known).where(known.c.machine_id == machine_id).values(key=digest))


def downgrade() -> None:
    op.drop_index("ix_settings_certificates_key", table_name="settings_certificates")
    op.drop_column("settings_certificates", "key")
