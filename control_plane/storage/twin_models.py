# SPDX-License-Identifier: Apache-2.0
"""Tables of images, enrolment and twins (docs/protocol.md section 14). Conventions: models.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, PrimaryKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.storage.models import GUID, TIME, Base


class Profile(Base):
    """An enrolment profile. `settings`: as fleet/profiles.py reads them."""

    __tablename__ = "profiles"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[int] = mapped_column(TIME)
    modified: Mapped[int] = mapped_column(TIME)


class EnrolmentToken(Base):
    """A token that images carry. `digest`: SHA-256 of its text, hex; the text is not kept. `uses`: how many machines
    may enrol with it; `image_id` None: of any image."""

    __tablename__ = "enrolment_tokens"
    id: Mapped[str] = mapped_column(GUID, primary_key=True)
    profile: Mapped[str] = mapped_column(ForeignKey("profiles.name", ondelete="CASCADE"), index=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    image_id: Mapped[str | None] = mapped_column(String(128))
    uses: Mapped[int] = mapped_column(Integer)
    created: Mapped[int] = mapped_column(TIME)
    created_by: Mapped[str] = mapped_column(String(128))
    expires: Mapped[int] = mapped_column(TIME)
    revoked: Mapped[int | None] = mapped_column(TIME)


class TokenUse(Base):
    """A machine that enrolled with a token; counted once for each vmId."""

    __tablename__ = "token_uses"
    __table_args__ = (PrimaryKeyConstraint("token_id", "vm_id"),)
    token_id: Mapped[str] = mapped_column(ForeignKey("enrolment_tokens.id", ondelete="CASCADE"))
    vm_id: Mapped[str] = mapped_column(GUID)
    at: Mapped[int] = mapped_column(TIME)


class Enrolment(Base):
    """A name kept for a machine that was told to enrol, until its ticket expires. `ticket_id`: the ticket; it is good
    for this vector (`digest`) alone, and for this vmId where one was told. `asker`: who it was kept for, so that asking
    again gives the same name. `twin_id`: of one that is adopted."""

    __tablename__ = "enrolments"
    __table_args__ = (UniqueConstraint("subscription_id", "group_key", "name_key"),)
    ticket_id: Mapped[str] = mapped_column(GUID, primary_key=True)
    asker: Mapped[str] = mapped_column(String(64), unique=True)
    subscription_id: Mapped[str] = mapped_column(GUID)
    group_key: Mapped[str] = mapped_column(String(90))
    name_key: Mapped[str] = mapped_column(String(54))
    resource_id: Mapped[str] = mapped_column(String(512))
    vm_id: Mapped[str | None] = mapped_column(GUID)
    digest: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(String(64))
    image_id: Mapped[str | None] = mapped_column(String(128))
    parent: Mapped[str | None] = mapped_column(GUID)
    builder: Mapped[str | None] = mapped_column(String(64))
    token_id: Mapped[str | None] = mapped_column(GUID)
    twin_id: Mapped[int | None] = mapped_column(Integer)
    expires: Mapped[int] = mapped_column(TIME, index=True)


class Origin(Base):
    """Where a machine comes from. `how`: `joined`, `connected`, `adopted`; `parent`: vmId of the machine whose identity
    it held; `builder`: digest of the evidence of the host that the image was sealed on, as the machine told it."""

    __tablename__ = "origins"
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), primary_key=True)
    profile: Mapped[str] = mapped_column(String(64))
    image_id: Mapped[str | None] = mapped_column(String(128), index=True)
    parent: Mapped[str | None] = mapped_column(GUID)
    builder: Mapped[str | None] = mapped_column(String(64))
    how: Mapped[str] = mapped_column(String(16))
    at: Mapped[int] = mapped_column(TIME)


class Twin(Base):
    """A holder of a machine's identity that is in conflict with it. `digest`: of its evidence, empty for every holder;
    `boot`: mark of its boot where the evidence does not tell it from the others, else empty. `found`: `fork` or
    `question`; `verdict`: `clone undecided moved suspect`; `outcome`: what is answered, `reject quarantine adopt wait`.
    `decision`: of an operator, `release reject adopt`. `state`: `open`, or how it ended: `released adopted rejected
    healed`. `became`: resource id of the machine that it was adopted as. `history`: what happened, the newest last."""

    __tablename__ = "twins"
    __table_args__ = (
        UniqueConstraint("machine_id", "digest", "boot"),
        Index("ix_twins_state", "state"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(String(64))
    boot: Mapped[str] = mapped_column(String(8))
    found: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str] = mapped_column(String(16))
    decision: Mapped[str | None] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    differs: Mapped[list[str]] = mapped_column(JSON)
    address: Mapped[str] = mapped_column(String(45))
    hostname: Mapped[str | None] = mapped_column(String(255))
    image_id: Mapped[str | None] = mapped_column(String(128))
    asked: Mapped[int] = mapped_column(Integer)
    first: Mapped[int] = mapped_column(TIME)
    last: Mapped[int] = mapped_column(TIME)
    became: Mapped[str | None] = mapped_column(String(512))
    history: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
