"""What databases raise, as errors of the domain."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fulcrum.domain.errors import CorruptFile, InternalError, InvalidRequest, Overloaded, ServiceUnavailable

RETRY_AFTER_S = 1.0

_DATA_EXCEPTIONS = "22"  # class of PostgreSQL's codes: out of range, text that cannot be read as a number
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the domain for what is no bug of ours; a wrong statement stays what it was.

    Raises ServiceUnavailable (not reachable, locked too long, disk full), Overloaded (no free connection),
    CorruptFile (a damaged SQLite file), InvalidRequest (a value that does not fit), InternalError (a row that breaks
    a rule which the repositories should have kept).
    """
    try:
        yield
    except PoolTimeout as error:
        raise Overloaded("all connections to the database are in use", RETRY_AFTER_S) from error
    except IntegrityError as error:
        # Without its cause: PostgreSQL's detail shows the whole row, hashes of secrets too.
        diagnosis = getattr(error.orig, "diag", None)
        primary = str(error.orig) if diagnosis is None else diagnosis.message_primary
        raise InternalError(f"a row breaks a rule of the database: {primary}") from None
    except DBAPIError as error:
        primary_code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        reason = " ".join(str(error.orig).split())
        if primary_code in _DAMAGED:
            raise CorruptFile(f"the SQLite database is damaged: {reason}") from error
        if (getattr(error.orig, "sqlstate", None) or "").startswith(_DATA_EXCEPTIONS):
            raise InvalidRequest(f"the database cannot hold a value: {reason}") from error
        if primary_code == sqlite3.SQLITE_ERROR:  # wrong SQL, which Python calls operational as well
            raise
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            # A server's own words name hosts and users: they stay in the cause, for the log.
            shown = f": {reason}" if primary_code else ""
            raise ServiceUnavailable(f"the database does not answer{shown}", RETRY_AFTER_S) from error
        raise
