from __future__ import annotations

import pickle

import pytest

from graphmert import errors

EXIT_CODES = {
    errors.GraphMERTError: 1,
    errors.ConfigError: 2,
    errors.DataError: 3,
    errors.FormatError: 3,
    errors.SchemaError: 3,
    errors.ProvenanceError: 3,
    errors.CheckpointError: 3,
    errors.CapabilityError: 4,
    errors.JudgeError: 4,
}


@pytest.mark.parametrize("cls", EXIT_CODES, ids=lambda cls: cls.__name__)
def test_exit_code_and_root(cls: type[errors.GraphMERTError]) -> None:
    assert cls.exit_code == EXIT_CODES[cls]
    assert issubclass(cls, errors.GraphMERTError)


def test_every_error_of_the_module_is_listed() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type)}
    assert {cls for cls in found if issubclass(cls, Exception)} == set(EXIT_CODES)


def test_data_errors_are_one_branch() -> None:
    for cls in (errors.FormatError, errors.SchemaError, errors.ProvenanceError):
        assert issubclass(cls, errors.DataError)
    assert not issubclass(errors.CheckpointError, errors.DataError)


def test_message_joins_the_parts() -> None:
    error = errors.FormatError("bad row", where="a.csv, line 3", got=2, expected=3, fix="Mend it.")
    assert str(error) == "bad row (a.csv, line 3): got 2, expected 3. Mend it."
    assert str(errors.FormatError("bad row")) == "bad row"
    assert str(errors.FormatError("bad row", got=0)) == "bad row: got 0"


def test_parts_survive_pickling() -> None:
    error = errors.SchemaError("cycle", where="kg", got=(1, 2), expected="none", fix="Cut it.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.SchemaError
    assert str(copy) == str(error)
    assert copy.to_dict() == error.to_dict()
