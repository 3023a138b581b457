import json
from hashlib import sha256
from pathlib import Path

import pytest

from sporeprint.errors import DamagedStore
from sporeprint.features import saved
from sporeprint.store.atomic import SealForm, seal, unseal, unseal_bytes
from sporeprint.store.schema import DIGEST, mismatch

BEFORE = Path(__file__).parents[1] / "data" / "before_rooms"
VALUE = {"b": [1, 2.5, None], "a": "é"}
FORM = SealForm(key="sha256", end=b"")


def test_a_seal_is_readable_json_with_a_checksum_of_the_rest():
    whole = json.loads(seal("plan", VALUE))
    rest = b'{"a":"\xc3\xa9","b":[1,2.5,null],"kind":"plan"}'
    assert whole == {**VALUE, "kind": "plan", "checksum": sha256(rest).hexdigest()}
    assert json.loads(seal(None, VALUE, FORM)) == {
        **VALUE,
        "sha256": sha256(b'{"a":"\xc3\xa9","b":[1,2.5,null]}').hexdigest(),
    }


@pytest.mark.parametrize(("kind", "form"), [("plan", SealForm()), (None, FORM)])
def test_what_was_sealed_comes_back_and_no_other_byte_does(kind, form):
    data = seal(kind, VALUE, form)
    assert unseal_bytes(kind, data, form) == VALUE
    for at in range(len(data)):
        for altered in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at] + b" " + data[at:]):
            with pytest.raises(ValueError, match="is not what was written: its checksum differs"):
                unseal_bytes(kind, altered, form)


def test_a_seal_of_another_kind_or_form_is_refused(tmp_path):
    (tmp_path / "plan.json").write_bytes(seal("plan", VALUE))
    with pytest.raises(DamagedStore, match=r"plan\.json' is not what was written"):
        unseal("manifest", tmp_path / "plan.json")
    with pytest.raises(ValueError, match="is not what was written"):
        unseal_bytes("plan", seal("plan", VALUE), FORM)


def test_where_the_form_is_not_exact_another_spelling_of_the_same_values_opens():
    form = SealForm(key="sha256", end=b"", exact=False)
    whole = json.loads(seal(None, VALUE, form))
    assert unseal_bytes(None, json.dumps(whole).encode(), form) == VALUE
    with pytest.raises(ValueError, match="is not what was written"):
        unseal_bytes(None, json.dumps({**whole, "a": "e"}).encode(), form)


@pytest.mark.parametrize(
    "path", ["train.store/plan.json", "train.store/manifest.json", "train.store/shards/00000.json"]
)
def test_files_of_earlier_stores_are_sealed_in_the_same_bytes(path):
    kind = Path(path).stem if "shards" not in path else "shard"
    assert seal(kind, unseal(kind, BEFORE / path)) == (BEFORE / path).read_bytes()


def test_a_fungi_saved_earlier_is_packed_into_the_same_bytes():
    read = saved.read_folder(BEFORE / "fungi")
    description, tensors = saved.unpack_parts(read, "fungi")
    description = {key: value for key, value in description.items() if key not in ("format", "tensors_sha256")}
    assert saved.pack_parts(description, tensors) == {
        name: read(name) for name in (saved.TENSORS_NAME, saved.JSON_NAME)
    }


@pytest.mark.parametrize("text", ["0123456789abcdef" * 4, "a" * 64])
def test_a_digest_is_64_lower_hexadecimal_digits(text):
    assert mismatch(text, DIGEST) == ""


@pytest.mark.parametrize("text", ["z" * 64, "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "\u0661" * 64, "", 0, None])
def test_what_is_no_digest_is_refused(text):
    assert "expected a sha256" in mismatch(text, DIGEST)
