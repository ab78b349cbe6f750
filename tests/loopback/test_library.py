"""Packages, licences, aliases and removal, by the command line and on real peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon.sdk.npz import save
from tests.loopback.conftest import Settled
from tests.loopback.town import Outcome, Peer, Town
from tests.models import UserModel, external_data_model, five_models


def write(folder: Path, model: UserModel) -> Path:
    """A directory with a model, something beside it, and its inputs next door; the directory."""
    package = folder / "package"
    package.mkdir()
    (package / "model.onnx").write_bytes(model.model)
    (package / "empty.txt").touch()
    (package / "labels.txt").write_text("one\ntwo\n")
    save(folder / "in.npz", model.inputs)
    return package


def pack(town: Town, folder: Path, *options: str) -> str:
    """Make a package of a directory; its id."""
    said = town.cocoon(town.directory / "nobody", "models", "pack", str(folder), *options, "--json")
    assert said.code == 0, said
    model: str = said.objects[-1]["summary"]["model"]
    return model


def run(town: Town, buyer: Peer, model: str, folder: Path) -> Outcome:
    """Run a model once."""
    return town.cocoon(buyer, "run", model, "--input", str(folder / "in.npz"), "--json")


def test_a_package_says_what_it_is_and_is_run_from_where_it_lies(settled: Settled, tmp_path: Path) -> None:
    package = write(tmp_path, five_models()[0])
    model = pack(settled.town, package, "--name", "Adder", "--licence", "MIT OR Apache-2.0", "--kind", "infer",
                 "--joinable", "0", "0", "--determinism", "exact")
    told = settled.town.cocoon(settled.requester, "models", "inspect", str(package), "--json").objects[-1]["summary"]
    assert (told["model"], told["name"], told["licence"], told["main"]) == (
        model, "Adder", "MIT OR Apache-2.0", "model.onnx"
    )
    assert (told["held"], told["public"], told["announced"], told["leased"]) == (True, False, False, False)
    assert [file["path"] for file in told["files"]] == ["empty.txt", "labels.txt", "model.onnx"]
    assert {end["name"] for end in told["inputs"]} == set(five_models()[0].inputs)
    done = run(settled.town, settled.requester, str(package), tmp_path)
    assert done.code == 0, done
    assert done.objects[-1]["summary"]["licence"] == "MIT OR Apache-2.0"
    assert done.err.count("licence: MIT OR Apache-2.0") == 1
    (package / "labels.txt").write_text("two\none\n")
    changed = run(settled.town, settled.requester, str(package), tmp_path)
    assert (changed.code, changed.error["code"]) == (20, "model_refused")


def test_equal_packages_have_equal_ids_and_another_licence_is_another_model(settled: Settled, tmp_path: Path) -> None:
    package = write(tmp_path, five_models()[0])
    copy = tmp_path / "copy"
    first = pack(settled.town, package, "--licence", "MIT")
    assert pack(settled.town, package, "--licence", "MIT", "--output", str(copy)) == first
    assert pack(settled.town, copy, "--licence", "ISC") != first


def test_what_no_provider_would_load_or_read_is_not_packed(settled: Settled, tmp_path: Path) -> None:
    package = write(tmp_path, five_models()[0])
    nobody = settled.town.directory / "nobody"
    for options, code in (
        (("--licence", "do what you like!"), "usage"), (("--kind", "magic"), "usage"),
        (("--main", "none.onnx"), "usage"), (("--main", "labels.txt"), "model_refused"),
    ):
        said = settled.town.cocoon(nobody, "models", "pack", str(package), *options, "--json")
        assert said.error["code"] == code, said
    (package / "weights.bin").write_bytes(bytes(16))
    (package / "model.onnx").write_bytes(external_data_model("weights.bin"))
    said = settled.town.cocoon(nobody, "models", "pack", str(package), "--json")
    assert said.error["code"] == "model_refused", "external data is refused, although the package would have it"
    assert not (package / "manifest.cocoon").exists()


def test_a_refused_licence_is_refused_by_name_before_anything_is_fetched(empty_town: Town, tmp_path: Path) -> None:
    """The reason reaches whoever wanted the run; a way out that the licence offers is taken."""
    empty_town.bootstrap()
    seller = empty_town.provider("seller", deny_licences="GPL-3.0-only,none")
    buyer = empty_town.requester("buyer")
    package = write(tmp_path, five_models()[0])
    pack(empty_town, package, "--licence", "GPL-3.0-only")
    refused = run(empty_town, buyer, str(package), tmp_path)
    assert refused.code == 79, refused
    assert refused.error["code"] == "licence_refused" and "'GPL-3.0-only' are not run here" in refused.error["text"]
    bare = run(empty_town, buyer, str(package / "model.onnx"), tmp_path)
    assert bare.error["code"] == "licence_refused" and "'none'" in bare.error["text"]
    assert not list((seller.home / "leased").rglob("*")), "nothing of either was fetched"
    pack(empty_town, package, "--licence", "GPL-3.0-only OR MIT")
    assert run(empty_town, buyer, str(package), tmp_path).code == 0
    (package / "manifest.cocoon").unlink()
    held = pack(empty_town, package, "--licence", "GPL-3.0-only")
    assert empty_town.cocoon(seller, "models", "add", "--public", str(package)).code == 0
    asked = run(empty_town, buyer, held, tmp_path)
    assert asked.error["code"] == "licence_refused" and "'GPL-3.0-only'" in asked.error["text"]
    assert '"call_declined"' in seller.log(), "of a model that it holds it knows before there is a lease"


def test_a_model_that_was_measured_is_not_run_for_less_than_its_time_costs(empty_town: Town, tmp_path: Path) -> None:
    empty_town.bootstrap()
    seller = empty_town.provider("seller", floor_hour_nanoton="1000000000000")
    buyers = [empty_town.requester(name) for name in ("first", "second")]
    package = write(tmp_path, five_models()[0])
    model = pack(empty_town, package, "--licence", "MIT")
    assert empty_town.cocoon(seller, "models", "add", "--public", str(package)).code == 0
    assert run(empty_town, buyers[0], model, tmp_path).code == 0, "nobody knows yet how long it takes"
    refused = run(empty_town, buyers[1], model, tmp_path)
    assert refused.code and refused.error["code"] == "below_cost", refused
    assert "and 0 are asked" in refused.error["text"]
    calls = empty_town.cocoon(seller, "market", "--json")
    assert calls.objects[-1]["summary"]["declined"] == {"below_cost": 1}, calls


def test_a_model_is_run_by_the_user_s_own_name_for_it_and_by_nobody_else_s(settled: Settled, tmp_path: Path) -> None:
    town, buyer, holder = settled.town, settled.requester, settled.provider
    package = write(tmp_path, five_models()[0])
    model = pack(town, package, "--licence", "MIT")
    assert town.cocoon(holder, "models", "add", "--public", str(package)).code == 0
    assert town.cocoon(holder, "models", "alias", "strangers", model).code == 0
    assert town.cocoon(buyer, "models", "alias", "adder", model).code == 0
    done = run(town, buyer, "adder", tmp_path)
    assert done.code == 0, done
    assert "licence: MIT" in done.err
    theirs = run(town, buyer, "strangers", tmp_path)
    assert (theirs.code, theirs.error["code"]) == (18, "not_found"), "another peer's name means nothing here"
    assert town.cocoon(buyer, "models", "alias", "--json").objects[0] == {"name": "adder", "model": model}
    assert town.cocoon(buyer, "models", "alias", "adder", "--remove").code == 0
    assert run(town, buyer, "adder", tmp_path).error["code"] == "not_found"


def test_a_model_is_not_removed_while_a_lease_runs_it(empty_town: Town, tmp_path: Path) -> None:
    empty_town.bootstrap()
    seller, buyer = empty_town.provider("seller"), empty_town.requester("buyer")
    package = write(tmp_path, five_models()[0])
    model = pack(empty_town, package)
    assert empty_town.cocoon(seller, "models", "add", "--public", str(package)).code == 0
    assert run(empty_town, buyer, model, tmp_path).code == 0
    refused = empty_town.cocoon(seller, "models", "rm", model, "--json")
    assert (refused.code, refused.error["code"]) == (78, "model_in_use")
    assert (seller.home / "models" / model).is_dir()
    assert buyer.terminate() == 0
    assert seller.terminate() == 0                      # its drain waits until the lease is cleared away
    seller = empty_town.provider("seller")
    inspected = empty_town.cocoon(seller, "models", "inspect", model, "--json").objects[-1]["summary"]
    assert inspected["held"] and inspected["announced"]
    assert empty_town.cocoon(seller, "models", "rm", model).code == 0
    assert not (seller.home / "models" / model).exists()
    assert empty_town.cocoon(seller, "models", "rm", model, "--json").error["code"] == "not_found"
    assert empty_town.cocoon(seller, "models", "ls", "--json").objects == [{"summary": {"models": 0}}]


def test_a_model_that_was_damaged_on_disk_is_not_loaded_but_fetched_anew(empty_town: Town, tmp_path: Path) -> None:
    empty_town.bootstrap()
    seller, buyer = empty_town.provider("seller"), empty_town.requester("buyer")
    package = write(tmp_path, five_models()[0])
    model = pack(empty_town, package)
    for peer in (seller, buyer):
        assert empty_town.cocoon(peer, "models", "add", "--public", str(package)).code == 0
    (seller.home / "models" / model / "1.onnx").write_bytes(b"ONE\ntwo\n")
    refused = run(empty_town, buyer, model, tmp_path)
    assert refused.code == 3, refused
    assert run(empty_town, buyer, model, tmp_path).code == 0
    assert (seller.home / "models" / model / "1.onnx").read_bytes() == b"one\ntwo\n"


def test_what_leases_brought_makes_room_for_what_they_bring_next(empty_town: Town, tmp_path: Path) -> None:
    """A provider keeps models for later leases, within its quota, and never at the cost of its owner's."""
    empty_town.bootstrap()
    holder = empty_town.requester("holder")             # announces nothing: the buyer hands the models over
    models, folders = [], []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        package = write(folder, five_models()[0])
        (package / "padding.bin").write_bytes(bytes([number]) * 100_000)
        models.append(pack(empty_town, package))
        folders.append(folder)
        assert empty_town.cocoon(holder, "models", "add", "--public", str(package)).code == 0
    quota = {"leased_models_bytes": "150000"}
    seller = empty_town.provider("seller", **quota)
    assert empty_town.cocoon(seller, "models", "add", "--public", str(folders[0] / "package")).code == 0
    for number in (1, 2):
        done = run(empty_town, holder, models[number], folders[number])
        assert done.code == 0, done
        assert empty_town.cocoon(seller, "models", "ls", "--json").code == 0
        kept = {path.name for path in (seller.home / "models").iterdir()}
        assert kept == {models[0], models[number]}
        assert seller.terminate() == 0                  # so that no lease is open on it any more
        seller = empty_town.provider("seller", **quota)


@pytest.mark.parametrize("arguments", [("alias", "a"), ("alias", "a", "ab" * 32, "--remove"), ("pull", "No Name")])
def test_a_call_that_makes_no_sense_is_refused(settled: Settled, arguments: tuple[str, ...]) -> None:
    said = settled.town.cocoon(settled.requester, "models", *arguments, "--json")
    assert (said.code, said.error["code"]) == (2, "usage")
