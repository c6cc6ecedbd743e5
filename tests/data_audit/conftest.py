import pytest


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves seconds; a few trees suffice for these tests."""
    monkeypatch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 30, "family": 15})
