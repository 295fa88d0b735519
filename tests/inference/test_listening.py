import os
import stat
import time

import pytest
from tests.inference.running import MODEL, Running, png
from tests.rpc.test_channels import Authority

from fulcrum.domain.errors import InvalidSettings, ServiceUnavailable
from fulcrum.inference.listening import check_address
from fulcrum.inference.server import device_of, model_ref
from fulcrum.inference.settings import Settings
from fulcrum.rpc.channels import TlsFiles
from fulcrum.rpc.client import RemoteEngine


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "expected"),
        ("nonsense", "expected"),
        ("host:port", "expected"),
        ("127.0.0.1:70000", "expected"),
        ("unix:", "bytes"),
        ("unix:/" + "x" * 120, "bytes"),
        ("unix:/no/such/folder/s", "does not exist"),
        ("0.0.0.0:50051", "TOKEN"),
        ("10.1.2.3:50051", "TOKEN"),
        ("[::]:50051", "TOKEN"),
        ("inference.lab:50051", "TOKEN"),
    ],
)
def test_an_address_that_cannot_be_or_lets_everybody_in_is_refused(address, said):
    with pytest.raises(InvalidSettings, match=said):
        check_address(Settings(address=address))


def test_loopback_needs_no_token_and_other_addresses_do(tmp_path):
    for address in ("127.0.0.1:0", "localhost:0", "[::1]:0", f"unix:{tmp_path}/s"[:100]):
        check_address(Settings(address=address))
    check_address(Settings(address="0.0.0.0:50051", token="t"))


def test_only_its_own_user_can_connect_to_a_socket_file(task):
    with Running() as running:
        path = running.address.removeprefix("unix:")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with running.client() as client:
            assert client.predict(MODEL, [png()], task)


def test_a_free_port_is_taken_and_named(task):
    with Running(address="127.0.0.1:0") as running:
        assert not running.address.endswith(":0")
        with running.client() as client:
            assert client.predict(MODEL, [png()], task)
        with pytest.raises(InvalidSettings, match="cannot listen"), Running(address=running.address):
            pass


def test_mutual_tls_lets_in_whom_the_authority_signed(tmp_path, task):
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    cert, key = ours.issue("inference")
    files = {"tls_cert": cert, "tls_key": key, "tls_client_ca": ours.file}
    with Running(address="127.0.0.1:0", **files) as running:
        with RemoteEngine(running.address, tls=TlsFiles(ours.file, *ours.issue("gateway"))) as client:
            deadline = time.monotonic() + 10
            while not client.health() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert client.predict(MODEL, [png()], task)
        for tls in (None, TlsFiles(ours.file), TlsFiles(ours.file, *other.issue("gateway"))):
            with (
                RemoteEngine(running.address, tls=tls, timeout_s=10) as client,
                pytest.raises(ServiceUnavailable),
            ):
                client.list_models()


def test_half_of_a_certificate_stops_the_start(tmp_path):
    pem = tmp_path / "x.pem"
    for files, said in (
        ({"tls_cert": pem}, "belong together"),
        ({"tls_client_ca": pem}, "needs tls_cert"),
        ({"tls_cert": pem, "tls_key": pem}, "cannot be read"),
    ):
        with pytest.raises(InvalidSettings, match=said), Running(**files):
            pass


def test_a_device_that_is_not_here_stops_the_start():
    assert device_of("cpu") == "cpu"
    assert device_of("auto") in ("cpu", "cuda")
    for setting in ("gpu", "", "cuda:99", "meta"):
        with pytest.raises(InvalidSettings):
            device_of(setting)


def test_a_canary_model_is_named_as_callers_name_models():
    assert model_ref("folder:demo/clip").model_name == "folder:demo/clip"
    assert (model_ref("ViT-B-32/openai").model_name, model_ref("ViT-B-32/openai").pretrained) == (
        "ViT-B-32",
        "openai",
    )
    with pytest.raises(InvalidSettings, match="weights"):
        model_ref("ViT-B-32")
