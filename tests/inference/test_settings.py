import pytest
from pydantic import ValidationError

from fulcrum.inference.settings import Settings


def test_every_setting_is_described():
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FULCRUM_INFERENCE_FOLDERS", f'{{"lab": "{tmp_path}"}}')
    monkeypatch.setenv("FULCRUM_INFERENCE_TOKEN", "sesame")
    monkeypatch.setenv("FULCRUM_INFERENCE_MAX_BATCH_ROWS", "16")
    settings = Settings()
    assert settings.folders == {"lab": tmp_path}
    assert settings.max_batch_rows == 16
    assert settings.token.get_secret_value() == "sesame"
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "int8"},
        {"max_batch_rows": 0},
        {"max_queue_bytes": -1},
        {"metrics_port": 70000},
        {"drain_s": -1},
        {"threads": 0},
        {"canary_every_s": 0},
    ],
)
def test_values_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)
