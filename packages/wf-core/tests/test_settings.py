"""Settings come from `APP_*` variables; what a process says itself wins."""

from __future__ import annotations

import copy

import pytest
from pydantic import ValidationError

from wf_core.settings import Settings


def test_variables_are_read_and_checked(monkeypatch: pytest.MonkeyPatch):
    """A variable becomes a value of its field's type, whatever the case of its name; others are ignored."""
    monkeypatch.setenv("APP_REDIS_PORT", "7000")
    monkeypatch.setenv("app_redis_allow_volatile", "true")
    monkeypatch.setenv("APP_RETRY_DELAY", "0.5")
    monkeypatch.setenv("APP_API_KEY", "secret")
    monkeypatch.setenv("APP_NO_SUCH_SETTING", "x")
    settings = Settings()
    assert (settings.redis_port, settings.redis_allow_volatile, settings.retry_delay) == (7000, True, 0.5)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "secret"
    assert "secret" not in repr(settings)


def test_what_is_said_wins(monkeypatch: pytest.MonkeyPatch):
    """An argument stands before the variable, and the variable before the default."""
    monkeypatch.setenv("APP_PARTITIONS", "5")
    assert Settings().partitions == 5
    assert Settings(partitions=6).partitions == 6
    monkeypatch.delenv("APP_PARTITIONS")
    assert Settings().partitions == 64


def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch):
    """Every variable that does not fit is named at once."""
    monkeypatch.setenv("APP_PARTITIONS", "many")
    monkeypatch.setenv("APP_NAMESPACE", "Not This")
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert sorted(error["loc"] for error in refused.value.errors()) == [("namespace",), ("partitions",)]


def test_they_travel_and_stay_as_they_are(monkeypatch: pytest.MonkeyPatch):
    """A copy does not look at the variables again, and none can be changed."""
    settings = Settings(partitions=7)
    monkeypatch.setenv("APP_PARTITIONS", "9")
    assert copy.deepcopy(settings) == settings
    assert settings.model_copy(update={"redis_port": 1}).partitions == 7
    with pytest.raises(ValidationError):
        settings.partitions = 8  # type: ignore[misc]
