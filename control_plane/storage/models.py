# SPDX-License-Identifier: Apache-2.0
"""Tables. Times are Unix seconds (integer) in UTC; `*_key` columns hold the lower-case form that lookups compare.

The hot row (`heartbeats`) is apart from `machines` so that a heartbeat rewrites under 200 bytes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

GUID = String(36)
TIME = Integer().with_variant(BigInteger(), "postgresql")  # SQLite's INTEGER has 64 bits by itself


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can address them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class HubState(Base):
    """One row. `epoch` rises with every unclean start (design section 4). `gaps`: times [from, to] that the database
    does not remember, because a backup made at the first was restored at the second; None: it remembers everything."""

    __tablename__ = "hub_state"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer)
    clean: Mapped[bool] = mapped_column(Boolean)
    trust_generation: Mapped[int] = mapped_column(Integer)
    gaps: Mapped[list[list[int]] | None] = mapped_column(JSON)


class Process(Base):
    """A hub process over PostgreSQL, from its start to its clean end. While it lives it holds the advisory lock
    (channel/peers.py) of its number; a row without a lock is that of a process that was killed."""

    __tablename__ = "processes"
    __table_args__ = ({"sqlite_autoincrement": True},)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    started: Mapped[int] = mapped_column(TIME)
    seen: Mapped[int] = mapped_column(TIME)
    address: Mapped[str] = mapped_column(String(320))


class Location(Base):
    """A place that resources may be in."""

    __tablename__ = "locations"
    name: Mapped[str] = mapped_column(String(90), primary_key=True)
    display_name: Mapped[str] = mapped_column(String(128))


class Audience(Base):
    """A resource URI added by `audience add`; the well-known ones are in authority/audiences.py."""

    __tablename__ = "audiences"
    uri: Mapped[str] = mapped_column(String(512), primary_key=True)
    created: Mapped[int] = mapped_column(TIME)


class Subscription(Base):
    """A subscription; `id` in lower case."""

    __tablename__ = "subscriptions"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    created: Mapped[int] = mapped_column(TIME)


class Principal(Base):
    """A service principal. `id` is the client id, `object_id` what tokens carry as `oid`."""

    __tablename__ = "principals"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    object_id: Mapped[str] = mapped_column(GUID, unique=True)
    name: Mapped[str] = mapped_column(String(128))
    name_key: Mapped[str] = mapped_column(String(128), unique=True)
    created: Mapped[int] = mapped_column(TIME)
    revoked: Mapped[int | None] = mapped_column(TIME)


class PrincipalSecret(Base):
    """A secret of a principal: salted SHA-256, which is enough for 40 random characters of our own making."""

    __tablename__ = "principal_secrets"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    principal_id: Mapped[str] = mapped_column(ForeignKey("principals.id", ondelete="CASCADE"), index=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(16))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created: Mapped[int] = mapped_column(TIME)
    expires: Mapped[int | None] = mapped_column(TIME)


class PrincipalCertificate(Base):
    """A certificate that a principal may sign its assertions with. `thumbprint`: SHA-256, base64url."""

    __tablename__ = "principal_certificates"
    __table_args__ = (PrimaryKeyConstraint("principal_id", "thumbprint"),)
    principal_id: Mapped[str] = mapped_column(ForeignKey("principals.id", ondelete="CASCADE"))
    thumbprint: Mapped[str] = mapped_column(String(43))
    certificate: Mapped[str] = mapped_column(Text)
    created: Mapped[int] = mapped_column(TIME)
    expires: Mapped[int] = mapped_column(TIME)


class User(Base):
    """A person. `id` is the object id that role assignments name. `password`: argon2id, None: signs in elsewhere only.
    `subject`: issuer and subject of the external account that is this person, if one is."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    name_key: Mapped[str] = mapped_column(String(128), unique=True)
    email: Mapped[str | None] = mapped_column(String(254))
    password: Mapped[str | None] = mapped_column(String(256))
    subject: Mapped[str | None] = mapped_column(String(512), unique=True)
    created: Mapped[int] = mapped_column(TIME)
    disabled: Mapped[int | None] = mapped_column(TIME)


class UserSession(Base):
    """Somebody signed in. `digest`: SHA-256 of the token that the browser keeps; the token itself is not stored."""

    __tablename__ = "user_sessions"
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created: Mapped[int] = mapped_column(TIME)
    seen: Mapped[int] = mapped_column(TIME)
    peer: Mapped[str] = mapped_column(String(45))


class RoleAssignment(Base):
    """A role held by an object id (a principal's or a user's) at a scope: `/`, a subscription, a group, a machine."""

    __tablename__ = "role_assignments"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    object_id: Mapped[str] = mapped_column(GUID, index=True)
    role: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(512))
    created: Mapped[int] = mapped_column(TIME)
    created_by: Mapped[str | None] = mapped_column(GUID)


class ResourceGroup(Base):
    """A resource group. `ticket_id`: the ticket whose machine brought it into being, if one did."""

    __tablename__ = "resource_groups"
    __table_args__ = (UniqueConstraint("subscription_id", "name_key"),)
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    name: Mapped[str] = mapped_column(String(90))
    name_key: Mapped[str] = mapped_column(String(90))
    location: Mapped[str] = mapped_column(String(90))
    tags: Mapped[dict[str, str]] = mapped_column(JSON)
    ticket_id: Mapped[str | None] = mapped_column(GUID)
    created: Mapped[int] = mapped_column(TIME)


class Machine(Base):
    """A machine resource. `properties`: what callers of ARM wrote; what the agent reported is in `reports`.

    `version_key`, `released`, `os_type`, `tags_key`, `facts_key`: what the fleet query compares, derived by
    storage/history.py whenever what they come from is written.
    """

    __tablename__ = "machines"
    __table_args__ = (
        UniqueConstraint("group_id", "name_key"),
        Index("ix_machines_subscription", "subscription_id"),
        Index("ix_machines_name_key_id", "name_key", "id"),
        {"sqlite_autoincrement": True},  # a late heartbeat of a deleted machine must never fall to a new one
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"))
    group_id: Mapped[int] = mapped_column(ForeignKey("resource_groups.id"))
    name: Mapped[str] = mapped_column(String(54))
    name_key: Mapped[str] = mapped_column(String(54))
    location: Mapped[str] = mapped_column(String(90))
    tags: Mapped[dict[str, str]] = mapped_column(JSON)
    kind: Mapped[str | None] = mapped_column(String(64))
    identity_type: Mapped[str] = mapped_column(String(64))
    vm_id: Mapped[str] = mapped_column(GUID, index=True)
    vm_id_given: Mapped[bool] = mapped_column(Boolean)
    client_public_key: Mapped[str | None] = mapped_column(Text)
    properties: Mapped[dict[str, Any]] = mapped_column(JSON)
    client_id: Mapped[str] = mapped_column(GUID, unique=True)
    principal_id: Mapped[str] = mapped_column(GUID, unique=True)
    enrolled: Mapped[int | None] = mapped_column(TIME)
    evidence: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    generations: Mapped[dict[str, int]] = mapped_column(JSON)
    agent_version: Mapped[str | None] = mapped_column(String(64))
    version_key: Mapped[str] = mapped_column(String(64), server_default="")
    released: Mapped[str] = mapped_column(String(10), server_default="")
    os_type: Mapped[str] = mapped_column(String(16), server_default="")
    tags_key: Mapped[str] = mapped_column(Text, server_default="")
    facts_key: Mapped[str] = mapped_column(Text, server_default="")
    ticket_id: Mapped[str | None] = mapped_column(GUID)
    created: Mapped[int] = mapped_column(TIME)
    created_by: Mapped[str] = mapped_column(GUID)
    created_by_type: Mapped[str] = mapped_column(String(32))
    created_by_object: Mapped[str] = mapped_column(GUID)
    modified: Mapped[int] = mapped_column(TIME)
    modified_by: Mapped[str] = mapped_column(GUID)
    modified_by_type: Mapped[str] = mapped_column(String(32))


class Credential(Base):
    """A credential slot of a machine; `state` is `current`, `next` or `retired`. Written synchronously."""

    __tablename__ = "credentials"
    __table_args__ = (PrimaryKeyConstraint("machine_id", "slot"),)
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"))
    slot: Mapped[int] = mapped_column(Integer)
    thumbprint: Mapped[str] = mapped_column(String(43), unique=True)
    certificate: Mapped[str] = mapped_column(Text)
    expires: Mapped[int] = mapped_column(TIME)
    state: Mapped[str] = mapped_column(String(8))
    created: Mapped[int] = mapped_column(TIME)


class SettingsCertificate(Base):
    """extd's certificate: protected settings are encrypted to it. The newest one only. `key`: SHA-256 (hex) of its
    public key, DER SubjectPublicKeyInfo."""

    __tablename__ = "settings_certificates"
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), primary_key=True)
    certificate: Mapped[str] = mapped_column(Text)
    expires: Mapped[int] = mapped_column(TIME)
    key: Mapped[str | None] = mapped_column(String(64), index=True)


class Heartbeat(Base):
    """The hot row: under 200 bytes, written in batches (channel/live.py)."""

    __tablename__ = "heartbeats"
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), primary_key=True)
    seen: Mapped[int] = mapped_column(TIME)
    connected_since: Mapped[int] = mapped_column(TIME)
    epoch: Mapped[int] = mapped_column(Integer)
    nonce: Mapped[str] = mapped_column(String(16))
    previous_nonce: Mapped[str] = mapped_column(String(16))
    request_id: Mapped[str] = mapped_column(GUID)
    evidence_digest: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(45))
    conflicts: Mapped[int] = mapped_column(Integer)


class Report(Base):
    """The newest report of each kind; rewritten only when its content changed."""

    __tablename__ = "reports"
    __table_args__ = (PrimaryKeyConstraint("machine_id", "kind"),)
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64))
    created: Mapped[int] = mapped_column(TIME)
    received: Mapped[int] = mapped_column(TIME)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class Ticket(Base):
    """A ticket of docs/protocol.md section 4. `id` is the token's `jti`; `operations` as asked for."""

    __tablename__ = "tickets"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    principal_id: Mapped[str] = mapped_column(ForeignKey("principals.id", ondelete="CASCADE"))
    operations: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    created: Mapped[int] = mapped_column(TIME)
    expires: Mapped[int] = mapped_column(TIME, index=True)
    spent: Mapped[list[str]] = mapped_column(JSON)


class Answered(Base):
    """Answers kept for 24 hours, so that a repeated `requestId` gets the same one (docs/protocol.md section 6)."""

    __tablename__ = "answered"
    __table_args__ = (PrimaryKeyConstraint("machine_id", "request_id"),)
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"))
    request_id: Mapped[str] = mapped_column(GUID)
    operation: Mapped[str] = mapped_column(String(16))
    answer: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[int] = mapped_column(TIME, index=True)


class AuditEntry(Base):
    """Every write: who, what, when, outcome. Append-only: triggers refuse UPDATE and DELETE."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(TIME, index=True)
    actor_type: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(128), index=True)
    action: Mapped[str] = mapped_column(String(128))
    target: Mapped[str] = mapped_column(String(1024))
    outcome: Mapped[str] = mapped_column(String(16))
    code: Mapped[str | None] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(GUID)
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSON)
