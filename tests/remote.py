"""Models at addresses, against servers on this machine that fail in every way.

    python3 tests/remote.py target/debug/qualm

The program must have the feature `cloud`. Needs Python 3.11 alone.
"""

import json
import os
import shutil
import tempfile

from remote_checks import (
    CHECKPOINT, ENVIRONMENT, SUITE, check, difference, done, large_pair, peak_of, qualm, refused, same, without_revisions
)
from remote_server import COMMIT, FAULTS, Servers

SERVERS = Servers()


def whole_models():
    web = SERVERS.url("web")
    local = [os.path.join(SUITE, f"minilm-block0-{kind}.gguf") for kind in ["f16", "q8_0"]]
    SERVERS.folder = SUITE
    remote = [f"{web}/minilm-block0-{kind}.gguf" for kind in ["f16", "q8_0"]]
    tags = {f'"first-minilm-block0-{kind}.gguf"' for kind in ["f16", "q8_0"]}
    same("files of a web server", local, remote, tags)
    SERVERS.roots = {"org/model": CHECKPOINT, "org/suite": SUITE}
    local = [CHECKPOINT, f"{CHECKPOINT}/model-q.gguf"]
    remote = ["hf://org/model", "hf://org/model@refs/pr/1/model-q.gguf"]
    same("a checkpoint of several shards and its GGUF file, at the hub", local, remote, {COMMIT})
    tokens = [token for server, _, token, _ in SERVERS.log if token]
    check("without a token, none is sent", not tokens)
    SERVERS.calm()
    SERVERS.private = True
    same("a private repository", local, remote, {COMMIT}, HF_TOKEN="secret")
    sent = {server for server, _, token, _ in SERVERS.log if token}
    asked = {server for server, *_ in SERVERS.log}
    check("the token goes to the hub alone", sent == {"hub"} and "content" in asked, str(sent))
    SERVERS.calm()
    SERVERS.expire = 2
    same("signed addresses that run out", local, remote, {COMMIT})
    SERVERS.calm()
    os.makedirs(os.path.join(HOME, "token-home"), exist_ok=True)
    with open(os.path.join(HOME, "token-home/token"), "w") as file:
        file.write("secret\n")
    SERVERS.private = True
    ran = qualm("inspect", "--headers", "hf://org/model", HF_HOME=os.path.join(HOME, "token-home"))
    check("the token file is read", ran.returncode == 0, ran.stderr)
    SERVERS.calm()
    # As huggingface_hub lays it out.
    cache = os.path.join(HOME, "cache")
    repo = os.path.join(cache, "models--org--model")
    os.makedirs(os.path.join(repo, "refs"))
    with open(os.path.join(repo, "refs/main"), "w") as file:
        file.write(COMMIT)
    shutil.copytree(CHECKPOINT, os.path.join(repo, "snapshots", COMMIT))
    remote = ["hf://org/model", "hf://org/model/model-q.gguf"]
    same("files that the local cache has", local, remote, {COMMIT}, HF_HUB_CACHE=cache)
    check("are not asked for", not any("resolve" in path for _, path, *_ in SERVERS.log))
    SERVERS.calm()
    same("offline, the cache is all there is", local, remote, {COMMIT}, HF_HUB_CACHE=cache, HF_HUB_OFFLINE="1")
    check("and nobody is asked", not SERVERS.log)
    refused(
        "offline, what is not in the cache",
        qualm("inspect", "hf://org/suite", HF_HUB_CACHE=cache, HF_HUB_OFFLINE="1"),
        "offline",
    )


def faults():
    SERVERS.folder = SUITE
    web = SERVERS.url("web")
    local = [os.path.join(SUITE, f"minilm-block0-{kind}.gguf") for kind in ["f16", "q8_0"]]
    remote = [f"{web}/minilm-block0-{kind}.gguf" for kind in ["f16", "q8_0"]]
    tags = {f'"first-minilm-block0-{kind}.gguf"' for kind in ["f16", "q8_0"]}
    for fault in FAULTS:
        SERVERS.calm()
        SERVERS.faults, SERVERS.every = [fault], 3
        same(f"every third request: {fault}", local, remote, tags)
        check(f"{fault}: it happened", SERVERS.turn >= 3)
    SERVERS.calm()


def refusals():
    web = SERVERS.url("web")
    SERVERS.folder = SUITE
    pair = [f"{web}/minilm-block0-{kind}.gguf" for kind in ["f16", "q8_0"]]
    for after in [1, 2, 3]:
        SERVERS.calm()
        SERVERS.etag_after = after
        refused(f"a file that changes after {after} answers", qualm("check", *pair), "changed while it was read")
    SERVERS.calm()
    SERVERS.ranges = False
    refused("a server without ranges", qualm("check", *pair), "download the file")
    SERVERS.calm()
    refused("a file that is not there", qualm("check", pair[0], f"{web}/none.gguf?sig=secret"), "404")
    refused("a folder of a web server", qualm("inspect", f"{web}/"), "cannot be listed")
    refused("a password in an address", qualm("inspect", "http://u:secr@127.0.0.1/x"), "password")
    refused("nobody listens", qualm("inspect", "http://127.0.0.1:9/x.gguf"), "refused", "6 tries")
    SERVERS.private = True
    refused("a private repository", qualm("inspect", "hf://org/model"), "401", "HF_TOKEN")
    refused("a repository with the wrong token", qualm("inspect", "hf://org/model", HF_TOKEN="x"), "401")
    SERVERS.calm()
    refused("no such repository", qualm("inspect", "hf://org/none"), "404", "org/none")
    refused("no such revision", qualm("inspect", "hf://org/model@v9"), "no such revision")
    refused("no such file", qualm("inspect", "hf://org/model/model-x.gguf"), "nearest: model-")
    refused("no address of the hub", qualm("inspect", "hf://org"), "hf://ORG/REPO")
    refused("a query at a bucket", qualm("inspect", "s3://bucket/key?versionId=secret"), "without ? or #")
    SERVERS.faults, SERVERS.every = ["500"], 1
    refused("a server that always fails", qualm("inspect", pair[0]), "500", "6 tries")
    SERVERS.calm()


def large(folder):
    local = large_pair(folder)
    SERVERS.folder = folder
    size = sum(map(os.path.getsize, local))
    remote = [f"{SERVERS.url('web')}/{os.path.basename(path)}" for path in local]
    at_home = qualm("check", "--json", *local)
    SERVERS.calm()
    SERVERS.faults, SERVERS.every = FAULTS, 10
    far = qualm("check", "--json", *remote)
    judged = [json.dumps(json.loads(ran.stdout), sort_keys=True) for ran in [at_home, far]]
    for path, address in zip(local, remote):
        judged = [text.replace(path, "X").replace(address, "X") for text in judged]
    check(f"{size >> 20} MiB, a tenth of the requests fails", without_revisions(judged[0]) == without_revisions(judged[1]),
          difference(*judged) + far.stderr)
    print(f"        {SERVERS.turn} requests, {SERVERS.bytes / size:.3f} of the files' bytes")
    SERVERS.calm()
    far = qualm("check", *remote)
    check("without faults", far.returncode == at_home.returncode, far.stderr)
    print(f"        {SERVERS.bytes / size:.3f} of the files' bytes, {len(SERVERS.log)} requests")
    check("little is read twice", SERVERS.bytes < 1.2 * size)
    SERVERS.calm()
    few = qualm("check", "--json", "--sample", "1%", *remote)
    said = json.loads(few.stdout or "{}")
    check("a spot check", few.returncode == 0 and said.get("verdict") == "sampled", few.stdout[:500] + few.stderr)
    share = SERVERS.bytes / size
    check(f"of 1 %: {share:.4f} of the bytes, {len(SERVERS.log)} requests", share <= 0.02, few.stderr)
    check("says beforehand what it reads", "spot check" in few.stderr and "requests" in few.stderr, few.stderr)
    peak = peak_of("check", *remote)
    # 64 is the aim; a program of the profile of tests is itself larger, and busy machines differ by some.
    check(f"peak memory {peak >> 20} MiB, below 72", peak < 72 << 20)
    bucket(folder, local, at_home, size)


def bucket(folder, local, at_home, size):
    """The same pair, the web server taken for a bucket; `buckets.py` asks servers that know what one is."""
    above, name = os.path.split(folder)
    SERVERS.folder = above
    remote = [f"s3://{name}/{os.path.basename(path)}" for path in local]
    store = {"AWS_ENDPOINT_URL": SERVERS.url("web"), "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    SERVERS.calm()
    # Those that cost no time.
    SERVERS.faults, SERVERS.every = ["reset", "500", "short", "shifted"], 10
    far = qualm("check", "--json", *remote, **store)
    judged = [json.dumps(json.loads(ran.stdout or "{}"), sort_keys=True) for ran in [at_home, far]]
    for path, address in zip(local, remote):
        judged = [text.replace(path, "X").replace(address, "X") for text in judged]
    check("in a bucket, a tenth of the requests fails", without_revisions(judged[0]) == without_revisions(judged[1]),
          difference(*judged) + far.stderr)
    check("every request is signed", all(token and token.startswith("AWS4-HMAC-SHA256 ") for *_, token, _ in SERVERS.log))
    SERVERS.calm()
    peak = peak_of("check", *remote, **store)
    check("in a bucket, little is read twice", SERVERS.bytes < 1.2 * size)
    check(f"in a bucket, peak memory {peak >> 20} MiB, below 72", peak < 72 << 20)
    SERVERS.log.clear()


with tempfile.TemporaryDirectory() as HOME:
    ENVIRONMENT |= {"HOME": HOME, "HF_ENDPOINT": SERVERS.url("hub"), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    whole_models()
    faults()
    refusals()
    large(HOME)
    leaks = [entry for entry in SERVERS.log if entry[0] != "hub" and entry[2]]
    check("no token anywhere else", not leaks)
done()
