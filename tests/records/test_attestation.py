"""Attestations: what was signed holds for the very files, verdict and policy; anything else is named."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from harness.cli import main
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome
from harness.records import attestation, record
from tests.records.sample import a_run, edit_json


@dataclass
class Release:
    """A checked model's files, a key pair, and the signed verdict."""

    folder: Path
    int8: Path
    key: Path
    public: Path
    record: Path
    attestation: Path

    def problems(self, *files: Path, **options: Any) -> list[str]:
        options = dict[str, Any](key=self.public, variants=["int8"]) | options
        return list(attestation.problems(self.attestation, files or (self.int8,), **options))


def write_key(folder: Path, name: str) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def certificate(key: Path, path: Path, first: datetime, last: datetime) -> Path:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "release")])
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number(), first, last)
    path.write_bytes(builder.sign(private, None).public_bytes(serialization.Encoding.PEM))
    return path


def released(folder: Path, *, broken: int = 1, valid_days: int | None = None) -> Release:
    run, cells = a_run(broken=broken), []
    for cell in run.cells:
        file = folder / f"{cell.variant}.tflite"
        file.write_bytes(f"the {cell.variant} file".encode())
        cells.append(replace(cell, sha256=sha256(file.read_bytes())))
    model = replace(run.model, sha256=sha256(b"a Keras model"))
    data = replace(run.data, sha256=sha256(b"images"), reference_sha256=sha256(b"images"))
    path = folder / "check.json"
    record.write(replace(run, cells=tuple(cells), model=model, data=data), path)
    key, public = write_key(folder, "release")
    signed = folder / "check.intoto.json"
    signed.write_bytes(attestation.encode(attestation.state(path, valid_days=valid_days), key))
    return Release(folder, folder / "int8.tflite", key, public, path, signed)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return released(tmp_path)


def test_what_was_attested_holds(release: Release) -> None:
    """For each of the files, by variant, accelerator and record."""
    assert release.problems() == []
    assert release.problems(release.folder / "float32.tflite", release.int8, variants=()) == []
    assert release.problems(accelerators=["cpu"], stored=release.record) == []


def test_openssl_makes_the_keys(release: Release) -> None:
    """The commands of docs/ci.md; its signatures are verified by another implementation."""
    key, public = release.folder / "o.pem", release.folder / "o.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    release.attestation.write_bytes(attestation.encode(attestation.state(release.record), key))
    assert release.problems(key=public) == []
    envelope = json.loads(release.attestation.read_text())
    payload, signature = (base64.b64decode(text) for text in (envelope["payload"], envelope["signatures"][0]["sig"]))
    message, sig = release.folder / "message", release.folder / "signature"
    kind = envelope["payloadType"].encode()
    message.write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    sig.write_bytes(signature)
    verify = f"openssl pkeyutl -verify -pubin -inkey {public} -rawin -in {message} -sigfile {sig}".split()
    assert subprocess.run(verify, capture_output=True).returncode == 0


def resigned(release: Release, change: Callable[[dict[str, Any]], None]) -> None:
    """The statement changed in the envelope, its signature as it was."""
    envelope = json.loads(release.attestation.read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    release.attestation.write_text(json.dumps(envelope))


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement["predicate"].update(verdict="INCONCLUSIVE"),
        lambda statement: statement["predicate"]["cells"][1].update(verdict="FAIL"),
        lambda statement: statement["subject"][0]["digest"].update(sha256="0" * 64),
        lambda statement: statement["predicate"].update(data_sha256="0" * 64),
        lambda statement: statement["predicate"].update(model_sha256="0" * 64),
        lambda statement: statement["predicate"].update(policy={}),
        lambda statement: statement["predicate"].update(harness="9.9"),
        lambda statement: statement["predicate"].update(expires="2999-01-01T00:00:00+00:00"),
    ],
)
def test_a_changed_statement(release: Release, change: Callable[[dict[str, Any]], None]) -> None:
    """Any change breaks the signature."""
    resigned(release, change)
    assert release.problems() == [f"it is not signed by the key of {release.public}"]


def test_a_changed_file(release: Release) -> None:
    """One byte more in the model, or another variant's file under its name."""
    release.int8.write_bytes(release.int8.read_bytes() + b"\0")
    assert "is of none of the files that were judged" in release.problems()[0]
    release.int8.write_bytes((release.folder / "float32.tflite").read_bytes())
    assert release.problems() == [f"{release.int8}: it is float32.tflite, not one of int8"]


def test_a_record_written_by_hand(release: Release) -> None:
    """Its verdict no longer follows from its arrays: neither attested nor accepted."""
    edit_json(release.record, lambda content: content.update(verdict="FAIL"))
    with pytest.raises(SetupError, match="altered"):
        attestation.state(release.record)
    with pytest.raises(SetupError, match="altered"):
        release.problems(stored=release.record)


def test_the_record_of_another_check(release: Release, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert release.problems(stored=released(other, broken=2).record) == [
        f"{other / 'check.json'}: it is not the record that was attested"
    ]


def test_a_wrong_key(release: Release) -> None:
    _, public = write_key(release.folder, "other")
    assert release.problems(key=public) == [f"it is not signed by the key of {public}"]


def test_a_certificate_counts_while_it_is_valid(release: Release) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    valid = certificate(release.key, release.folder / "valid.pem", now - day, now + day)
    expired = certificate(release.key, release.folder / "expired.pem", now - 2 * day, now - day)
    assert release.problems(key=valid) == []
    assert f"the certificate {expired} is valid from" in release.problems(key=expired)[0]


def test_an_attestation_expires(tmp_path: Path) -> None:
    release = released(tmp_path, valid_days=1)
    assert release.problems() == []
    assert "it expired on" in release.problems(now=datetime.now(UTC) + timedelta(days=2))[0]


@pytest.mark.parametrize(
    ("broken", "required", "problem"),
    [
        (12, Outcome.PASS, "int8 on cpu: the verdict is INCONCLUSIVE, required is PASS"),
        (12, Outcome.INCONCLUSIVE, None),
        (60, Outcome.INCONCLUSIVE, "int8 on cpu: the verdict is FAIL, required is INCONCLUSIVE"),
    ],
)
def test_a_verdict_that_is_not_enough(tmp_path: Path, broken: int, required: Outcome, problem: str | None) -> None:
    """INCONCLUSIVE is not PASS; another variant's verdict does not matter."""
    release = released(tmp_path, broken=broken)
    assert release.problems(required=required) == ([problem] if problem else [])
    assert release.problems(release.folder / "float32.tflite", variants=["float32"]) == []
    assert bool(release.problems(required=required, variants=())) is bool(problem)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"variants": ["float16"]}, "it says nothing of variant 'float16'; it is of float32, int8"),
        ({"accelerators": ["gpu"]}, "it says nothing of accelerator 'gpu'; it is of cpu"),
    ],
)
def test_what_was_not_judged(release: Release, options: dict[str, Any], problem: str) -> None:
    assert problem in release.problems(**options)


def test_an_unsigned_statement(release: Release) -> None:
    """It is for other tools to sign; it is not taken for a signed one."""
    release.attestation.write_bytes(attestation.encode(attestation.state(release.record)))
    statement = shapes.read_json(release.attestation, attestation.Statement, "a statement")
    assert {subject.name for subject in statement.subject} == {
        "a.keras",
        "check.json",
        "check.npz",
        "float32.tflite",
        "int8.tflite",
    }
    assert release.problems() == [f"it is not signed by the key of {release.public}"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "[" * 100_000, '{"payload": 1}', '{"payload": "", "payloadType": "x", "signatures": []}', "null"],
)
def test_a_file_that_is_no_attestation(release: Release, content: str) -> None:
    release.attestation.write_text(content)
    with pytest.raises(SetupError, match="expected an envelope that harness attest --key wrote"):
        release.problems()


def test_keys_of_another_kind(release: Release) -> None:
    subprocess.run(
        [
            "openssl",
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            release.folder / "ec.pem",
        ],
        check=True,
    )
    with pytest.raises(SetupError, match="a key of another kind; expected the PEM file of an Ed25519 private key"):
        attestation.encode(attestation.state(release.record), release.folder / "ec.pem")
    with pytest.raises(SetupError, match="expected the PEM file of an Ed25519 public key or certificate"):
        release.problems(key=release.int8)


def test_the_commands(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes: the verdict's; 0 where the attestation holds, 1 with a line for each reason, 2 for wrong usage."""
    out = release.folder / "again.intoto.json"
    assert main(["attest", str(release.folder), "--key", str(release.key), "--out", str(out)]) == 0
    assert f"{out}: PASS, 5 files, signed by {release.key}" in capsys.readouterr().out
    verify = ["verify-attestation", str(out), "--key", str(release.public), "--require", "PASS", "--variant", "int8"]
    assert main([*verify, str(release.int8)]) == 0
    assert capsys.readouterr().out == f"{out}: holds for {release.int8}\n"
    release.int8.write_bytes(b"")
    assert main([*verify, "--accelerator", "gpu", str(release.int8)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert main([*verify, "--require", "FAIL", str(release.int8)]) == 2
    assert main(verify) == 2
