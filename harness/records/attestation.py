"""A verdict as an artefact: an in-toto statement over the hashes of all that it rests on, signed in a DSSE envelope.

Statement: in-toto v1 (github.com/in-toto/attestation). Envelope and signatures: securesystemslib, Ed25519 keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, field

from harness.core import extras, shapes
from harness.core.cell import Accelerator
from harness.core.errors import SetupError
from harness.core.files import file_sha256, read_capped, sha256
from harness.core.outcome import Outcome
from harness.core.shapes import Count, Shape
from harness.judge.policy import Policy
from harness.records import record
from harness.records.record import RecordFile
from harness.records.rejudge import rejudge
from harness.records.sharded_arrays import folder_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

StatementType = Literal["https://in-toto.io/Statement/v1"]
PredicateType = Literal["urn:tflite-harness:verdict:v1"]
STATEMENT: StatementType = "https://in-toto.io/Statement/v1"
PREDICATE: PredicateType = "urn:tflite-harness:verdict:v1"
PAYLOAD = "application/vnd.in-toto+json"
MAX_BYTES = 1_000_000  # of an attestation, or a key
ENOUGH = {Outcome.PASS: {Outcome.PASS}, Outcome.INCONCLUSIVE: {Outcome.PASS, Outcome.INCONCLUSIVE}}

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="a SHA-256 in hexadecimal digits")]


class Digest(Shape):
    sha256: Sha256


class Subject(Shape):
    """A file that the verdict rests on."""

    name: str
    digest: Digest


class CellVerdict(Shape):
    """The verdict on a variant on an accelerator."""

    variant: str
    accelerator: Accelerator
    sha256: Sha256
    verdict: Outcome
    flips: Count | None = None


class VerdictPredicate(Shape, kw_only=True):
    """What was judged, and how it ended. latency: None if the policy does not limit it. Times: UTC, ISO 8601."""

    verdict: Outcome
    latency: Outcome | None = None
    cells: tuple[CellVerdict, ...]
    model_sha256: Sha256
    data_sha256: Sha256
    images: Count
    policy: Policy
    policy_sha256: Sha256
    device: str
    harness: str  # version
    checked: str
    attested: str
    expires: str | None = None


class Statement(Shape, kw_only=True):
    """An in-toto statement."""

    type: StatementType = field(default=STATEMENT, name="_type")
    subject: tuple[Subject, ...]
    predicate_type: PredicateType = field(default=PREDICATE, name="predicateType")
    predicate: VerdictPredicate


def state(path: Path, other_policy: Path | None = None, valid_days: int | None = None) -> Statement:
    """The statement of a stored check, judged again from its arrays. Raises SetupError as `rejudge` does."""
    path = path / record.FILE if path.is_dir() else path
    judged = rejudge(path, other_policy)
    stored = shapes.read_json(path, RecordFile, "a record of harness check")
    now = datetime.now(UTC)
    expires = now + timedelta(days=valid_days) if valid_days else None
    files = {path.name: file_sha256(path, "a record"), stored.arrays: stored.arrays_sha256}
    files |= {f"{folder_of(path).name}/{shard.file}": shard.sha256 for shard in stored.shards}
    files |= {f"{cell.variant}.tflite": cell.sha256 for cell in judged.cells}
    files[Path(judged.model.file).name] = judged.model.sha256
    predicate = VerdictPredicate(
        verdict=judged.outcome,
        latency=judged.timing.verdict.outcome if judged.timing and judged.timing.gated else None,
        cells=tuple(
            CellVerdict(
                cell.variant,
                cell.accelerator,
                cell.sha256,
                cell.verdict.outcome,
                cell.parity.flips if cell.parity else None,
            )
            for cell in judged.cells
        ),
        model_sha256=judged.model.sha256,
        data_sha256=judged.data.sha256,
        images=judged.data.images,
        policy=judged.policy,
        policy_sha256=_policy_sha256(judged.policy),
        device=judged.device.uri,
        harness=metadata.version("tflite-harness"),
        checked=judged.started,
        attested=now.isoformat(timespec="seconds"),
        expires=expires.isoformat(timespec="seconds") if expires else None,
    )
    return Statement(
        subject=tuple(Subject(name, Digest(digest)) for name, digest in sorted(files.items())), predicate=predicate
    )


def encode(statement: Statement, key: Path | None = None) -> bytes:
    """The statement in an envelope signed by a private key's PEM file; without a key the bare statement."""
    content = shapes.encode(statement)
    if key is None:
        return content
    dsse, signer = _library()
    envelope, private = dsse.Envelope(content, PAYLOAD, {}), _private_key(key)
    envelope.sign(signer.CryptoSigner(private, signer.SSlibKey.from_crypto(private.public_key())))
    return shapes.encode(envelope.to_dict())


def problems(
    path: Path,
    files: Sequence[Path],
    key: Path,
    required: Outcome = Outcome.PASS,
    variants: Sequence[str] = (),
    accelerators: Sequence[str] = (),
    stored: Path | None = None,
    now: datetime | None = None,
) -> Iterator[str]:
    """Why an attestation does not hold for these files, each in one line; none if it does.

    key: PEM of the signer's public key or certificate. variants, accelerators: whose verdict counts; empty: of all.
    stored: the record, to derive its verdict again. now: the time at which the key and the attestation must be valid.
    Raises SetupError: a file cannot be read, or is none of these.
    """
    dsse, signer = _library()
    public, validity = _public_key(key)
    content = _verified(path, dsse, signer.SSlibKey.from_crypto(public))
    if content is None:
        yield f"it is not signed by the key of {key}"
        return
    statement = shapes.decode(content, Statement, str(path), "expected a statement of harness attest")
    predicate, now = statement.predicate, now or datetime.now(UTC)
    if validity and not validity[0] <= now <= validity[1]:
        yield f"the certificate {key} is valid from {validity[0]:%Y-%m-%d} to {validity[1]:%Y-%m-%d}, not today"
    if predicate.expires and now > _time(predicate.expires, path):
        yield f"it expired on {predicate.expires}; run harness check and harness attest again"
    if predicate.policy_sha256 != _policy_sha256(predicate.policy):
        yield "its policy is not the one whose hash it states"
    cells = [
        cell
        for cell in predicate.cells
        if (not variants or cell.variant in variants) and (not accelerators or cell.accelerator in accelerators)
    ]
    for what, asked, known in (
        ("variant", variants, {cell.variant for cell in predicate.cells}),
        ("accelerator", accelerators, {cell.accelerator for cell in predicate.cells}),
    ):
        yield from (
            f"it says nothing of {what} {name!r}; it is of {', '.join(sorted(known))}"
            for name in asked
            if name not in known
        )
    yield from _wrong_files(files, statement, cells, bool(variants))
    enough = ENOUGH[required]
    yield from (
        f"{cell.variant} on {cell.accelerator}: the verdict is {cell.verdict}, required is {required}"
        for cell in cells
        if cell.verdict not in enough
    )
    if predicate.latency not in (None, *enough):
        yield f"latency: the verdict is {predicate.latency}, required is {required}"
    if not (variants or accelerators) and predicate.verdict not in enough:
        yield f"the verdict of all is {predicate.verdict}, required is {required}"
    if stored:
        yield from _unlike(stored, statement)


def _wrong_files(
    files: Iterable[Path], statement: Statement, cells: Sequence[CellVerdict], by_variant: bool
) -> Iterator[str]:
    known = {subject.digest.sha256: subject.name for subject in statement.subject}
    judged = {cell.sha256 for cell in cells}
    for file in files:
        digest = file_sha256(file, "a file of the attestation")
        if digest not in known:
            yield f"{file}: its SHA-256 {digest[:12]} is of none of the files that were judged"
        elif by_variant and file.suffix == ".tflite" and digest not in judged:
            yield f"{file}: it is {known[digest]}, not one of {', '.join(sorted({cell.variant for cell in cells}))}"


def _unlike(stored: Path, statement: Statement) -> Iterator[str]:
    """Whether a record gives another statement than this. Raises SetupError for one that was altered."""
    again = state(stored)
    if again.subject != statement.subject:
        yield f"{stored}: it is not the record that was attested"
    elif again.predicate.policy == statement.predicate.policy and again.predicate.cells != statement.predicate.cells:
        yield f"{stored}: its arrays give other verdicts"


def _policy_sha256(policy: Policy) -> str:
    return sha256(json.dumps(shapes.to_builtins(policy), sort_keys=True).encode())


def _time(text: str, path: Path) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise SetupError(f"{path}: expires: {text!r} is not a time in ISO 8601") from error


def _verified(path: Path, dsse: Any, key: Any) -> bytes | None:
    """The content of an envelope. None if the key did not sign it. Raises SetupError: it is no envelope."""
    from securesystemslib import exceptions

    expected = "expected an envelope that harness attest --key wrote"
    try:
        table: Any = json.loads(read_capped(path, MAX_BYTES, "an attestation"))
        if isinstance(table, dict) and table.get("_type") == STATEMENT:
            return None
        envelope = dsse.Envelope.from_dict(table)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, exceptions.FormatError) as error:
        raise SetupError(f"{path}: {type(error).__name__}: {error}; {expected}") from error
    if envelope.payload_type != PAYLOAD:
        raise SetupError(f"{path}: holds {str(envelope.payload_type)[:80]!r}; {expected}")
    try:
        envelope.verify([key], 1)
    except exceptions.VerificationError:
        return None
    content: bytes = envelope.payload
    return content


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected = "expected the PEM file of an Ed25519 private key: openssl genpkey -algorithm ed25519 -out key.pem"
    try:
        key = load_pem_private_key(read_capped(path, MAX_BYTES, "a private key"), None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise SetupError(f"{path}: {str(error).splitlines()[0]}; {expected}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SetupError(f"{path}: a key of another kind; {expected}")
    return key


def _public_key(path: Path) -> tuple[Ed25519PublicKey, tuple[datetime, datetime] | None]:
    """The key, and when it is valid if the file is a certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    expected = "expected the PEM file of an Ed25519 public key or certificate: openssl pkey -in key.pem -pubout"
    content = read_capped(path, MAX_BYTES, "a public key")
    key: Any
    validity = None
    try:
        if b"BEGIN CERTIFICATE" in content:
            certificate = x509.load_pem_x509_certificate(content)
            validity = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            key = certificate.public_key()
        else:
            key = load_pem_public_key(content)
    except ValueError as error:
        raise SetupError(f"{path}: {str(error).splitlines()[0]}; {expected}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SetupError(f"{path}: a key of another kind; {expected}")
    return key, validity


def _library() -> tuple[Any, Any]:
    """securesystemslib's modules for envelopes and signers. Raises SetupError where the extra is missing."""
    try:
        import cryptography  # noqa: F401
        from securesystemslib import dsse, signer
    except ImportError as error:
        raise extras.missing("attest", f"signatures need the extra attest ({error.name})") from error
    return dsse, signer
