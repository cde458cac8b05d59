"""The loopback Hub against the real client, and what that client raises when a Hub misbehaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, constants, errors, hf_hub_download, snapshot_download
from loopback_hub import LoopbackHub, hub_fixture, impatient_fixture  # noqa: F401

WEIGHTS = bytes(range(256)) * 12
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "sub/a.png": b"png",
}


@pytest.fixture
def api(hub):
    return HfApi(token=hub.token)


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


def pull(repo_id, filename, **options):
    return Path(hf_hub_download(repo_id, filename, **options)).read_bytes()


def methods(hub):
    return " ".join(request.method for request in hub.requests)


def test_a_pushed_folder_comes_back(hub, api, folder):
    assert api.create_repo("user/repo", private=True).repo_id == "user/repo"
    info = api.upload_folder(repo_id="user/repo", folder_path=folder, commit_message="first")
    assert hub.files("user/repo") == FILES
    assert [commit.title for commit in hub.commits("user/repo")] == ["initial commit", "first"]
    assert hub.commits("user/repo")[-1].oid == info.oid
    assert hub.repo("user/repo").private
    got = Path(snapshot_download("user/repo", token=hub.token))
    assert {str(path.relative_to(got)): path.read_bytes() for path in got.rglob("*") if path.is_file()} == FILES


def test_an_unchanged_folder_makes_no_commit(hub, api, folder):
    api.create_repo("user/repo")
    first = api.upload_folder(repo_id="user/repo", folder_path=folder)
    assert api.upload_folder(repo_id="user/repo", folder_path=folder).oid == first.oid
    assert len(hub.commits("user/repo")) == 2


def test_only_large_files_travel_by_lfs(hub, api, folder):
    api.create_repo("user/repo")
    api.upload_folder(repo_id="user/repo", folder_path=folder)
    assert sum(request.method == "PUT" for request in hub.requests) == 2
    hub.requests.clear()
    assert (pull("user/repo", "config.json"), pull("user/repo", "model.safetensors")) == (b"{}", WEIGHTS)
    hosts = [(request.method, request.headers["Host"].split(":")[0]) for request in hub.requests]
    assert hosts == [("HEAD", "127.0.0.1"), ("GET", "127.0.0.1"), ("HEAD", "127.0.0.1"), ("GET", "localhost")]


def test_the_storage_host_never_sees_a_token(hub, api, folder):
    api.create_repo("user/repo", private=True)
    api.upload_folder(repo_id="user/repo", folder_path=folder)
    pull("user/repo", "model.safetensors", token=hub.token)
    assert hub.leaks == []
    httpx2.get(f"{hub.storage}/anything", headers={"Authorization": f"Bearer {hub.token}"})
    assert [request.path for request in hub.leaks] == ["/anything"]
    hub.leaks.clear()


def test_an_existing_repo(hub, api):
    url = api.create_repo("user/repo")
    assert api.create_repo("user/repo", exist_ok=True) == url
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.create_repo("user/repo")


def test_branches_tags_and_hashes_keep_their_files(hub, api):
    old = hub.add_repo("user/repo", {"config.json": b"1"})
    api.create_tag("user/repo", tag="v1")
    api.create_branch("user/repo", branch="dev/x")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="config.json", repo_id="user/repo")
    api.upload_file(path_or_fileobj=b"3", path_in_repo="config.json", repo_id="user/repo", revision="dev/x")
    for revision, content in {"main": b"2", "v1": b"1", "dev/x": b"3", old: b"1"}.items():
        assert pull("user/repo", "config.json", revision=revision) == content
        assert api.model_info("user/repo", revision=revision).sha == hub.commits("user/repo", revision)[-1].oid
    api.delete_tag("user/repo", tag="v1")
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info("user/repo", revision="v1")


def test_files_go(hub, api):
    hub.add_repo("user/repo", FILES)
    api.delete_file("config.json", "user/repo")
    api.delete_folder("sub", "user/repo")
    assert set(api.list_repo_files("user/repo")) == {"README.md", "model.safetensors"}
    with pytest.raises(errors.RemoteEntryNotFoundError, match="doesn't exist"):
        api.delete_file("config.json", "user/repo")
    hub.commit("user/repo", {"new": b""}, delete=["README.md"])
    assert set(hub.files("user/repo")) == {"model.safetensors", "new"}


def test_a_stale_parent_commit_is_refused(hub, api):
    old = hub.add_repo("user/repo", {"a": b"1"})
    hub.commit("user/repo", {"a": b"2"})
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        api.upload_file(path_or_fileobj=b"3", path_in_repo="a", repo_id="user/repo", parent_commit=old)


def test_a_pull_request_leaves_main_alone(hub, api):
    hub.add_repo("user/repo", {"a": b"1"})
    info = api.upload_file(path_or_fileobj=b"2", path_in_repo="a", repo_id="user/repo", create_pr=True)
    assert info.pr_revision == "refs/pr/1"
    assert (hub.files("user/repo"), hub.files("user/repo", "refs/pr/1")) == ({"a": b"1"}, {"a": b"2"})


def test_a_card_without_metadata_is_a_warning(hub, api):
    hub.add_repo("user/repo")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# Hi", path_in_repo="README.md", repo_id="user/repo")


NOT_FOUND, GATED, HTTP = errors.RepositoryNotFoundError, errors.GatedRepoError, errors.HfHubHTTPError


@pytest.mark.parametrize(
    ("repo_id", "token", "error", "status"),
    [
        ("user/none", None, NOT_FOUND, 401),
        ("user/none", LoopbackHub.token, NOT_FOUND, 404),
        ("none", None, NOT_FOUND, 401),
        ("user/private", None, NOT_FOUND, 401),
        ("user/private", LoopbackHub.other_token, NOT_FOUND, 404),
        ("user/private", "hf_bad", HTTP, 401),
        ("user/public", "hf_bad", HTTP, 401),
        ("user/gated", None, GATED, 401),
        ("user/gated", LoopbackHub.token, GATED, 403),
    ],
)
@pytest.mark.parametrize("pull_all", [False, True], ids=["file", "snapshot"])
def test_who_may_not_read(hub, repo_id, token, error, status, pull_all):
    hub.add_repo("user/private", FILES, private=True)
    hub.add_repo("user/gated", FILES, gated=True)
    hub.add_repo("user/public", FILES)
    with pytest.raises(error) as caught:
        snapshot_download(repo_id, token=token) if pull_all else hf_hub_download(repo_id, "config.json", token=token)
    assert type(caught.value) is error
    assert caught.value.response.status_code == status


def test_who_may_read(hub):
    hub.add_repo("user/private", FILES, private=True)
    hub.add_repo("user/gated", FILES, gated=True)
    assert HfApi().model_info("user/gated").gated == "manual"
    hub.repo("user/gated").approved.add(hub.token)
    for repo_id in ("user/private", "user/gated"):
        assert pull(repo_id, "config.json", token=hub.token) == b"{}"


@pytest.mark.parametrize(
    ("token", "create", "upload"),
    [(None, HTTP, NOT_FOUND), (LoopbackHub.other_token, HTTP, HTTP), ("hf_bad", HTTP, HTTP)],
)
def test_who_may_not_push(hub, folder, token, create, upload):
    hub.add_repo("user/repo")
    with pytest.raises(HTTP) as caught:
        HfApi(token=token).create_repo("user/new")
    assert type(caught.value) is create
    with pytest.raises(HTTP) as caught:
        HfApi(token=token).upload_folder(repo_id="user/repo", folder_path=folder)
    assert type(caught.value) is upload
    assert len(hub.commits("user/repo")) == 1


def test_a_warm_cache_answers_whoever_asks_and_a_forced_download_hides_why_it_fails(hub):
    hub.add_repo("user/repo", FILES)
    pull("user/repo", "config.json")
    hub.repo("user/repo").private = True
    for token in (None, hub.other_token, "hf_bad"):
        assert pull("user/repo", "config.json", token=token) == b"{}"
        with pytest.raises(ValueError, match="Force download failed") as caught:
            hf_hub_download("user/repo", "config.json", token=token, force_download=True)
        assert type(caught.value.__cause__) is (HTTP if token == "hf_bad" else NOT_FOUND)


def test_missing_revisions_entries_and_impossible_names(hub):
    hub.add_repo("user/repo", FILES)
    for revision in ("v9", "a" * 40):
        with pytest.raises(errors.RevisionNotFoundError):
            hf_hub_download("user/repo", "config.json", revision=revision)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download("user/repo", "none.json")
    for path in ("./runs/best", "/tmp/run", "a/b/c"):
        with pytest.raises(errors.HFValidationError):
            hf_hub_download(path, "config.json")


LOCAL, DROPPED, RESET, LATE = (
    errors.LocalEntryNotFoundError,
    httpx2.RemoteProtocolError,
    httpx2.ReadError,
    httpx2.ReadTimeout,
)
SEVEN_HEADS = "HEAD HEAD HEAD HEAD HEAD HEAD HEAD"
SIX_GETS = "HEAD GET GET GET GET GET GET"

# A fault, the exception of a cold cache, whether a warm cache answers (None: the fault is beyond it), the requests of
# the cold case, and the seconds it would sleep.
PULLS = {
    "HEAD dropped": (lambda f: f.drop("HEAD *"), DROPPED, False, "HEAD", 0),
    "HEAD reset": (lambda f: f.drop("HEAD *", reset=True), RESET, False, "HEAD", 0),
    "HEAD 500": (lambda f: f.status("HEAD *", 500), LOCAL, True, SEVEN_HEADS, 23),
    "HEAD 500 twice": (lambda f: f.status("HEAD *", 500, times=2), None, True, "HEAD HEAD HEAD GET", 1),
    "HEAD 429": (lambda f: f.status("HEAD *", 429), LOCAL, True, SEVEN_HEADS, 23),
    "HEAD 403": (lambda f: f.status("HEAD *", 403), LOCAL, True, "HEAD", 0),
    "HEAD without metadata": (lambda f: f.status("HEAD *", 200), LOCAL, True, "HEAD", 0),
    "HEAD slow": (lambda f: f.slow("HEAD *", 5), LOCAL, True, SEVEN_HEADS, 23),
    "HEAD slow once": (lambda f: f.slow("HEAD *", 5, times=1), None, True, "HEAD HEAD GET", 0),
    "HEAD of a wrong size": (lambda f: f.wrong_length("HEAD *", 7), OSError, True, "HEAD GET", 0),
    "GET dropped": (lambda f: f.drop("GET *"), DROPPED, None, SIX_GETS, 5),
    "GET dropped twice": (lambda f: f.drop("GET *", times=2), None, None, "HEAD GET GET GET", 2),
    "GET reset": (lambda f: f.drop("GET *", reset=True), RESET, None, "HEAD GET", 0),
    "GET 500 once": (lambda f: f.status("GET *", 500, times=1), HTTP, None, "HEAD GET", 0),
    "GET 429 once": (lambda f: f.status("GET *", 429, times=1, retry_after="7"), None, None, "HEAD GET GET", 8),
    "GET 429": (lambda f: f.status("GET *", 429), HTTP, None, SIX_GETS, 23),
    "GET slow": (lambda f: f.slow("GET *", 5), LATE, None, SIX_GETS, 5),
    "GET slow once": (lambda f: f.slow("GET *", 5, times=1), None, None, "HEAD GET GET", 1),
    "GET cut": (lambda f: f.cut_body("GET *", 1000), DROPPED, None, SIX_GETS, 5),
    "GET cut once": (lambda f: f.cut_body("GET *", 1000, times=1), None, None, "HEAD GET GET", 1),
    "GET short": (lambda f: f.short_body("GET *", 1000), OSError, None, "HEAD GET", 0),
    "GET of a longer length": (lambda f: f.wrong_length("GET *", 7), DROPPED, None, SIX_GETS, 5),
    "GET of a shorter length": (lambda f: f.wrong_length("GET *", -7), OSError, None, "HEAD GET", 0),
}


# A slow answer is slow in the tests too, so there LFS files stand for all.
CASES = [(case, "model.safetensors") for case in PULLS] + [(case, "model.json") for case in PULLS if "slow" not in case]


@pytest.mark.parametrize(("case", "filename"), CASES)
def test_what_a_fault_raises_in_a_pull(hub, request, case, filename):
    if "slow" in case:
        request.getfixturevalue("impatient")
    fault, error, warm, requests, seconds = PULLS[case]
    if warm is not None:
        hub.add_repo("user/warm", {filename: WEIGHTS})
        pull("user/warm", filename)
    hub.add_repo("user/cold", {filename: WEIGHTS})
    hub.requests.clear()
    fault(hub.faults)
    if error is None:
        assert pull("user/cold", filename) == WEIGHTS
    else:
        with pytest.raises(error) as caught:
            pull("user/cold", filename)
        assert type(caught.value) is error
    assert (methods(hub), sum(hub.sleeps)) == (requests, seconds)
    if warm:
        assert pull("user/warm", filename) == WEIGHTS
    elif warm is False:
        with pytest.raises(error):
            pull("user/warm", filename)


@pytest.mark.parametrize("filename", ["model.safetensors", "model.json"], ids=["lfs", "regular"])
def test_a_corrupt_byte_passes_unseen_and_stays_in_the_cache(hub, filename):
    hub.add_repo("user/repo", {filename: WEIGHTS})
    hub.faults.corrupt("GET *", at=3)
    corrupt = bytearray(WEIGHTS)
    corrupt[3] ^= 0xFF
    assert pull("user/repo", filename) == corrupt
    hub.faults.clear()
    assert pull("user/repo", filename) == corrupt
    assert pull("user/repo", filename, force_download=True) == WEIGHTS


def test_a_cut_download_goes_on_where_it_ended(hub, monkeypatch):
    hub.add_repo("user/repo", {"model.safetensors": WEIGHTS})
    # The client keeps whole chunks only, of 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)
    hub.faults.cut_body("GET *", 1000, times=1)
    assert pull("user/repo", "model.safetensors") == WEIGHTS
    assert hub.requests[-1].headers["Range"] == "bytes=768-"


def test_what_a_fault_raises_in_a_query(hub):
    hub.add_repo("user/repo", FILES)
    for fault, by_info, by_snapshot in [
        (lambda f: f.drop("GET /api/*"), DROPPED, DROPPED),
        (lambda f: f.drop("GET /api/*", reset=True), RESET, RESET),
        (lambda f: f.status("GET /api/*", 500), HTTP, LOCAL),
        (lambda f: f.status("GET /api/*", 429), HTTP, LOCAL),
    ]:
        hub.faults.clear()
        fault(hub.faults)
        for call, error in ((HfApi().model_info, by_info), (snapshot_download, by_snapshot)):
            hub.requests.clear()
            with pytest.raises(error) as caught:
                call("user/repo")
            assert type(caught.value) is error
            assert methods(hub) == "GET"


WRAPPED = RuntimeError

# A fault, the exception, and its cause where the client wraps it; None: the push succeeds after all.
PUSHES = {
    "create dropped": (lambda f: f.drop("POST /api/repos/create"), DROPPED, None),
    "create 500": (lambda f: f.status("POST /api/repos/create", 500), HTTP, None),
    "card check dropped": (lambda f: f.drop("POST /api/validate-yaml"), DROPPED, None),
    "card check 500": (lambda f: f.status("POST /api/validate-yaml", 500), json.JSONDecodeError, None),
    "preupload dropped": (lambda f: f.drop("POST */preupload/*"), DROPPED, None),
    "preupload 500": (lambda f: f.status("POST */preupload/*", 500), HTTP, None),
    "preupload 500 twice": (lambda f: f.status("POST */preupload/*", 500, times=2), None, None),
    "batch dropped": (lambda f: f.drop("POST */objects/batch"), DROPPED, None),
    "PUT dropped": (lambda f: f.drop("PUT *"), WRAPPED, DROPPED),
    "PUT reset": (lambda f: f.drop("PUT *", reset=True), WRAPPED, RESET),
    "PUT 500": (lambda f: f.status("PUT *", 500), WRAPPED, HTTP),
    "PUT 500 twice": (lambda f: f.status("PUT *", 500, times=2), None, None),
    "PUT 403": (lambda f: f.status("PUT *", 403), WRAPPED, HTTP),
    "verify 500": (lambda f: f.status("POST */verify", 500), WRAPPED, HTTP),
    "commit dropped once": (lambda f: f.drop("POST */commit/*", times=1), DROPPED, None),
    "commit 500 once": (lambda f: f.status("POST */commit/*", 500, times=1), HTTP, None),
    "commit 429 once": (lambda f: f.status("POST */commit/*", 429, times=1), HTTP, None),
}


@pytest.mark.parametrize("case", PUSHES)
def test_what_a_fault_raises_in_a_push(hub, api, folder, case):
    def push():
        api.create_repo("user/repo", exist_ok=True)
        api.upload_folder(repo_id="user/repo", folder_path=folder)

    fault, error, cause = PUSHES[case]
    fault(hub.faults)
    if error is None:
        push()
    else:
        with pytest.raises(error) as caught:
            push()
        assert type(caught.value) is error
        assert cause is None or type(caught.value.__cause__) is cause
    hub.faults.clear()
    push()
    assert hub.files("user/repo") == FILES
    assert len(hub.commits("user/repo")) == 2


def test_a_commit_whose_answer_is_lost_is_there(hub, api, folder):
    api.create_repo("user/repo")
    hub.faults.drop("POST */commit/*", handled=True)
    with pytest.raises(DROPPED):
        api.upload_folder(repo_id="user/repo", folder_path=folder)
    assert hub.files("user/repo") == FILES
    api.upload_folder(repo_id="user/repo", folder_path=folder)
    assert len(hub.commits("user/repo")) == 2


def test_a_fault_may_be_a_predicate(hub):
    hub.add_repo("user/repo", FILES)
    hub.faults.status(lambda method, path: method == "GET" and path.endswith("config.json"), 418)
    with pytest.raises(HTTP, match="418"):
        pull("user/repo", "config.json")
    assert pull("user/repo", "sub/a.png") == b"png"


def test_a_server_that_is_gone(hub, api):
    hub.add_repo("user/repo", FILES)
    pull("user/repo", "model.safetensors")
    hub.stop()
    assert pull("user/repo", "model.safetensors") == WEIGHTS
    with pytest.raises(LOCAL):
        pull("user/repo", "config.json")
    for call in (api.model_info, api.create_repo):
        with pytest.raises(httpx2.ConnectError):
            call("user/repo")


def test_offline_with_a_warm_cache(hub, monkeypatch):
    hub.add_repo("user/repo", FILES)
    snapshot_download("user/repo")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull("user/repo", "model.safetensors") == WEIGHTS
    assert (Path(snapshot_download("user/repo")) / "sub" / "a.png").read_bytes() == b"png"
    for call, error in ((snapshot_download, LOCAL), (HfApi().model_info, errors.OfflineModeIsEnabled)):
        with pytest.raises(error):
            call("user/other")
    assert hub.requests == []


def test_a_process_of_its_own(hub, tmp_path):
    hub.add_repo("user/private", FILES, private=True)
    code = "from huggingface_hub import hf_hub_download; print(hf_hub_download('user/private', 'model.safetensors'))"
    environment = {**os.environ, **hub.env(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    path = Path(run.stdout.strip())
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == WEIGHTS


def test_a_bug_of_this_server_is_told(hub, api, monkeypatch):
    with pytest.raises(HTTP, match="the loopback Hub has no GET /api/datasets"):
        api.dataset_info("user/repo")
    hub.add_repo("user/repo", FILES)
    monkeypatch.setattr("loopback_hub.tree_entry", None)
    with pytest.raises(HTTP, match="'NoneType' object is not callable"):
        api.list_repo_files("user/repo")
