"""SQLAlchemy on psycopg: reflection and the ORM, as applications use them."""

import datetime as dt
import decimal
import os
import sys
import traceback

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

MILLSTREAM = os.environ.get("CLIENT_TEST_SERVER", "millstream") == "millstream"
URL = "postgresql+psycopg://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}".format(**os.environ)
# CREATE TABLE stands in a transaction here.
OPTIONS = {"options": "-c autocommit_before_ddl=on"} if MILLSTREAM else {}


class Base(DeclarativeBase):
    pass


class Flight(Base):
    __tablename__ = "sa_flights"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    carrier: Mapped[str | None] = mapped_column(sa.String(20))
    fee: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(10, 2), server_default=sa.text("1.5"))
    departed: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    details: Mapped[dict | None] = mapped_column(sa.JSON)


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def create(engine):
    with engine.begin() as conn:
        conn.execute(sa.text("DROP VIEW IF EXISTS sa_view"))
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    # It is there now: nothing to do.
    Base.metadata.create_all(engine)
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE VIEW sa_view AS SELECT carrier FROM sa_flights"))
        conn.execute(sa.text("COMMENT ON TABLE sa_flights IS 'who flew'"))


def orm(engine):
    stamp = dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc)
    with Session(engine) as session:
        session.add_all(
            Flight(id=n, carrier="AA", departed=stamp, details={"n": n}) for n in range(1, 6)
        )
        session.commit()
        flight = session.get(Flight, 3)
        equal((flight.fee, flight.departed, flight.details), (decimal.Decimal("1.50"), stamp, {"n": 3}))
        flight.carrier = "BB"
        session.flush()
        with session.begin_nested() as nested:
            session.delete(session.get(Flight, 5))
            session.flush()
            nested.rollback()
        session.commit()
    with Session(engine) as session:
        query = sa.select(Flight.carrier, sa.func.count()).group_by(Flight.carrier).order_by(Flight.carrier)
        equal([tuple(row) for row in session.execute(query)], [("AA", 4), ("BB", 1)])
        session.execute(sa.delete(Flight).where(Flight.id > 3))
        session.commit()
        equal(session.scalar(sa.select(sa.func.count()).select_from(Flight)), 3)
        page = session.scalars(sa.select(Flight.id).order_by(Flight.id.desc()).limit(2).offset(1))
        equal(list(page), [2, 1])
        session.add(Flight(id=1))
        try:
            session.commit()
            raise AssertionError("no error")
        except sa.exc.IntegrityError as error:
            equal(error.orig.sqlstate, "23505")


def reflection(engine):
    inspector = sa.inspect(engine)
    assert "public" in inspector.get_schema_names()
    assert "sa_flights" in inspector.get_table_names()
    assert "sa_view" in inspector.get_view_names()
    equal(inspector.has_table("nothing_like_it"), False)
    columns = inspector.get_columns("sa_flights")
    equal([c["name"] for c in columns], ["id", "carrier", "fee", "departed", "details"])
    equal([c["nullable"] for c in columns], [False, True, True, True, True])
    equal(columns[2]["default"], "1.5")
    equal((columns[2]["type"].precision, columns[2]["type"].scale), (10, 2))
    equal(columns[3]["type"].timezone, True)
    key = inspector.get_pk_constraint("sa_flights")
    equal((key["constrained_columns"], key["name"]), (["id"], "sa_flights_pkey"))
    equal(inspector.get_foreign_keys("sa_flights"), [])
    equal(inspector.get_indexes("sa_flights"), [])
    equal(inspector.get_unique_constraints("sa_flights"), [])
    equal(inspector.get_check_constraints("sa_flights"), [])
    equal(inspector.get_table_comment("sa_flights"), {"text": "who flew"})
    assert "carrier" in inspector.get_view_definition("sa_view")
    metadata = sa.MetaData()
    metadata.reflect(engine, views=True, only=["sa_flights", "sa_view"])
    equal(sorted(metadata.tables), ["sa_flights", "sa_view"])
    equal([c.name for c in metadata.tables["sa_flights"].primary_key], ["id"])


def subscribe(engine):
    with engine.begin() as conn:
        conn.execute(sa.text("DECLARE live CURSOR FOR SUBSCRIBE (SELECT id FROM sa_flights)"))
        rows = conn.execute(sa.text("FETCH 10 live")).mappings()
        equal(sorted(row["id"] for row in rows), [1, 2, 3])


def main():
    engine = sa.create_engine(URL, connect_args=OPTIONS)
    failed = 0
    for test in [create, orm, reflection] + ([subscribe] if MILLSTREAM else []):
        try:
            test(engine)
            print("ok", test.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED", test.__name__, traceback.format_exc(), flush=True)
    sys.exit(failed)


main()
