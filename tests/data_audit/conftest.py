import pytest


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds less; the tests are made so that a few trees see what is to be seen."""
    monkeypatch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 30, "family": 15})
