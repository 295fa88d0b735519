import pytest
from pydantic import ValidationError

from fulcrum_ui.settings import Settings


def test_one_logs_in_on_the_host_under_which_the_frontend_is_seen():
    own = Settings(gateway_url="http://127.0.0.1:8080")
    assert own.public_url("http://lab.example:8501/debug?x=1") == "http://lab.example:8080"
    assert own.public_url("http://[::1]:8501/") == "http://[::1]:8080"
    assert own.public_url(None) == "http://127.0.0.1:8080"
    told = Settings(gateway_url="http://gateway:8080", gateway_public_url="https://lab.example/api/")
    assert told.public_url("https://lab.example/ui") == "https://lab.example/api"


@pytest.mark.parametrize("url", ["gateway:8080", "ftp://gateway", "http://", ""])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValidationError, match="no URL"):
        Settings(gateway_url=url)
