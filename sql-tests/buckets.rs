//! Storage and sinks in buckets of servers that the tests start: Amazon's protocol (moto), Azure's
//! (Azurite), Google's (`buckets/gcs.py`). The program is killed there as `crash.rs` does it on a disk.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::Rng;

use crate::crash::kill_again_and_again;
use crate::durability::{PATIENCE, Place, number, serve_in, variable};

/// A server of this test's own that keeps buckets, with one in it.
pub struct Bucket {
    child: Child,
    pub place: Place,
    /// With what its objects can be looked at, and how.
    python: PathBuf,
    look: &'static str,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that a child says on one of its outputs, which is read on.
fn address_of(output: impl Read + Send + 'static) -> String {
    let mut output = BufReader::new(output);
    let mut log = String::new();
    let endpoint = loop {
        let start = log.len();
        assert!(output.read_line(&mut log).expect("it logs") > 0, "it ended:\n{log}");
        let line = &log[start..];
        if let Some(at) = line.find("http://127.0.0.1:") {
            break line[at..].split_whitespace().next().expect("an address").to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    endpoint
}

/// A server of Azure's protocol from the npm registry.
const AZURITE: &str = "azurite@3.37.0";

/// Makes a container of an emulator: a request that is signed with the emulators' known key.
const MAKE_CONTAINER: &str = r#"
import base64, hashlib, hmac, sys, urllib.request
from email.utils import formatdate
endpoint, container = sys.argv[1:3]
key = base64.b64decode("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
account, version, date = "devstoreaccount1", "2021-08-06", formatdate(usegmt=True)
text = ("PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
        f"/{account}/{account}/{container}\nrestype:container")
signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": version,
           "Authorization": f"SharedKey {account}:{signature}"}
urllib.request.urlopen(urllib.request.Request(
    f"{endpoint}/{account}/{container}?restype=container", method="PUT", headers=headers))
"#;

/// The same with Azure's protocol; `None`, with the reason, where there is none.
fn container(directory: &Path) -> Option<Bucket> {
    let node = crate::clients::needed("Azurite", crate::clients::node(AZURITE))?;
    let python = PathBuf::from("python3");
    let mut command = Command::new("node");
    command.arg(node.join("node_modules/.bin/azurite-blob"));
    command.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--skipApiVersionCheck"]);
    command.args(["--silent", "--disableTelemetry", "--inMemoryPersistence"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let endpoint = address_of(child.stdout.take().expect("piped"));
    let status = Command::new(&python).args(["-c", MAKE_CONTAINER, &endpoint, "bucket"]).status();
    assert!(status.expect("python runs").success(), "a container can be made");
    let variables = vec![
        ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
        ("AZURITE_BLOB_STORAGE_URL", endpoint),
    ];
    let bucket = Some("az://bucket/some/prefix".to_owned());
    let place = Place { directory: directory.to_owned(), bucket, variables };
    Some(Bucket { child, place, python, look: LOOK_AZURE })
}

/// Prints what blobs below a prefix have, one after the other.
const LOOK_AZURE: &str = r#"
import base64, hashlib, hmac, os, re, sys, urllib.request
from email.utils import formatdate
endpoint = os.environ["AZURITE_BLOB_STORAGE_URL"]
key = base64.b64decode("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
account = "devstoreaccount1"
def get(path, query):
    version, date = "2021-08-06", formatdate(usegmt=True)
    text = ("GET" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
            f"/{account}/{account}/{path}" + "".join(f"\n{k}:{v}" for k, v in sorted(query.items())))
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version,
               "Authorization": f"SharedKey {account}:{signature}"}
    query = "&".join(f"{k}={v}" for k, v in query.items())
    url = f"{endpoint}/{account}/{path}" + (f"?{query}" if query else "")
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read()
listed = get("bucket", {"comp": "list", "restype": "container"}).decode()
for name in re.findall("<Name>([^<]*)</Name>", listed):
    if name.startswith(sys.argv[1]):
        assert name.endswith(".ndjson"), name
        sys.stdout.buffer.write(get(f"bucket/{name}", {}))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_sink_in_a_container_of_azure_have_every_row_once() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(bucket) = container(directory.path()) else { return };
    write_files("az", &bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_azure_is_as_good_as_a_disk() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(container) = container(directory.path()) else { return };
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(2).min(20);
    kill_again_and_again(&container.place, kills, None).await;
    assert!(!directory.path().join("storage").exists(), "nothing is on the disk");
}

/// What a bucket has below a folder, which must be files of lines.
impl Bucket {
    fn lines(&self, folder: &str) -> Vec<String> {
        let mut look = Command::new(&self.python);
        look.args(["-c", self.look, folder]).envs(self.place.variables.clone());
        let output = look.output().expect("python runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }
}

/// A server that is killed while a sink writes files to a bucket: every row is there once.
async fn write_files(scheme: &str, bucket: &Bucket) {
    // The state is on the disk, the sink's files are not.
    let place = Place { bucket: None, ..bucket.place.clone() };
    let server = serve_in(&place, "2", &[]);
    let set_up = format!(
        "CREATE TABLE log (id bigint, note text) APPEND ONLY;
        CREATE SINK lines FROM log WITH (connector = 'file', path = '{scheme}://bucket/lines',
            file_rows = 40);"
    );
    server.connect().await.batch_execute(&set_up).await.expect("the set-up runs");
    server.kill();
    let (mut random, mut written) = (rand::rng(), 0);
    for round in 0..5 {
        let server = serve_in(&place, ["1", "2", "3"][round % 3], &[]);
        let client = server.connect().await;
        for _ in 0..4 {
            let (from, to) = (written + 1, written + 50);
            let insert = format!(
                "INSERT INTO log SELECT g, 'row ' || g FROM generate_series({from}, {to}) g(g)"
            );
            client.batch_execute(&insert).await.expect("is written");
            written = to;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
        server.kill();
    }
    let server = serve_in(&place, "2", &[]);
    let client = server.connect().await;
    let settled = tokio::time::timeout(PATIENCE, async {
        let pending = "SELECT coalesce(sum(pending_rows), 0)::bigint FROM millstream.sinks";
        loop {
            client.batch_execute("CHECKPOINT").await.expect("is written");
            if number(&client, pending).await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    settled.await.expect("the sink comes to an end");
    let found = bucket.lines("lines/");
    let line = |id: i64| format!("{{\"id\":{id},\"note\":\"row {id}\"}}");
    let mut expected: Vec<String> = (1..=written).map(line).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    server.kill();
}

/// An S3-compatible one; `None`, with the reason, where there is none.
fn bucket(directory: &Path) -> Option<Bucket> {
    let python = crate::clients::needed("S3", crate::clients::python(&[MOTO]))?;
    let folder = python.parent().expect("it is in a folder");
    let mut command = Command::new(folder.join("moto_server"));
    command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the server starts");
    let endpoint = address_of(child.stderr.take().expect("piped"));
    let variables = vec![
        ("AWS_ENDPOINT_URL", endpoint.clone()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let made = "import sys, urllib.request as u; \
                u.urlopen(u.Request(sys.argv[1] + '/bucket', method='PUT'))";
    let status = Command::new(&python).args(["-c", made, &endpoint]).status();
    assert!(status.expect("python runs").success(), "a bucket can be made");
    let bucket = Some("s3://bucket/some/prefix".to_owned());
    let place = Place { directory: directory.to_owned(), bucket, variables };
    Some(Bucket { child, place, python, look: LOOK_S3 })
}

/// Prints what objects below a prefix have, one after the other.
const LOOK_S3: &str = r#"
import boto3, os, sys
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=sys.argv[1])
for item in (item for page in pages for item in page.get("Contents", [])):
    assert item["Key"].endswith(".ndjson"), item["Key"]
    sys.stdout.buffer.write(s3.get_object(Bucket="bucket", Key=item["Key"])["Body"].read())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_sink_in_a_bucket_have_every_row_once() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(bucket) = bucket(directory.path()) else { return };
    write_files("s3", &bucket).await;
}

/// An S3-compatible server from PyPI.
const MOTO: &str = "moto[server]==5.2.5";

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_as_good_as_a_disk() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(bucket) = bucket(directory.path()) else { return };
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(3).min(20);
    kill_again_and_again(&bucket.place, kills, None).await;
    // Two servers on one bucket: the older ends.
    let older = serve_in(&bucket.place, "1", &[]);
    let newer = serve_in(&bucket.place, "1", &[]);
    assert_eq!(older.ended(), Some(1));
    newer.kill();
    assert!(!directory.path().join("storage").exists(), "nothing is on the disk");
}

/// Who needs no token.
const NOBODY: &str =
    r#"{"client_email": "", "private_key": "", "private_key_id": "", "disable_oauth": true}"#;

/// Google's protocol; `None`, with the reason, where there is no Python.
pub fn google(directory: &Path) -> Option<Bucket> {
    let python = PathBuf::from("python3");
    let mut command = Command::new(&python);
    command.args(["-c", include_str!("buckets/gcs.py")]).stdout(Stdio::piped());
    let started = command.spawn().map_err(|error| format!("python3: {error}"));
    let mut child = crate::clients::needed("Python", started)?;
    let endpoint = address_of(child.stdout.take().expect("piped"));
    let variables =
        vec![("GOOGLE_BASE_URL", endpoint), ("GOOGLE_SERVICE_ACCOUNT_KEY", NOBODY.to_owned())];
    let bucket = Some("gs://bucket/some/prefix".to_owned());
    let place = Place { directory: directory.to_owned(), bucket, variables };
    Some(Bucket { child, place, python, look: LOOK_GOOGLE })
}

/// Prints what objects below a prefix have, one after the other.
const LOOK_GOOGLE: &str = r#"
import os, re, sys, urllib.request
base = os.environ["GOOGLE_BASE_URL"] + "/bucket"
listed = urllib.request.urlopen(f"{base}?list-type=2&prefix={sys.argv[1]}").read().decode()
assert "NextContinuationToken" not in listed, "one page is enough"
for name in re.findall("<Key>([^<]*)</Key>", listed):
    assert name.endswith(".ndjson"), name
    sys.stdout.buffer.write(urllib.request.urlopen(f"{base}/{name}").read())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_google_is_as_good_as_a_disk() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(bucket) = google(directory.path()) else { return };
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(2).min(20);
    kill_again_and_again(&bucket.place, kills, None).await;
    assert!(!directory.path().join("storage").exists(), "nothing is on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_sink_in_a_bucket_of_google_have_every_row_once() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(bucket) = google(directory.path()) else { return };
    write_files("gs", &bucket).await;
}
