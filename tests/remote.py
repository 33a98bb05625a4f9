"""Models at addresses, against servers on this machine that fail in every way.

    python3 tests/remote.py target/debug/qualm

The program must have the feature `remote`. Needs Python 3.11 alone.
"""

import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

from remote_server import COMMIT, FAULTS, Servers

QUALM = os.path.abspath(sys.argv[1])
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUITE = os.path.join(ROOT, "specs/models")
CHECKPOINT = os.path.join(ROOT, "tests/data/hf-gguf/deepseek3")
SERVERS = Servers()
FAILED = []


def check(what, holds, detail=""):
    print(("ok      " if holds else "FAILED  ") + what)
    if not holds:
        FAILED.append(what)
        print(detail)


def qualm(*arguments, cwd=None, **variables):
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": HOME,
        "CI": "1",
        "HF_ENDPOINT": SERVERS.url("hub"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [QUALM, *arguments], env=environment | variables, cwd=cwd, capture_output=True, text=True, timeout=300
    )


def record(reference, quantized, **variables):
    """The record of a run of one pair, without what depends on where and when."""
    folder = tempfile.mkdtemp(dir=HOME)
    with open(os.path.join(folder, "s.toml"), "w") as spec:
        spec.write(f'schema = 1\n[[pair]]\nname = "p"\nreference = "{reference}"\nquantized = "{quantized}"\n')
    ran = qualm("run", "--spec", "s.toml", "--no-baseline", "--out-dir", "out", cwd=folder, **variables)
    path = os.path.join(folder, "out/contract.json")
    if not os.path.exists(path):
        return ran, None
    with open(path) as file:
        contract = json.load(file)
    revisions = set()
    contract.pop("time", None)
    for spec in contract["specs"]:
        spec.pop("sha256")
        for pair in spec["pairs"]:
            pair.pop("seconds", None)
            for side in ["reference", "quantized"]:
                model = pair[side] or {"files": []}
                model["path"] = ""
                for file in model["files"]:
                    revisions.add(file.pop("revision", None))
    shutil.rmtree(folder)
    text = json.dumps(contract, sort_keys=True)
    return ran, (text.replace(reference, "REF").replace(quantized, "QUANT"), revisions)


def same(what, local, remote, revisions, **variables):
    (_, at_home), (ran, far) = record(*local), record(*remote, **variables)
    if far is None:
        return check(what, False, ran.stderr)
    check(what, at_home[0] == far[0], difference(at_home[0], far[0]) + ran.stderr)
    check(f"{what}: pinned", far[1] == revisions, str(far[1]))


def difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), 0)
    return f"local  {a[max(0, at - 200) : at + 200]}\nremote {b[max(0, at - 200) : at + 200]}\n"


def refused(what, ran, *words, code=6):
    said = ran.stdout + ran.stderr
    missing = [word for word in words if word not in said]
    check(what, ran.returncode == code and not missing, f"exit {ran.returncode}, without {missing}: {said}")
    check(f"{what}: no secrets", "secret" not in said and "Signature" not in said, said)


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
    refused("a bucket", qualm("inspect", "s3://bucket/key"), "s3://")
    SERVERS.faults, SERVERS.every = ["500"], 1
    refused("a server that always fails", qualm("inspect", pair[0]), "500", "6 tries")
    SERVERS.calm()


# --- A pair of the size of a small language model


def half(value):
    return struct.unpack("<H", struct.pack("<e", value))[0]


def large_pair(folder):
    """The shapes of a model of 135 million parameters, in F16 and Q8_0."""
    numbers = random.Random(1)
    blocks = [[numbers.gauss(0, 0.02) for _ in range(32)] for _ in range(4096)]
    floats, quants = bytearray(), bytearray()
    for block in blocks:
        scale = max(map(abs, block)) / 127
        scale = struct.unpack("<e", struct.pack("<e", scale))[0]
        floats += struct.pack("<32e", *block)
        quants += struct.pack("<e32b", scale, *(max(-127, min(127, round(v / scale))) for v in block))
    shapes = [("token_embd.weight", [49152, 576])]
    for layer in range(30):
        for name, shape in [
            ("attn_q", [576, 576]), ("attn_k", [192, 576]), ("attn_v", [192, 576]), ("attn_output", [576, 576]),
            ("ffn_gate", [1536, 576]), ("ffn_up", [1536, 576]), ("ffn_down", [576, 1536]),
        ]:
            shapes.append((f"blk.{layer}.{name}.weight", shape))
    paths = []
    for kind, ty, width, bank in [("f16", 1, 64, floats), ("q8_0", 8, 34, quants)]:
        infos, offset = b"", 0
        for name, shape in shapes:
            infos += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
            infos += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", ty, offset)
            offset += math.prod(shape) // 32 * width
        key = b"general.architecture"
        header = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1)
        header += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 5) + b"other"
        header += infos
        path = os.path.join(folder, f"large-{kind}.gguf")
        with open(path, "wb") as file:
            file.write(header + bytes(-len(header) % 32))
            for number, (_, shape) in enumerate(shapes):
                left, start = math.prod(shape) // 32, number * 97 % 4096
                while left:
                    take = min(left, 4096 - start)
                    file.write(bank[start * width : (start + take) * width])
                    left, start = left - take, (start + take) % 4096
        paths.append(path)
    return paths


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


def without_revisions(text):
    def clean(value):
        if isinstance(value, dict):
            return {key: clean(it) for key, it in value.items() if key != "revision"}
        return [clean(it) for it in value] if isinstance(value, list) else value

    return clean(json.loads(text))


def peak_of(*arguments):
    """The most memory that a process of its own had, in bytes."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, QUALM, *arguments], capture_output=True, text=True, check=True
    )
    return int(ran.stdout) << 10


with tempfile.TemporaryDirectory() as HOME:
    whole_models()
    faults()
    refusals()
    large(HOME)
    leaks = [entry for entry in SERVERS.log if entry[0] != "hub" and entry[2]]
    check("no token anywhere else", not leaks)
if FAILED:
    sys.exit(f"{len(FAILED)} checks failed: " + "; ".join(FAILED))
