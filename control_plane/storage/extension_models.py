# SPDX-License-Identifier: Apache-2.0
"""Tables of extensions and run commands. What ARM shows of one as of any resource (names, tags, who wrote it, and
`properties` as callers wrote them, without what is protected) is its row of `resources`. Conventions: models.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.storage.models import TIME, Base

SIZE = Integer().with_variant(BigInteger(), "postgresql")  # bytes: packages may have more than 2 GiB


class Extension(Base):
    """An extension of a machine. `handler_key`: `publisher.type` in lower case; `version`: the exact one that is
    wished; `rollback_to`: the one before, during an automatic upgrade: until all of the handler have succeeded with it.

    `protected`: base64 of a CMS envelope, `certificate`: PEM of the one it was made for, `digest`: keyed, so that the
    same settings are recognised. `generation`: that of the machine's document when the wish was last changed; `began`:
    when that was; `removed`: when its removal was asked for. `state`: provisioningState; `code`, `message`: why the hub
    itself calls it Failed; `reported`: what the machine last said of it. `retry`: from when on an automatic upgrade may
    be tried, None when there is nothing to try.
    """

    __tablename__ = "extensions"
    resource_id: Mapped[int] = mapped_column(
        ForeignKey("resources.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), index=True)
    handler_key: Mapped[str] = mapped_column(String(257), index=True)
    version: Mapped[str] = mapped_column(String(64))
    rollback_to: Mapped[str | None] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(Integer)
    protected: Mapped[str | None] = mapped_column(Text)
    certificate: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[str | None] = mapped_column(String(64))
    generation: Mapped[int] = mapped_column(Integer)
    began: Mapped[int] = mapped_column(TIME)
    removed: Mapped[int | None] = mapped_column(TIME)
    state: Mapped[str] = mapped_column(String(16), index=True)
    code: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    reported: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    automatic: Mapped[bool] = mapped_column(Boolean)
    retry: Mapped[int | None] = mapped_column(TIME, index=True)


class RunCommand(Base):
    """A run command of a machine; the columns are those of Extension. `protected` holds its protected parameters and
    the password of its user; `request`: keyed, by what its sequence was asked for: the client's id of the request with
    all that it wished, None without an id."""

    __tablename__ = "run_commands"
    resource_id: Mapped[int] = mapped_column(
        ForeignKey("resources.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    machine_id: Mapped[int] = mapped_column(ForeignKey("machines.id", ondelete="CASCADE"), index=True)
    sequence: Mapped[int] = mapped_column(Integer)
    request: Mapped[str | None] = mapped_column(String(64))
    protected: Mapped[str | None] = mapped_column(Text)
    certificate: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(Integer)
    began: Mapped[int] = mapped_column(TIME)
    removed: Mapped[int | None] = mapped_column(TIME)
    state: Mapped[str] = mapped_column(String(16), index=True)
    code: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    reported: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class ExtensionPackage(Base):
    """A package that signed metadata names (docs/protocol.md section 15.3). `handler_key`: as of Extension; `path`: its
    target; `os`: linux or windows; `arch`: any, x86_64 or aarch64; `sha256`: hex."""

    __tablename__ = "extension_packages"
    __table_args__ = (
        UniqueConstraint("handler_key", "version", "os", "arch"),
        {"sqlite_autoincrement": True},  # the highest id tells that the catalogue is another one
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    handler_key: Mapped[str] = mapped_column(String(257))
    publisher: Mapped[str] = mapped_column(String(128))
    type: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(64))
    os: Mapped[str] = mapped_column(String(16))
    arch: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(String(512))
    length: Mapped[int] = mapped_column(SIZE)
    sha256: Mapped[str] = mapped_column(String(64))
    supports_multiple: Mapped[bool] = mapped_column(Boolean)
    created: Mapped[int] = mapped_column(TIME)


class AgentPackage(Base):
    """A package of the agent itself that signed metadata names (docs/protocol.md section 15.6). `format`: deb or rpm;
    `path`: its target."""

    __tablename__ = "agent_packages"
    __table_args__ = (UniqueConstraint("path"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    version: Mapped[str] = mapped_column(String(64))
    os: Mapped[str] = mapped_column(String(16))
    format: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(String(512))
    created: Mapped[int] = mapped_column(TIME)
