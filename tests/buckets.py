"""Models in buckets, against emulators of Amazon S3, Google Cloud Storage and Azure Blob Storage on this machine.

    tests/buckets.sh target/debug/qualm

The program must have the feature `cloud`. Needs moto, gcp-storage-emulator, boto3, azure-storage-blob and azurite,
which `buckets.sh` installs.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import boto3
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from bucket_servers import FAULTS, Logins, Proxy
from remote_checks import CHECKPOINT, ENVIRONMENT, SUITE, check, done, qualm, record, refused

AZURITE = sys.argv[2]
LOGINS = Logins()
PAIR = [os.path.join(SUITE, f"minilm-block0-{kind}.gguf") for kind in ["f16", "q8_0"]]
# Of a folder that is listed, and of a file in it.
LOCAL = [CHECKPOINT, f"{CHECKPOINT}/model-q.gguf"]
NEAR = {
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9", "GCE_METADATA_HOST": "127.0.0.1:9",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9",
}


def start(*command, ready, **variables):
    """Starts a server on a port of its own, and waits for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.replace("PORT", str(port)) for part in command]
    log = open(os.path.join(HOME, os.path.basename(command[0]) + ".log"), "w")
    server = subprocess.Popen(command, stdout=log, stderr=log, cwd=HOME, env=os.environ | variables)
    atexit.register(lambda: (server.terminate(), server.wait()))
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5)
            return port
        except urllib.error.HTTPError:
            return port
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{command[0]} does not start: {open(log.name).read()[-2000:]}")


def files():
    """What every bucket holds: the name of each object, and the file."""
    for path in PAIR:
        yield f"pair/{os.path.basename(path)}", path
    for name in sorted(os.listdir(CHECKPOINT)):
        yield f"models/a model/{name}", os.path.join(CHECKPOINT, name)


def addresses(scheme):
    pair = [f"{scheme}://weights/pair/{os.path.basename(path)}" for path in PAIR]
    return pair, [f"{scheme}://weights/models/a model/", f"{scheme}://weights/models/a model/model-q.gguf"]


def pinned(what, local, remote, **variables):
    """The same record as of local files, and every file pinned."""
    (_, at_home), (ran, far) = record(*local), record(*remote, **variables)
    check(what, far is not None and far[0] == at_home[0], ran.stdout + ran.stderr)
    check(f"{what}: pinned", far is not None and None not in far[1] and "" not in far[1], str(far and far[1]))


def everywhere(store, proxy, scheme, **variables):
    """What holds of every store."""
    pair, checkpoint = addresses(scheme)
    pinned(f"{store}: two files", PAIR, pair, **variables)
    pinned(f"{store}: a folder and a file", LOCAL, checkpoint, **variables)
    listed = [path for path, _ in proxy.log if "delimiter" in path and "model%2F&" in path + "&"]
    check(f"{store}: a folder is listed once", len(listed) == 1, str(listed))
    slashless = qualm("inspect", "--json", checkpoint[0].rstrip("/"), **variables)
    check(f"{store}: a folder without a slash", slashless.returncode == 0, slashless.stderr)
    for fault in FAULTS:
        proxy.calm_faults(fault)
        pinned(f"{store}: every third request: {fault}", [PAIR[0], LOCAL[1]], [pair[0], checkpoint[1]], **variables)
        check(f"{store}: {fault}: it happened", proxy.turn >= 3)
    proxy.calm_faults(None)
    refused(f"{store}: no such object", qualm("inspect", f"{scheme}://weights/none.gguf", **variables), "404", "is not there")
    refused(f"{store}: no such bucket", qualm("inspect", f"{scheme}://nothing/x.gguf", **variables), "404")
    refused(f"{store}: an empty folder", qualm("inspect", f"{scheme}://weights/none/", **variables), "begins with")
    refused(f"{store}: a shard that is not listed",
            qualm("check", checkpoint[0], checkpoint[0] + "model-x.gguf", **variables), "nearest: model-")


def amazon():
    port = start(os.path.join(BIN, "moto_server"), "-H", "127.0.0.1", "-p", "PORT", ready="/moto-api/")
    proxy = Proxy(port)
    local = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
    local |= {"aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
    s3, iam = boto3.client("s3", **local), boto3.client("iam", **local)
    s3.create_bucket(Bucket="weights")
    for key, path in files():
        s3.upload_file(path, "weights", key)
        s3.upload_file(path, "weights", f"public/{key}", ExtraArgs={"ACL": "public-read"})
    keys = {}
    for user, rights in [
        ("reader", ["s3:GetObject", "s3:ListBucket"]), ("getter", ["s3:GetObject"]), ("stranger", []), ("writer", ["s3:*"]),
    ]:
        iam.create_user(UserName=user)
        if rights:
            allowed = [{"Effect": "Allow", "Action": rights, "Resource": "*"}]
            policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
            iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        keys[user] = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    endpoint = {"AWS_ENDPOINT_URL": proxy.url()} | NEAR
    pair, checkpoint = addresses("s3")
    public = [path.replace("weights/", "weights/public/") for path in pair]
    pinned("S3: public objects, without a signature", PAIR, public, **endpoint | {"AWS_SKIP_SIGNATURE": "true"})
    signed = [path for path, headers in proxy.log if "authorization" in map(str.lower, headers)]
    check("S3: none is made", not signed, str(signed))
    token = written("token", "secret-web-identity\n")
    role = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": token}
    proxy.log.clear()
    ran = inspect(pair[0], **endpoint | role | {"AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{port}"})
    sent = [headers for _, headers in proxy.log if headers.get("x-amz-security-token")]
    check("S3: a web identity", ran.returncode == 0 and sent, ran.stderr)
    # From here on, moto holds every signature and every right against what it knows.
    url = f"{local['endpoint_url']}/moto-api/reset-auth"
    urllib.request.urlopen(urllib.request.Request(url, b"0", {"Content-Type": "text/plain"})).read()
    proxy.calm()
    reader = endpoint | keys["reader"]
    everywhere("S3", proxy, "s3", **reader)
    few = qualm("check", "--json", "--sample", "10%", *pair, **reader)
    check("S3: a spot check", json.loads(few.stdout or "{}").get("verdict") == "sampled", few.stdout + few.stderr)
    pinned("S3: without the right to list", [PAIR[0], LOCAL[1]], [pair[0], checkpoint[1]], **endpoint | keys["getter"])
    refused("S3: without rights", inspect(pair[0], **endpoint | keys["stranger"]), "403 AccessDenied", "AWS_PROFILE")
    wrong = keys["reader"] | {"AWS_SECRET_ACCESS_KEY": "secret-wrong"}
    refused("S3: a wrong key", inspect(pair[0], **endpoint | wrong), "403 SignatureDoesNotMatch")
    refused("S3: nobody", inspect(pair[0], **endpoint), "403", "no credentials were found")
    key, secret = keys["reader"].values()
    credentials = written("credentials", f"[p]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    config = written("config", f"[profile p]\nregion = eu-west-3\nendpoint_url = {proxy.url()}\n")
    profile = {"AWS_SHARED_CREDENTIALS_FILE": credentials, "AWS_CONFIG_FILE": config, "AWS_PROFILE": "p"}
    ran = inspect(pair[0], **NEAR | profile)
    check("S3: a profile", ran.returncode == 0, ran.stderr)
    LOGINS.aws = {"AccessKeyId": key, "SecretAccessKey": secret}
    machine = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": LOGINS.url()}
    ran = inspect(pair[0], **endpoint | machine)
    check("S3: an instance's role", ran.returncode == 0, ran.stderr + str(LOGINS.log))
    container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{LOGINS.url()}/container"}
    container |= {"AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret-container"}
    ran = inspect(pair[0], **endpoint | container)
    check("S3: a container's role", ran.returncode == 0, ran.stderr + str(LOGINS.log))
    LOGINS.log.clear()
    LOGINS.seconds = 30
    pinned("S3: keys that run out", PAIR, pair, **endpoint | machine)
    check("S3: are asked for again", LOGINS.log.count("/latest/api/token") > 2, str(LOGINS.log))
    LOGINS.seconds = 3600
    writer = boto3.client("s3", **local | dict(zip(["aws_access_key_id", "aws_secret_access_key"], keys["writer"].values())))
    for turn in [2, 4]:
        proxy.calm()
        proxy.before = lambda now: now == turn and writer.upload_file(PAIR[1], "weights", "pair/" + os.path.basename(PAIR[0]))
        refused(f"S3: an object that changes before request {turn}", qualm("check", *pair, **reader), "changed while it was read")
        writer.upload_file(PAIR[0], "weights", "pair/" + os.path.basename(PAIR[0]))
    writer.put_bucket_versioning(Bucket="weights", VersioningConfiguration={"Status": "Enabled"})
    writer.upload_file(PAIR[0], "weights", "pair/" + os.path.basename(PAIR[0]))
    version = writer.head_object(Bucket="weights", Key="pair/" + os.path.basename(PAIR[0]))["VersionId"]
    proxy.calm()
    _, (_, revisions) = record(*pair, **reader)
    check("S3: the version is recorded", version in revisions, str(revisions))


def google():
    command = [os.path.join(BIN, "gcp-storage-emulator"), "start", "--host=127.0.0.1", "--port=PORT", "--in-memory"]
    port = start(*command, "--default-bucket=weights", ready="/")
    for key, path in files():
        name = urllib.parse.quote(key, safe="")
        url = f"http://127.0.0.1:{port}/upload/storage/v1/b/weights/o?uploadType=media&name={name}"
        with open(path, "rb") as file:
            urllib.request.urlopen(urllib.request.Request(url, file.read(), method="POST")).read()
    proxy = Proxy(port)
    generation = lambda path: {} if "/storage/v1/" in path else {"x-goog-generation": "1", "ETag": f'"{path}-1"'}
    emulator = {"STORAGE_EMULATOR_HOST": proxy.url()} | NEAR
    proxy.headers = generation
    everywhere("Google", proxy, "gs", **emulator)
    pair, _ = addresses("gs")
    _, (_, revisions) = record(*pair, **emulator)
    check("Google: the generation is recorded", revisions == {"1"}, str(revisions))
    proxy.bearer = "secret-token"
    account = written("account.json", json.dumps(LOGINS.service_account()))
    user = written("user.json", json.dumps(LOGINS.user()))
    for what, variables in [
        ("a service account", {"GOOGLE_APPLICATION_CREDENTIALS": account}),
        ("a service account by another name", {"GOOGLE_SERVICE_ACCOUNT": account}),
        ("a user's login", {"GOOGLE_APPLICATION_CREDENTIALS": user}),
        ("a token", {"CLOUDSDK_AUTH_ACCESS_TOKEN": "secret-token"}),
    ]:
        ran = inspect(pair[0], **emulator | variables)
        check(f"Google: {what}", ran.returncode == 0, ran.stderr + str(LOGINS.log))
    check("Google: a token is asked for once a run", LOGINS.log.count("/token") == 3, str(LOGINS.log))
    other = written("other.json", json.dumps(LOGINS.user() | {"client_secret": "secret-wrong"}))
    ran = inspect(pair[0], **emulator | {"GOOGLE_APPLICATION_CREDENTIALS": other})
    refused("Google: a login that fails", ran, "400 invalid_grant")
    refused("Google: nobody", inspect(pair[0], **emulator), "401", "no credentials were found")
    proxy.bearer = None
    changing(proxy, "Google", pair, emulator, lambda path: {"x-goog-generation": "2"})


def azure():
    command = [AZURITE, "--blobHost", "127.0.0.1", "--blobPort", "PORT", "--location", os.path.join(HOME, "azurite")]
    port = start(*command, "--silent", "--skipApiVersionCheck", ready="/")
    account = "devstoreaccount1"
    # The emulator's own, which everybody knows.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    service = BlobServiceClient(f"http://127.0.0.1:{port}/{account}", credential=key)
    for name, public in [("weights", None), ("public", "container")]:
        container = service.create_container(name, public_access=public)
        for blob, path in files():
            with open(path, "rb") as file:
                container.upload_blob(blob, file)
    proxy = Proxy(port)
    place = {"AZURE_STORAGE_ACCOUNT": account, "AZURE_STORAGE_ENDPOINT": f"{proxy.url()}/{account}"} | NEAR
    everywhere("Azure", proxy, "az", **place | {"AZURE_STORAGE_KEY": key})
    pair, checkpoint = addresses("az")
    text = f"AccountName={account};AccountKey={key};BlobEndpoint={proxy.url()}/{account};"
    ran = inspect(pair[0], **NEAR | {"AZURE_STORAGE_CONNECTION_STRING": text})
    check("Azure: a connection string", ran.returncode == 0, ran.stderr)
    rights = ContainerSasPermissions(read=True, list=True)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    query = generate_container_sas(account, "weights", account_key=key, permission=rights, expiry=until)
    pinned("Azure: a shared access signature", LOCAL, checkpoint, **place | {"AZURE_STORAGE_SAS_TOKEN": "?" + query})
    wrong = query.replace("sig=", "sig=secret")
    refused("Azure: a wrong one", inspect(pair[0], **place | {"AZURE_STORAGE_SAS_TOKEN": wrong}), "403 AuthorizationFailure")
    wrong = "c2VjcmV0" + key[8:]
    refused("Azure: a wrong key", inspect(pair[0], **place | {"AZURE_STORAGE_KEY": wrong}), "403 AuthorizationFailure")
    public = [path.replace("weights", "public") for path in checkpoint]
    pinned("Azure: a public container, nobody", LOCAL, public, **place)
    refused("Azure: nobody", inspect(pair[0], **place), "no credentials were found")
    proxy.bearer = "secret-token"
    directory = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "app", "AZURE_AUTHORITY_HOST": LOGINS.url()}
    proof = written("proof", "secret-proof\n")
    for what, variables in [
        ("an application's secret", directory | {"AZURE_CLIENT_SECRET": "secret-proof"}),
        ("a workload's token", directory | {"AZURE_FEDERATED_TOKEN_FILE": proof}),
        ("a managed identity", {"AZURE_POD_IDENTITY_AUTHORITY_HOST": LOGINS.url()}),
        ("a token", {"AZURE_STORAGE_TOKEN": "secret-token"}),
    ]:
        ran = inspect(public[1], **place | variables)
        check(f"Azure: {what}", ran.returncode == 0, ran.stderr + str(LOGINS.log))
    ran = inspect(public[1], **place | directory | {"AZURE_CLIENT_SECRET": "secret-wrong"})
    refused("Azure: a login that fails", ran, "401 invalid_client")
    proxy.bearer = None
    blob = service.get_blob_client("weights", "pair/" + os.path.basename(PAIR[0]))

    def write(path):
        with open(path, "rb") as file:
            blob.upload_blob(file, overwrite=True)

    proxy.calm()
    proxy.before = lambda now: now == 2 and write(PAIR[1])
    ran = qualm("check", *pair, **place | {"AZURE_STORAGE_KEY": key})
    refused("Azure: an object that changes", ran, "changed while it was read")


def changing(proxy, store, pair, variables, second):
    """Answers from the third on are of another version."""
    first, proxy.turn = proxy.headers, 0
    proxy.headers = lambda path: first(path) | (second(path) if proxy.turn > 2 else {})
    refused(f"{store}: an object that changes", qualm("check", *pair, **variables), "changed while it was read")


def inspect(address, **variables):
    return qualm("inspect", "--headers", address, **variables)


def written(name, text):
    path = os.path.join(HOME, name)
    with open(path, "w") as file:
        file.write(text)
    return path


BIN = os.path.dirname(sys.executable)
with tempfile.TemporaryDirectory() as HOME:
    ENVIRONMENT |= {"HOME": HOME, "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    for part in [amazon, google, azure]:
        began = time.monotonic()
        part()
        print(f"        {part.__name__}: {time.monotonic() - began:.0f} s")
done()
