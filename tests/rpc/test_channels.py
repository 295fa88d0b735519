import datetime
import ipaddress

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rpc.scripted import CORRECTION, EFFECT, MODEL, SAE, TASK, serving
from tests.rpc.test_client import steer
from tests.rpc.values import same

from fulcrum.domain.errors import InvalidSettings, ServiceUnavailable, UnknownArtifact
from fulcrum.rpc.channels import TlsFiles, addresses_of, channel_options, server_options
from fulcrum.rpc.client import RemoteEngine
from fulcrum.rpc.images import ImageHash, image_sha256
from fulcrum.rpc.metadata import CallMetadata


def test_addresses_are_one_or_several():
    assert addresses_of("unix:/run/f.sock") == ("unix:/run/f.sock",)
    assert addresses_of(" a:1, b:2 ,") == ("a:1", "b:2")


@pytest.mark.parametrize("text", ["", " , ", "a:1,a:1"])
def test_addresses_that_make_no_sense_are_refused(text):
    with pytest.raises(InvalidSettings):
        addresses_of(text)


def test_the_keepalive_of_the_client_is_allowed_by_the_server():
    # gRPC's own defaults disconnect such a client with "too many pings".
    client, server = dict(channel_options()), dict(server_options())
    assert client["grpc.keepalive_time_ms"] > server["grpc.http2.min_ping_interval_without_data_ms"]
    assert client["grpc.max_receive_message_length"] == server["grpc.max_send_message_length"] == 64 << 20


texts = st.text(st.characters(codec="utf-8"), max_size=20)
tokens = st.none() | st.text("abcXYZ0189-_.~+/=", min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(texts, texts, tokens)
def test_metadata_of_any_text_comes_back(user, request_id, token):
    sent = CallMetadata(user, request_id, token, "00-0af7-b7ad-01")
    pairs = sent.to_pairs()
    assert all(value.isascii() and value.isprintable() for _, value in pairs)
    assert CallMetadata.from_pairs([*pairs, ("user-agent", "x"), ("trace-bin", b"\x00")]) == sent


@pytest.mark.parametrize("value", ["secret", "Basic secret", "Bearer", "Bearer ", ""])
def test_only_a_bearer_token_is_a_token(value):
    assert CallMetadata.from_pairs([("authorization", value)]).token is None


@pytest.mark.parametrize("name", ["", "x" * 64, "A" * 64, "a" * 63, "../../etc/passwd", "a" * 64 + "\n"])
def test_a_hash_is_64_hexadecimal_digits_and_nothing_else(name):
    with pytest.raises(UnknownArtifact):
        ImageHash(name)


def test_bytes_and_their_hash_are_the_same_image():
    name = "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
    assert image_sha256(b"aaa") == image_sha256(ImageHash(name)) == name


class Authority:
    """Certificates for one test."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._signed(name, self.key, ca=True)
        self.file = self._write(f"{name}.pem", self.cert)

    def issue(self, name):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self.folder / f"{self.name}-{name}.key"
        path.write_bytes(private)
        return self._write(f"{self.name}-{name}.pem", self._signed(name, key)), path

    def _signed(self, name, key, *, ca=False):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _write(self, name, cert):
        path = self.folder / name
        path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        return path


def test_mutual_tls_lets_in_who_has_a_certificate_and_nobody_else(tmp_path):
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    cert, key = ours.issue("inference")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], ours.file.read_bytes(), require_client_auth=True
    )
    with serving("127.0.0.1:0", credentials=credentials, Steer=steer) as service:
        address = f"127.0.0.1:{service.port}"

        def ask(tls):
            with RemoteEngine(address, tls=tls, timeout_s=10) as engine:
                return engine.steer(MODEL, SAE, b"image", CORRECTION, TASK)

        assert same(ask(TlsFiles(ours.file, *ours.issue("gateway"))), EFFECT)
        assert same(ask(TlsFiles(ours.file, *ours.issue("gateway"), server_name="inference")), EFFECT)
        strangers = [
            None,
            TlsFiles(ours.file),
            TlsFiles(ours.file, *other.issue("gateway")),
            TlsFiles(other.file, *ours.issue("gateway")),
            TlsFiles(ours.file, *ours.issue("gateway"), server_name="elsewhere"),
        ]
        for tls in strangers:
            with pytest.raises(ServiceUnavailable):
                ask(tls)
        assert len(service.calls) == 2


def test_tls_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InvalidSettings, match=r"missing\.pem"):
        RemoteEngine("a:1", tls=TlsFiles(tmp_path / "missing.pem"))
    with pytest.raises(InvalidSettings, match="belong together"):
        TlsFiles(tmp_path / "ca.pem", cert=tmp_path / "cert.pem")
