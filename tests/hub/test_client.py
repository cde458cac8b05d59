"""Networks to and from a Hub on this machine, with the real client; every failure in our words."""

import errno
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants, file_download
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_hub import hub_fixture  # noqa: F401

from imtrans import PatchDiscriminator, PixelDiscriminator, ResnetGenerator, UNetGenerator, load_pretrained
from imtrans.errors import HubError, ImtransError, SavedModelError
from imtrans.hub.client import is_intact, is_repo_id, push

NETWORKS = {
    "unet": lambda: UNetGenerator(base_channels=4, depth=2, skips=["gate"], attention=[1]),
    "resnet": lambda: ResnetGenerator(base_channels=4, num_blocks=1, norm="batch"),
    "patch": lambda: PatchDiscriminator(3, base_channels=4, n_layers=2, spectral_norm=True),
    "pixel": lambda: PixelDiscriminator(3, base_channels=4),
}
FILES = ["config.json", "model.safetensors"]


@pytest.fixture(params=NETWORKS)
def network(request):
    """One of each class, with statistics that have left their start."""
    made = NETWORKS[request.param]()
    made(torch.randn(2, 3, 32, 32))
    made.inference_mode = "batch_stats"
    return made.eval()


@pytest.fixture
def pushed(hub):
    """A network that is in user/repo, which anyone may read."""
    made = NETWORKS["unet"]().eval()
    made.push_to_hub("user/repo", token=hub.token)
    hub.requests.clear()
    return made


def same(one, other, dtype=torch.float32):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert type(one) is type(other)
    assert (one.config, one.inference_mode, one.training) == (other.config, other.inference_mode, other.training)
    with torch.no_grad():
        return torch.equal(one(images), other(images))


def message_of(action, error=HubError):
    with pytest.raises(ImtransError) as caught:
        action()
    assert type(caught.value) is error
    return str(caught.value)


def pull():
    return load_pretrained("user/repo")


def new_weights(hub):
    """Weights in user/repo that no cache has; and the network they are of."""
    made = NETWORKS["unet"]().eval()
    made.push_to_hub("user/repo", token=hub.token)
    hub.requests.clear()
    return made


# Round trips


def test_every_network_comes_back_by_id_and_by_class(hub, network):
    address = network.push_to_hub("user/repo", token=hub.token)
    assert address == f"{hub.endpoint}/user/repo"
    assert same(load_pretrained("user/repo"), network)
    assert same(type(network).from_pretrained("user/repo"), network)
    assert not network.training


def test_every_network_comes_back_by_revision(hub, network):
    api = HfApi(token=hub.token)
    first, second, third = network, type(network)(**network.config).eval(), type(network)(**network.config).eval()
    for later in (second, third):
        later.inference_mode = "batch_stats"
    first.push_to_hub("user/repo", token=hub.token)
    commit = hub.commits("user/repo")[-1].oid
    api.create_tag("user/repo", tag="v1")
    second.push_to_hub("user/repo", token=hub.token)
    third.push_to_hub("user/repo", token=hub.token, revision="dev")
    for revision, expected in {"v1": first, commit: first, None: second, "main": second, "dev": third}.items():
        for load in (load_pretrained, type(network).from_pretrained):
            assert same(load("user/repo", revision=revision), expected), revision


def test_every_network_comes_back_from_a_private_repo(hub, network, monkeypatch):
    network.push_to_hub("user/secret", token=hub.token, private=True)
    assert hub.repo("user/secret").private
    assert message_of(lambda: load_pretrained("user/secret")).startswith("user/secret: there is no such folder here")
    assert same(load_pretrained("user/secret", token=hub.token), network)
    assert same(type(network).from_pretrained("user/secret", token=hub.token), network)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert same(load_pretrained("user/secret"), network)


def test_a_gated_repo_opens_to_who_was_admitted(hub, pushed):
    hub.repo("user/repo").gated = True
    message = (
        "user/repo: the repo is gated. Ask for access on its page on the Hub, then pass token=... of that account, or "
        "log in with `hf auth login`."
    )
    assert message_of(pull) == message
    assert message_of(lambda: load_pretrained("user/repo", token=hub.token)) == message
    hub.repo("user/repo").approved.add(hub.token)
    assert same(load_pretrained("user/repo", token=hub.token), pushed)


def test_bf16_survives(hub, network):
    network.to(torch.bfloat16).push_to_hub("user/repo", token=hub.token)
    loaded = load_pretrained("user/repo")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert same(loaded, network, torch.bfloat16)


def test_channels_last_survives(hub, network):
    network.to(memory_format=torch.channels_last).push_to_hub("user/repo", token=hub.token)
    loaded = load_pretrained("user/repo")
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in network.parameters()]
    assert same(loaded, network)


def test_a_subfolder_of_a_repo(hub, pushed):
    critic = NETWORKS["patch"]().eval()
    files = {}
    for name, network in {"generator": pushed, "discriminator": critic}.items():
        network.save_pretrained(name_folder := Path(constants.HF_HUB_CACHE).parent / name)
        files |= {f"{name}/{path.name}": path.read_bytes() for path in name_folder.iterdir()}
    hub.commit("user/repo", files)
    assert same(load_pretrained("user/repo", subfolder="discriminator"), critic)
    assert same(PatchDiscriminator.from_pretrained("user/repo", subfolder="discriminator"), critic)
    assert message_of(lambda: load_pretrained("user/repo", subfolder="none")) == (
        "user/repo: the repo lacks a file of a saved model. It was not saved by imtrans, or not in this folder of it."
    )


# What is pushed


def test_the_files_of_a_repo(hub, pushed):
    assert sorted(hub.files("user/repo")) == ["README.md", "config.json", "model.safetensors"]
    assert [commit.title for commit in hub.commits("user/repo")] == ["initial commit", "Upload with imtrans"]
    card = hub.files("user/repo")["README.md"].decode()
    assert card.startswith(
        "---\nlibrary_name: imtrans\npipeline_tag: image-to-image\n"
        "tags:\n- imtrans\n- image-to-image\n- UNetGenerator\n---\n"
    )


def test_an_unchanged_push_makes_no_commit(hub, pushed):
    before = hub.commits("user/repo")
    assert pushed.push_to_hub("user/repo", token=hub.token) == f"{hub.endpoint}/user/repo"
    load_pretrained("user/repo").push_to_hub("user/repo", token=hub.token)
    assert hub.commits("user/repo") == before
    with torch.no_grad():
        next(pushed.parameters())[0] += 1
    pushed.push_to_hub("user/repo", token=hub.token, message="warmer")
    assert [commit.title for commit in hub.commits("user/repo")][2:] == ["warmer"]


def test_how_it_was_trained_is_on_the_card(hub):
    NETWORKS["unet"]().push_to_hub("user/repo", token=hub.token, training={"data": Path("a|b"), "steps": 3})
    card = hub.files("user/repo")["README.md"].decode()
    assert '## Training\n\n|  |  |\n| --- | --- |\n| data | "a\\|b" |\n| steps | 3 |\n' in card


def test_what_cannot_be_saved_is_not_pushed(hub):
    network = UNetGenerator(base_channels=2, depth=1, norm=torch.nn.BatchNorm2d)
    assert "norm=<class" in message_of(lambda: network.push_to_hub("user/repo", token=hub.token), SavedModelError)
    assert hub.requests == []


# What is asked for


def test_nothing_but_the_two_files_is_ever_asked_for(hub, pushed):
    evil = dict.fromkeys(("modeling.py", "__init__.py", "config.py", "pytorch_model.bin"), b"raise SystemExit")
    hub.commit("user/repo", evil)
    for load in (load_pretrained, UNetGenerator.from_pretrained):
        assert same(load("user/repo"), pushed)
    names = {request.path.split("/")[-1] for request in hub.requests}
    assert names == set(FILES)
    assert {request.method for request in hub.requests} == {"HEAD", "GET"}
    assert sum(request.method == "GET" for request in hub.requests) == 2
    cached = [path.name for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_symlink()]
    assert sorted(cached) == FILES


def test_a_warm_cache_is_not_fetched_again(hub, pushed):
    pull()
    hub.requests.clear()
    pull()
    assert [request.method for request in hub.requests] == ["HEAD", "HEAD"]


def test_the_storage_host_never_sees_a_token(hub, network):
    network.push_to_hub("user/secret", token=hub.token, private=True)
    load_pretrained("user/secret", token=hub.token)
    assert any(request.headers["Host"].startswith("localhost") for request in hub.requests)
    assert hub.leaks == []


# Who may not

NO_REPO = (
    "there is no such folder here, and no such repo on the Hub that this token can read. Check the spelling; for a "
    "private repo, pass token=... or log in with `hf auth login`."
)
NO_RIGHT = (
    "the token is missing or invalid, or does not permit this ({}). Make one with this permission in the settings "
    "of your account on the Hub, then pass token=..., or log in with `hf auth login`."
)


@pytest.mark.parametrize("token", [None, "hf_test", "hf_other"])
def test_a_repo_that_is_not_there(hub, token):
    for name in ("user/none", "runs/generatr"):
        assert message_of(lambda name=name: load_pretrained(name, token=token)) == f"{name}: {NO_REPO}"


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_a_private_repo(hub, pushed, token):
    hub.repo("user/repo").private = True
    assert message_of(lambda: load_pretrained("user/repo", token=token)) == f"user/repo: {NO_REPO}"


def test_a_bad_token(hub, pushed):
    for name in ("user/repo", "user/none"):
        assert message_of(lambda name=name: load_pretrained(name, token="hf_bad")) == f"{name}: {NO_RIGHT.format(401)}"


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("hf_bad", 401), ("hf_other", 403)])
@pytest.mark.parametrize("name", ["user/repo", "user/new"])
def test_who_may_not_push(hub, pushed, token, status, name):
    before = hub.files("user/repo")
    message = message_of(lambda: NETWORKS["pixel"]().push_to_hub(name, token=token))
    assert re.sub(r"\(40[134]\)", "()", message) == f"{name}: {NO_RIGHT.format('')}"
    assert name == "user/repo" or f"({status})" in message
    assert hub.files("user/repo") == before


@pytest.mark.parametrize("token", ["", "hf_secret\n", "hf_ secret", "hf_sécret"])
def test_a_token_that_was_badly_copied_is_not_shown(hub, pushed, token):
    for action in (
        lambda: load_pretrained("user/repo", token=token),
        lambda: pushed.push_to_hub("user/repo", token=token),
    ):
        assert message_of(action) == (
            "user/repo: the token is empty, or has a space or a line break in it. Copy it again."
        )
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["v9", "a" * 40, "x y"])
def test_a_revision_that_is_not_there(hub, pushed, revision):
    assert message_of(lambda: load_pretrained("user/repo", revision=revision)) == (
        f"user/repo: the repo has no revision {revision!r}. Give a branch, a tag, a whole commit hash, or none."
    )


@pytest.mark.parametrize("name", ["user/repo.git", "us--er/repo", "user/repo-", "x" * 99 + "/repo"])
def test_a_name_that_no_repo_can_have(hub, name):
    for action in (lambda: load_pretrained(name), lambda: NETWORKS["pixel"]().push_to_hub(name, token=hub.token)):
        assert message_of(action) == f"{name}: this is not the name of a repo. A repo is 'user/name'."
    assert hub.requests == []


def test_a_repo_of_somebody_else(hub):
    hub.add_repo("user/repo", {"README.md": b"hi"})
    assert message_of(pull) == (
        "user/repo: the repo lacks a file of a saved model. It was not saved by imtrans, or not in this folder of it."
    )
    hub.commit("user/repo", {"config.json": b'{"architectures": ["BertModel"]}'})
    message = message_of(pull, SavedModelError)
    assert message.endswith('config.json was not written by imtrans: it has no entry "library": "imtrans".')


def test_a_repo_without_weights(hub, pushed):
    hub.commit("user/repo", delete=["model.safetensors"])
    assert message_of(pull) == (
        "user/repo: the repo lacks a file of a saved model. It was not saved by imtrans, or not in this folder of it."
    )


# What breaks in a pull

UNREACHABLE = (
    "there is no such folder here, the Hub cannot be reached, and its cache has no copy. Connect to the network, and "
    "try again."
)
BROKE = r"the transfer broke off \(.+\)\. Check the network, and try again\."
ANSWERED = r"the Hub answered with the error {}\. Try again later\."
CONFIG, WEIGHTS = "*config.json", "*model.safetensors"

# A fault for ever, what a cold cache says, and whether a warm cache is asked for nothing that the fault meets.
PULLS = {
    "HEAD dropped": (lambda f, file: f.drop(f"HEAD {file}"), BROKE),
    "HEAD reset": (lambda f, file: f.drop(f"HEAD {file}", reset=True), BROKE),
    "HEAD 500": (lambda f, file: f.status(f"HEAD {file}", 500), ANSWERED.format(500)),
    "HEAD 503": (lambda f, file: f.status(f"HEAD {file}", 503), ANSWERED.format(503)),
    "HEAD 429": (lambda f, file: f.status(f"HEAD {file}", 429), ANSWERED.format(429)),
    "HEAD 403": (lambda f, file: f.status(f"HEAD {file}", 403), re.escape(NO_RIGHT.format(403))),
    "HEAD of a captive portal": (lambda f, file: f.status(f"HEAD {file}", 200), re.escape(UNREACHABLE)),
    "HEAD of a wrong size": (lambda f, file: f.wrong_length(f"HEAD {file}", 7), BROKE),
    "GET dropped": (lambda f, file: f.drop(f"GET {file}"), BROKE),
    "GET reset": (lambda f, file: f.drop(f"GET {file}", reset=True), BROKE),
    "GET 500": (lambda f, file: f.status(f"GET {file}", 500), ANSWERED.format(500)),
    "GET 429": (lambda f, file: f.status(f"GET {file}", 429), ANSWERED.format(429)),
    "GET 403": (lambda f, file: f.status(f"GET {file}", 403), re.escape(NO_RIGHT.format(403))),
    "GET cut": (lambda f, file: f.cut_body(f"GET {file}", 100), BROKE),
    "GET short": (lambda f, file: f.short_body(f"GET {file}", 100), BROKE),
    "GET of a longer length": (lambda f, file: f.wrong_length(f"GET {file}", 7), BROKE),
    "GET of a shorter length": (lambda f, file: f.wrong_length(f"GET {file}", -7), BROKE),
}


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("case", PULLS)
def test_a_fault_for_ever_is_told_and_a_warm_cache_works(hub, pushed, case, file):
    fault, expected = PULLS[case]
    fault(hub.faults, file)
    message = message_of(pull)
    assert re.fullmatch(f"user/repo: {expected}", message), message

    hub.faults.clear()
    pull()
    fault(hub.faults, file)
    assert same(pull(), pushed)


@pytest.mark.parametrize("case", ["HEAD dropped", "HEAD 500", "GET dropped", "GET 500", "GET short", "GET cut"])
def test_new_weights_that_cannot_be_fetched_are_told(hub, pushed, case):
    """The old ones are in the cache, but are no longer what was asked for."""
    pull()
    new = new_weights(hub)
    fault, _ = PULLS[case]
    fault(hub.faults, WEIGHTS)
    message_of(pull)
    hub.faults.clear()
    assert same(pull(), new)


def test_a_fault_that_passes_is_not_noticed(hub, pushed):
    hub.faults.status(f"HEAD {CONFIG}", 500, times=2)
    hub.faults.drop(f"GET {WEIGHTS}", times=2)
    assert same(pull(), pushed)


def test_a_server_that_is_gone(hub, pushed):
    hub.stop()
    assert message_of(pull) == f"user/repo: {UNREACHABLE}"
    message = message_of(lambda: pushed.push_to_hub("user/repo", token=hub.token))
    assert re.fullmatch(f"user/repo: {BROKE}", message)


def test_a_server_that_is_gone_and_a_warm_cache(hub, pushed):
    pull()
    hub.stop()
    assert same(pull(), pushed)


def test_offline(hub, pushed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        for action in (pull, lambda: pushed.push_to_hub("user/repo", token=hub.token)):
            assert (
                message_of(action) == "user/repo: HF_HUB_OFFLINE forbids requests to the Hub. Unset it, and try again."
            )
    pull()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(pull(), pushed)


def test_a_full_disk(hub, pushed, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    assert message_of(pull) == (
        "user/repo: the disk is full. Make room, or point HF_HOME at another disk, and try again."
    )


def test_a_cache_that_cannot_be_written(hub, pushed, monkeypatch):
    Path(constants.HF_HUB_CACHE).parent.mkdir(parents=True)
    Path(constants.HF_HUB_CACHE).write_text("a file")
    message = message_of(pull)
    assert re.fullmatch(
        r"user/repo: a file cannot be read or written \(\[Errno \d+\] .+\)\. Check the disk and the permissions\.",
        message,
    )


# What arrives damaged


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_byte_changed_on_the_wire_once_is_fetched_anew(hub, pushed, file):
    hub.faults.corrupt(f"GET {file}", at=50, times=1)
    assert same(pull(), pushed)
    hub.requests.clear()
    assert same(pull(), pushed)
    assert [request.method for request in hub.requests] == ["HEAD", "HEAD"]


def test_weights_that_always_arrive_damaged(hub, pushed):
    hub.faults.corrupt(f"GET {WEIGHTS}", at=-1)
    message = message_of(pull, SavedModelError)
    assert message.endswith(
        "model.safetensors is damaged, or belongs to another config.json: its SHA-256 differs from the one there. "
        "Fetch or save the model again."
    )
    hub.faults.clear()
    assert same(pull(), pushed)


def test_a_config_that_always_arrives_damaged(hub, pushed):
    hub.faults.corrupt(f"GET {CONFIG}", at=0)
    message = message_of(pull, SavedModelError)
    assert message.endswith("config.json is damaged: it differs from the file on the Hub. Fetch it again.")
    hub.faults.clear()
    assert same(pull(), pushed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(data=st.data())
def test_any_byte_changed_in_any_file_is_found(hub, data):
    hub.faults.clear()
    network = NETWORKS["pixel"]().eval()
    network.push_to_hub("user/repo", token=hub.token)
    file = data.draw(st.sampled_from(FILES))
    at = data.draw(st.integers(0, len(hub.files("user/repo")[file]) - 1))
    # The digits of a description may change and leave it a valid one: that is why it has a digest too.
    hub.faults.corrupt(f"GET *{file}", at=at, times=1)
    assert same(pull(), network)
    hub.faults.clear()
    blobs = [path for path in Path(constants.HF_HUB_CACHE).rglob(file) if path.is_symlink()]
    for blob in blobs:
        content = bytearray(blob.read_bytes())
        content[at] ^= data.draw(st.integers(1, 255))
        blob.resolve().write_bytes(content)
    assert blobs
    assert same(pull(), network)


def test_a_corrupt_cache_is_repaired_by_one_fetch(hub, pushed):
    pull()
    for file in FILES:
        (link,) = Path(constants.HF_HUB_CACHE).rglob(file)
        content = bytearray(link.read_bytes())
        content[-3] ^= 1
        link.resolve().write_bytes(content)
    hub.requests.clear()
    assert same(pull(), pushed)
    assert sum(request.method == "GET" for request in hub.requests) == 2
    hub.requests.clear()
    assert same(pull(), pushed)
    assert sum(request.method == "GET" for request in hub.requests) == 0


@pytest.mark.parametrize(("old", "new"), [(b"0.5", b"0.4"), (b'"tanh"', b'"relu"'), (b'"eval"', b'"paper"')])
def test_a_description_that_changed_to_another_valid_one_is_found(hub, pushed, old, new):
    """The digest of the weights says nothing of it."""
    pull()
    (link,) = Path(constants.HF_HUB_CACHE).rglob("config.json")
    content = link.read_bytes()
    assert old in content
    link.resolve().write_bytes(content.replace(old, new))
    assert same(pull(), pushed)
    assert link.read_bytes() == content


def test_a_corrupt_cache_without_a_network_is_told(hub, pushed):
    pull()
    (link,) = Path(constants.HF_HUB_CACHE).rglob("model.safetensors")
    link.resolve().write_bytes(link.read_bytes()[:-1])
    hub.stop()
    assert re.fullmatch(f"user/repo: {BROKE}", message_of(pull))


@pytest.mark.parametrize(
    "content", [b"[]", b"\xff", b"{", b'{"library": "imtrans"}'], ids=["list", "binary", "open", "empty"]
)
def test_a_hostile_description_in_a_repo(hub, pushed, content):
    hub.commit("user/repo", {"config.json": content})
    message_of(pull, SavedModelError)
    assert {request.path.split("/")[-1] for request in hub.requests} == {"config.json"}


def test_a_digest_is_known_by_its_length(tmp_path):
    for name, content, intact in [
        ("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", b"", True),
        ("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", b"x", False),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", b"", True),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", b"x", False),
        ("config.json", b"x", True),
    ]:
        assert is_intact(tmp_path / name, content) is intact


# What breaks in a push

# A fault, and what is said; None: it succeeds after all.
PUSHES = {
    "create dropped": (lambda f: f.drop("POST /api/repos/create"), BROKE),
    "create 500": (lambda f: f.status("POST /api/repos/create", 500), ANSWERED.format(500)),
    "create 403": (lambda f: f.status("POST /api/repos/create", 403), re.escape(NO_RIGHT.format(403))),
    "card check dropped": (lambda f: f.drop("POST /api/validate-yaml"), BROKE),
    "card check 500": (lambda f: f.status("POST /api/validate-yaml", 500), BROKE),
    "preupload dropped": (lambda f: f.drop("POST */preupload/*"), BROKE),
    "preupload 500": (lambda f: f.status("POST */preupload/*", 500), ANSWERED.format(500)),
    "batch dropped": (lambda f: f.drop("POST */objects/batch"), BROKE),
    "batch 403": (lambda f: f.status("POST */objects/batch", 403), re.escape(NO_RIGHT.format(403))),
    "PUT dropped": (lambda f: f.drop("PUT *"), BROKE),
    "PUT reset": (lambda f: f.drop("PUT *", reset=True), BROKE),
    "PUT 500": (lambda f: f.status("PUT *", 500), ANSWERED.format(500)),
    "PUT 500 twice": (lambda f: f.status("PUT *", 500, times=2), None),
    "PUT 403": (lambda f: f.status("PUT *", 403), re.escape(NO_RIGHT.format(403))),
    "verify 500": (lambda f: f.status("POST */verify", 500), ANSWERED.format(500)),
    "commit dropped": (lambda f: f.drop("POST */commit/*"), BROKE),
    "commit 500": (lambda f: f.status("POST */commit/*", 500), ANSWERED.format(500)),
    "commit 429": (lambda f: f.status("POST */commit/*", 429), ANSWERED.format(429)),
    "commit done but its answer lost": (lambda f: f.drop("POST */commit/*", handled=True), BROKE),
}


@pytest.mark.parametrize("case", PUSHES)
def test_a_push_that_fails_is_told_and_can_be_repeated(hub, case):
    network = NETWORKS["unet"]().eval()
    fault, expected = PUSHES[case]
    fault(hub.faults)
    if expected is None:
        network.push_to_hub("user/repo", token=hub.token)
    else:
        message = message_of(lambda: network.push_to_hub("user/repo", token=hub.token))
        assert re.fullmatch(f"user/repo: {expected}", message), message
    hub.faults.clear()
    network.push_to_hub("user/repo", token=hub.token)
    assert len(hub.commits("user/repo")) == 2
    assert same(pull(), network)


def test_a_branch_that_cannot_be_made(hub, pushed):
    hub.faults.status("POST */branch/*", 500)
    assert message_of(lambda: pushed.push_to_hub("user/repo", token=hub.token, revision="dev")) == (
        "user/repo: the Hub answered with the error 500. Try again later."
    )


def test_a_disk_that_is_full_before_the_push(hub, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("imtrans.hub.pretrained.write_atomic", full)
    message = message_of(lambda: NETWORKS["pixel"]().push_to_hub("user/repo", token=hub.token), SavedModelError)
    assert message.endswith(" cannot be written: No space left on device. Make room, or choose another folder.")
    assert hub.requests == []


def test_every_file_of_a_folder_is_pushed(hub, tmp_path):
    for name in ("a.txt", "b/c.txt", "b/.d"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    push(tmp_path, "user/repo", token=hub.token, message="all")
    assert hub.files("user/repo") == {name: name.encode() for name in ("a.txt", "b/c.txt", "b/.d")}


def test_what_has_the_form_of_a_repo():
    for name in ("user/repo", "User-1/repo.name_2", "a/b"):
        assert is_repo_id(name)
    for name in ("user", "a/b/c", "/a/b", "./a", "../a", "a/", "/", "", "~/a", "a b/c", "C:\\a/b", "a/b\n", "a/.b"):
        assert not is_repo_id(name)
